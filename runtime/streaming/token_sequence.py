"""A growing token sequence with its key-value cache, running pools and snapshots for rollback."""

from collections.abc import Collection, Sequence
from copy import copy

import numpy as np

from layerguard.runtime.streaming.decode_graph import DecodeGraph, Step
from layerguard.runtime.streaming.pools import Pools
from layerguard.runtime.streaming.snapshots import Snapshots
from layerguard.runtime.text.shared_prefix import shared_prefix
from layerguard.runtime.types import ROLES, Array, Tap

_MAX_RUN_TOKENS = 512
"""Most tokens in one run; the states of one run are in memory until they are pooled."""

_USER = ROLES.index("user")


class TokenSequence:
    """A token sequence that can be extended and rolled back; each token is read once.

    Not thread-safe: it belongs to one stream.

    Attributes:
        ids: the tokens read so far. Read-only for callers.
        pools: pooled states of these tokens.
    """

    def __init__(self, decode_graph: DecodeGraph, taps: Collection[Tap]) -> None:
        self._decode_graph = decode_graph
        self._cache = decode_graph.new_cache()
        self.ids: list[int] = []
        self._roles: list[int] = []
        self.pools = Pools(taps)
        self._snapshots = Snapshots(self.pools.copy())

    @property
    def nbytes(self) -> int:
        """Size of the cache in bytes."""
        return self._cache.nbytes

    def extend(
        self,
        ids: Sequence[int],
        roles: Sequence[int] | None = None,
        *,
        steering: Array | None = None,
        want_logits: bool = False,
        extra_pools: Pools | None = None,
    ) -> Step:
        """Read new tokens, at least one; see ``DecodeGraph.advance``.

        Args:
            ids: the tokens.
            roles: index in ``ROLES`` of each token; None means that all have the role user.
            steering: see ``DecodeGraph.advance``.
            want_logits: see ``DecodeGraph.advance``.
            extra_pools: further pools that the tokens are added to.

        Returns:
            The result of the last run, with the states of at most the last 512 tokens.
        """
        all_roles = [_USER] * len(ids) if roles is None else list(roles)
        step = None
        for start in range(0, len(ids), _MAX_RUN_TOKENS):
            part = slice(start, start + _MAX_RUN_TOKENS)
            logits = want_logits and part.stop >= len(ids)
            step = self._decode_graph.advance(
                ids[part], self._cache, steering=steering, want_logits=logits
            )
            self._pool(step, ids[part], all_roles[part])
            if extra_pools is not None:
                extra_pools.add(step, slice(None), np.array(all_roles[part], np.uint8))
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
        """Replace the tokens from ``start`` on by ``ids``; only tokens that differ are read.

        Args:
            start: position of the first of ``ids``, at most the length of the sequence.
            ids: the tokens from ``start`` to the end.
            role: index in ``ROLES`` of the new tokens.
            steering: see ``DecodeGraph.advance``.
            want_logits: see ``DecodeGraph.advance``.

        Returns:
            As ``extend``; None if nothing differs.
        """
        same = start + shared_prefix(self.ids[start:], list(ids))
        again_ids, again_roles = self.roll_back(same)
        new = [*again_ids, *ids[same - start :]]
        if not new:
            return None
        roles = [*again_roles, *[role] * (len(new) - len(again_roles))]
        return self.extend(new, roles, steering=steering, want_logits=want_logits)

    def fix_prefix(self) -> None:
        """Make the tokens read so far permanent: the sequence never rolls back behind them."""
        self._snapshots = Snapshots(self.pools.copy(), len(self.ids))

    def fork(self) -> "TokenSequence":
        """An independent copy."""
        other = copy(self)
        other._cache = self._cache.fork()
        other.ids, other._roles = list(self.ids), list(self._roles)
        other.pools, other._snapshots = self.pools.copy(), self._snapshots.copy()
        return other

    def roll_back(self, length: int) -> tuple[list[int], list[int]]:
        """Remove the tokens after the first ``length``, back to a snapshot at or before there.

        Returns:
            The ids and roles between the snapshot and ``length``, which must be read again.
        """
        if length == len(self.ids):
            return [], []
        position, pools = self._snapshots.back_to(length)
        again = self.ids[position:length], self._roles[position:length]
        self.pools = pools.copy()
        self._cache.truncate(position)
        del self.ids[position:], self._roles[position:]
        return again

    def _pool(self, step: Step, ids: Sequence[int], roles: Sequence[int]) -> None:
        """Pool the tokens of a run, with a snapshot before the last token.

        The last token of a run is the one that is most often rolled back.
        """
        run_roles = np.array(roles, np.uint8)
        start, last = len(self.ids), len(ids) - 1
        for tokens in (slice(0, last), slice(last, None)) if last else (slice(0, None),):
            self._snapshots.add(start + tokens.start, self.pools.copy())
            self.pools.add(step, tokens, run_roles[tokens])
        self.ids += ids
        self._roles += roles
