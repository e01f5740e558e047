"""The files of a bundle that are removed when its detectors change."""

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import SIGNATURE


def removed_by_a_change(bundle: Bundle) -> tuple[str, ...]:
    """The names of the fused graphs and the signature; call it before the detectors change."""
    fused = tuple(card.file for card in bundle.manifest.fused.values())
    return (*fused, SIGNATURE) if (bundle.path / SIGNATURE).exists() else fused
