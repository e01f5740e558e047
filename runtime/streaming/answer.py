"""The answer of a stream: turns pushed chunks into text, and keeps token ids if ids are pushed."""

import codecs
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import check_text

Chunk = str | bytes | Sequence[int]
"""Text, UTF-8 bytes that may be cut at any byte, or token ids of the bundle's tokenizer."""

_INCOMPLETE = "\ufffd"


class AnswerState(NamedTuple):
    """The whole state of an answer, for ``Answer.restore``."""

    text: str
    pending_bytes: bytes
    ids: tuple[int, ...] | None


class Answer:
    """An answer as text. If ids are pushed, the text is decoded from them.

    Attributes:
        text: the complete characters so far.
        ids: the pushed tokens; None if text was pushed.
        pending_bytes: bytes of a character that is not complete.
    """

    def __init__(self, text: str, tokenizer: Tokenizer, vocabulary: int) -> None:
        self.text = text
        self.ids: list[int] | None = None
        self.pending_bytes = b""
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._decoded = (0, "")
        decoder = tokenizer.decoder
        # A byte-level decoder never changes earlier text, except for an incomplete character.
        self._is_byte_level = decoder and json.loads(decoder.__getstate__())["type"] == "ByteLevel"

    def push(self, chunk: Chunk) -> None:
        """Append a chunk.

        Raises:
            InputError: the chunk is not text, bytes or ids, or text and ids are mixed.
        """
        if isinstance(chunk, (str, bytes, bytearray, memoryview)):
            self._push_text(chunk)
        else:
            self._push_ids(chunk)

    def finish(self) -> None:
        """End the answer: pending bytes of an incomplete character become U+FFFD."""
        self.text += self.pending_bytes.decode(errors="replace")
        self.pending_bytes = b""

    def state(self) -> AnswerState:
        """The current state, for ``restore``."""
        ids = None if self.ids is None else tuple(self.ids)
        return AnswerState(self.text, self.pending_bytes, ids)

    def restore(self, state: AnswerState) -> None:
        """Return to a saved state."""
        self.text, self.pending_bytes = state.text, state.pending_bytes
        self.ids = None if state.ids is None else list(state.ids)
        self._decoded = (0, "")

    def fork(self) -> "Answer":
        """An independent copy."""
        other = Answer("", self._tokenizer, self._vocabulary)
        other.restore(self.state())
        return other

    def _push_text(self, chunk: str | bytes | bytearray | memoryview) -> None:
        if self.ids is not None:
            raise InputError("found text after token ids; expected one kind for a whole stream")
        if isinstance(chunk, str):
            check_text("chunk", chunk)
            if self.pending_bytes and chunk:
                raise InputError(
                    f"found text after {self.pending_bytes!r}, which is part of a character; "
                    "expected the remaining bytes of that character"
                )
            self.text += chunk
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text += decoder.decode(self.pending_bytes + bytes(chunk))
        self.pending_bytes = decoder.getstate()[0]

    def _push_ids(self, chunk: Sequence[int]) -> None:
        new = np.asarray(chunk)
        if new.ndim != 1 or (new.size and new.dtype.kind not in "iu"):
            raise InputError(
                f"chunk: found {type(chunk).__name__}; expected a str, bytes, or a list of token "
                "ids"
            )
        if new.size and not 0 <= new.min() <= new.max() < self._vocabulary:
            raise InputError(
                f"token ids: found {new.min()} to {new.max()}; expected 0 to "
                f"{self._vocabulary - 1}, the ids of the bundle's own tokenizer"
            )
        if self.ids is None and (self.text or self.pending_bytes):
            raise InputError("found token ids after text; expected one kind for a whole stream")
        self.ids = [*(self.ids or ()), *new.tolist()]
        start, text = self._decoded
        self.text = text + self._tokenizer.decode(self.ids[start:], skip_special_tokens=True)
        if self._is_byte_level and not self.text.endswith(_INCOMPLETE):
            self._decoded = (len(self.ids), self.text)
