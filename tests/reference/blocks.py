"""Tukey's statistically equivalent blocks as one would cut them by hand; slow on purpose."""

from layerguard.runtime.types import Array


def cut_by_hand(scores: Array) -> list[tuple[int, int]]:
    """(text, detector) of each cut: the largest score left of the detector cut least deep so far.

    How deep a detector is cut: how many texts score at least as much as its last cut.
    """
    n, detectors = scores.shape
    left = set(range(n))
    depth = [0] * detectors
    cuts = []
    while left:
        detector = min(range(detectors), key=lambda j: (depth[j], j))
        text = max(left, key=lambda i: scores[i, detector])
        left.remove(text)
        depth[detector] = sum(score >= scores[text, detector] for score in scores[:, detector])
        cuts.append((text, detector))
    return cuts
