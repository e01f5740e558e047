"""Words on a bundle's canaries, for ``inspect`` and ``doctor``."""

from layerguard.runtime.bundle.manifest import Manifest, unchecked


def canary_words(manifest: Manifest) -> str:
    """The number of canaries, and which detectors no canary checks."""
    count = str(len(manifest.canaries))
    weak = unchecked(manifest)
    if not weak:
        return count
    return (
        f"{count}, weak: none checks the score of {', '.join(weak)}, so a wrong provider or kernel "
        "would not be noticed; calibrate again"
    )
