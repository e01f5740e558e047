"""Rows of a file as prompts to trace: token ids, and the token whose probability is followed."""

from dataclasses import dataclass

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import Ids, TokenReader


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in the bundle's template.

    Attributes:
        id: of its row.
        ids: its tokens, up to where the answer begins.
        target: the first token of the answer that the row gives; None where it gives none.
        truncated: whether tokens were left out because the prompt is longer than the window.
    """

    id: str
    ids: Ids
    target: int | None
    truncated: bool


class PromptReader:
    """The tokenizer and template of a bundle, for prompts and their answers."""

    def __init__(self, bundle: Bundle) -> None:
        self._tokens = TokenReader(bundle)

    def read(self, row: Row) -> Prompt:
        """One row; of several windows the last, which ends where the answer begins.

        Raises:
            InputError: the chat template refuses the messages, or the target has no token.
        """
        answer = row.target if row.target is not None else row.request.response
        found = self._tokens.read(row.request, {"prompt"})["prompt"]
        return Prompt(
            id=row.id,
            ids=found.windows[-1],
            target=None if answer is None else self._first_token(answer),
            truncated=found.truncated or len(found.windows) > 1,
        )

    def spell(self, token: int) -> str:
        """A token as a person reads it."""
        return self._tokens.spell(token)

    def _first_token(self, answer: str) -> int:
        ids = self._tokens.literal(answer)
        if not ids:
            raise InputError(f"target: found {answer!r}, which has no token; expected some text")
        return ids[0]
