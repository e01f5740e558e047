"""Read rows as prompts to trace: token ids, and the target token."""

from dataclasses import dataclass

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import Ids, TokenReader


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in the bundle's template.

    Attributes:
        id: id of the row.
        ids: token ids of the prompt, without the answer.
        target: first token of the row's answer; None if the row has no answer.
        truncated: whether tokens were left out because the prompt is longer than the window.
    """

    id: str
    ids: Ids
    target: int | None
    truncated: bool


class PromptReader:
    """Reads prompts and answers with the tokenizer and the template of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._tokens = TokenReader(bundle)

    def read(self, row: Row) -> Prompt:
        """Read one row; a long prompt is reduced to its last window, which the answer follows.

        Raises:
            InputError: the chat template rejects the messages, or the target has no token.
        """
        answer = row.target if row.target is not None else row.request.response
        tokens = self._tokens.read(row.request, {"prompt"})["prompt"]
        return Prompt(
            id=row.id,
            ids=tokens.windows[-1],
            target=None if answer is None else self._first_token(answer),
            truncated=tokens.truncated or len(tokens.windows) > 1,
        )

    def spell(self, token: int) -> str:
        """The text of a token."""
        return self._tokens.spell(token)

    def _first_token(self, answer: str) -> int:
        ids = self._tokens.literal(answer)
        if not ids:
            raise InputError(f"target: found {answer!r}, which has no token; expected some text")
        return ids[0]
