"""The rows of token ids of a batch, each once."""

from layerguard.runtime.text.tokens import Ids

Row = tuple[Ids, bytes | None]
"""Token ids, and the roles of the tokens if a detector needs them."""


class DistinctRows:
    """The distinct rows of a batch: token ids, and roles if a detector needs them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._indices: dict[Row, int] = {}

    def index(self, ids: Ids, roles: bytes | None) -> int:
        """The number of a row. A row without roles matches any row with the same tokens."""
        index = self._indices.get((ids, roles))
        if index is None and roles is not None:
            index = self._indices.get((ids, None))
            if index is not None and self.rows[index][1] is not None:
                index = None  # the same tokens with other roles
        if index is None:
            index = len(self.rows)
            self.rows.append((ids, roles))
            self._indices.setdefault((ids, None), index)
        self.rows[index] = ids, roles or self.rows[index][1]
        self._indices[ids, roles] = index
        return index
