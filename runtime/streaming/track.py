"""One sequence of tokens as it is read: what was fed, its cache, its pools, and ways back."""

from collections.abc import Collection, Sequence
from copy import copy

import numpy as np

from layerguard.runtime.streaming.decoder import Decoder, Step
from layerguard.runtime.streaming.pools import Pools
from layerguard.runtime.streaming.snapshots import Snapshots
from layerguard.runtime.types import ROLES, Array, Tap

_MOST_AT_ONCE = 512
"""Tokens of one run: their states are all in memory until they are pooled."""

_USER = ROLES.index("user")


class Track:
    """A token sequence that grows, and may be taken back; each token is read once.

    Not thread-safe: it belongs to one stream.

    Attributes:
        ids: the tokens read so far; not to be changed from outside.
        pools: what the detectors need of them.
    """

    def __init__(self, decoder: Decoder, taps: Collection[Tap]) -> None:
        self._decoder = decoder
        self._cache = decoder.new_cache()
        self.ids: list[int] = []
        self._roles: list[int] = []
        self.pools = Pools(taps)
        self._snapshots = Snapshots(self.pools.copy())

    @property
    def nbytes(self) -> int:
        """Memory of the cache in bytes."""
        return self._cache.nbytes

    def extend(
        self,
        ids: Sequence[int],
        roles: Sequence[int] | None = None,
        *,
        steering: Array | None = None,
        want_logits: bool = False,
        also: Pools | None = None,
    ) -> Step:
        """Read further tokens, at least one; see ``Decoder.advance``.

        Args:
            ids: the tokens.
            roles: index in ``ROLES`` of each; None: all are the user's.
            steering: see ``Decoder.advance``.
            want_logits: see ``Decoder.advance``.
            also: takes in these tokens too.

        Returns:
            the last run's result: the states of at most the last 512 of the tokens.
        """
        who = [_USER] * len(ids) if roles is None else list(roles)
        step = None
        for start in range(0, len(ids), _MOST_AT_ONCE):
            part = slice(start, start + _MOST_AT_ONCE)
            logits = want_logits and part.stop >= len(ids)
            step = self._decoder.advance(
                ids[part], self._cache, steering=steering, want_logits=logits
            )
            self._take(step, ids[part], who[part])
            if also is not None:
                also.add(step, slice(None), np.array(who[part], np.uint8))
        assert step is not None, "no token to read"
        return step

    def replace(
        self,
        start: int,
        ids: Sequence[int],
        role: int = _USER,
        *,
        steering: Array | None = None,
        want_logits: bool = False,
    ) -> Step | None:
        """Make ``ids`` what the sequence holds from ``start`` on; read what differs.

        Args:
            start: position of the first of ``ids``, at most the sequence's length.
            ids: the tokens from there to the end.
            role: index in ``ROLES`` of those that are new.
            steering: see ``Decoder.advance``.
            want_logits: see ``Decoder.advance``.

        Returns:
            as ``extend``; None where nothing differs.
        """
        same = start + _common(self.ids[start:], list(ids))
        again_ids, again_roles = self.go_back(same)
        new = [*again_ids, *ids[same - start :]]
        if not new:
            return None
        who = [*again_roles, *[role] * (len(new) - len(again_roles))]
        return self.extend(new, who, steering=steering, want_logits=want_logits)

    def settle(self) -> None:
        """What was read so far stays: the sequence never goes back behind here."""
        self._snapshots = Snapshots(self.pools.copy(), len(self.ids))

    def fork(self) -> "Track":
        """The same sequence, to be continued apart from this one."""
        other = copy(self)
        other._cache = self._cache.fork()
        other.ids, other._roles = list(self.ids), list(self._roles)
        other.pools, other._snapshots = self.pools.copy(), self._snapshots.copy()
        return other

    def go_back(self, length: int) -> tuple[list[int], list[int]]:
        """Forget what lies behind ``length``; gives the ids and roles to be read once more."""
        if length == len(self.ids):
            return [], []
        position, pools = self._snapshots.back_to(length)
        again = self.ids[position:length], self._roles[position:length]
        self.pools = pools.copy()
        self._cache.truncate(position)
        del self.ids[position:], self._roles[position:]
        return again

    def _take(self, step: Step, ids: Sequence[int], roles: Sequence[int]) -> None:
        """Pool the tokens of a run. The last one is the likeliest to be taken back."""
        who = np.array(roles, np.uint8)
        start, last = len(self.ids), len(ids) - 1
        for tokens in (slice(0, last), slice(last, None)) if last else (slice(0, None),):
            self._snapshots.add(start + tokens.start, self.pools.copy())
            self.pools.add(step, tokens, who[tokens])
        self.ids += ids
        self._roles += roles


def _common(first: list[int], second: list[int]) -> int:
    """How many leading ids two lists share."""
    most = min(len(first), len(second))
    if first[:most] == second[:most]:
        return most
    return next(i for i in range(most) if first[i] != second[i])
