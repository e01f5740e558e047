"""The answer that is being written: from pushed chunks to its text, and its ids where given."""

import codecs
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import check_text

Chunk = str | bytes | Sequence[int]
"""Text, its UTF-8 bytes cut anywhere, or token ids of the bundle's tokenizer."""

_INCOMPLETE = "\ufffd"


class AnswerState(NamedTuple):
    """All there is to an answer, so that it can be gone back to."""

    text: str
    bytes_waiting: bytes
    ids: tuple[int, ...] | None


class Answer:
    """An answer as text; where ids are pushed, they are the truth and the text is their spelling.

    Attributes:
        text: the complete characters so far.
        ids: the tokens that were pushed; None where text was.
        waiting: bytes of a character that is not complete.
    """

    def __init__(self, text: str, tokenizer: Tokenizer, vocabulary: int) -> None:
        self.text = text
        self.ids: list[int] | None = None
        self.waiting = b""
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._spelt = (0, "")
        decoder = tokenizer.decoder
        # bytes one after the other: what is spelt so far stays, unless a character is incomplete
        self._spells_bytes = decoder and json.loads(decoder.__getstate__())["type"] == "ByteLevel"

    def push(self, chunk: Chunk) -> None:
        """Add what follows.

        Raises:
            InputError: the chunk is neither text, bytes nor ids, or text and ids are mixed.
        """
        if isinstance(chunk, (str, bytes, bytearray, memoryview)):
            self._push_text(chunk)
        else:
            self._push_ids(chunk)

    def finish(self) -> None:
        """No more comes: bytes that still wait are no character, and become U+FFFD."""
        self.text += self.waiting.decode(errors="replace")
        self.waiting = b""

    def state(self) -> AnswerState:
        """What ``restore`` takes."""
        return AnswerState(self.text, self.waiting, None if self.ids is None else tuple(self.ids))

    def restore(self, state: AnswerState) -> None:
        """Go back to, or on to, what was."""
        self.text, self.waiting = state.text, state.bytes_waiting
        self.ids = None if state.ids is None else list(state.ids)
        self._spelt = (0, "")

    def fork(self) -> "Answer":
        """The same, to be continued apart."""
        other = Answer("", self._tokenizer, self._vocabulary)
        other.restore(self.state())
        return other

    def _push_text(self, chunk: str | bytes | bytearray | memoryview) -> None:
        if self.ids is not None:
            raise InputError("found text behind token ids; expected one kind for a whole stream")
        if isinstance(chunk, str):
            check_text("chunk", chunk)
            if self.waiting and chunk:
                raise InputError(
                    f"found text behind {self.waiting!r}, which is part of a character; expected "
                    "the rest of its bytes"
                )
            self.text += chunk
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text += decoder.decode(self.waiting + bytes(chunk))
        self.waiting = decoder.getstate()[0]

    def _push_ids(self, chunk: Sequence[int]) -> None:
        found = np.asarray(chunk)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise InputError(
                f"chunk: found {type(chunk).__name__}; expected a str, bytes, or a list of token "
                "ids"
            )
        if found.size and not 0 <= found.min() <= found.max() < self._vocabulary:
            raise InputError(
                f"token ids: found {found.min()} to {found.max()}; expected 0 to "
                f"{self._vocabulary - 1}, the ids of the bundle's own tokenizer"
            )
        if self.ids is None and (self.text or self.waiting):
            raise InputError("found token ids behind text; expected one kind for a whole stream")
        self.ids = [*(self.ids or ()), *found.tolist()]
        start, text = self._spelt
        self.text = text + self._tokenizer.decode(self.ids[start:], skip_special_tokens=True)
        if self._spells_bytes and not self.text.endswith(_INCOMPLETE):
            self._spelt = (len(self.ids), self.text)
