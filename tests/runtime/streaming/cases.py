"""Shared by the streaming tests: texts that are hard to split, chunkings, and equality."""

from collections.abc import Iterator

from hypothesis import strategies as st

from layerguard.runtime import Verdict
from layerguard.runtime.text.request import _CHAT_MARKERS
from tests.tiny_decoder import CORPUS, SPECIAL

PIECES = (
    *CORPUS,
    *_CHAT_MARKERS[:4],
    *SPECIAL,
    "[INST]", "<|start_header_id|>", "</s>", " ", "  ", "\n", "\n\n\n\n", "\t", "\r\n", "\u3000",
    "don't", "'", "it's", "1234567", "a_b", "。", "、", "e\u0301", "é", "\u200d", "👩‍🚀", "Ω",
    "", "x", " x", "<|im_", "start|>", ".", ",", "...", "\ufffd", "中", "문", "か゛", "ࠀ", "🇩🇪",
)  # fmt: skip

texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=10).map("".join)
"""Texts of hard pieces in any order, with arbitrary characters between them."""


def chunked(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """``data`` in chunks of the given sizes; the last size is repeated."""
    start = 0
    for size in [*sizes, *[sizes[-1]] * len(data)]:
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


def same(found: Verdict, expected: Verdict, *, within: float = 1e-5) -> None:
    """Fail unless the verdict of a stream equals that of the check."""
    assert found.readings.keys() == expected.readings.keys()
    for name, reading in expected.readings.items():
        score = found.readings[name].score
        assert abs(score - reading.score) <= within * (1 + abs(reading.score)), name
    assert found.flagged == expected.flagged
    assert found.status == expected.status
    assert found.unread == expected.unread
    assert found.tokens == expected.tokens
    assert found.bundle_id == expected.bundle_id
    assert not found.truncated
