"""Splitting a request into its fixed part and the answer that grows."""

from dataclasses import dataclass, replace
from typing import Any

from layerguard.runtime.text.leaves import is_text_part
from layerguard.runtime.text.request import Message, Request, joined, text_of


@dataclass(frozen=True, slots=True)
class GrowingRequest:
    """A request whose answer is still being written.

    Attributes:
        request: the request as it was when the stream was opened.
        prompt_part: the request up to the start of the answer.
        earlier_text: the text of all turns before the growing answer.
        earlier_answer: the part of ``earlier_text`` that already belongs to the answer: assistant
            turns before the last one.
        answer_start: the beginning of the growing answer that the request already had.
    """

    request: Request
    prompt_part: Request
    earlier_text: str
    earlier_answer: str
    answer_start: str

    @classmethod
    def split(cls, request: Request) -> "GrowingRequest":
        """Split a request. In a chat that ends with an assistant turn, that turn grows."""
        if request.messages is None:
            prompt_part = Request(request.prompt)
            return cls(request, prompt_part, request.prompt, "", request.response or "")
        head = _head(request)
        last = request.messages[len(head) :]
        return cls(
            request=request,
            prompt_part=replace(request, messages=replace(request, messages=head).prompt_turns),
            earlier_text=joined(*map(text_of, head)),
            earlier_answer=replace(request, messages=head).answer,
            answer_start=text_of(last[0]) if last else "",
        )

    def with_answer(self, text: str) -> Request:
        """The whole request with ``text`` as the growing answer."""
        if self.request.messages is None:
            return replace(self.request, response=text, limits=None)
        head = _head(self.request)
        last = self.request.messages[len(head) :]
        if not last and not text:
            return self.request
        begun = last[0] if last else {"role": "assistant"}
        turn = {**begun, "content": _with_text(begun.get("content"), text)}
        return replace(self.request, messages=(*head, turn), limits=None)


def _with_text(content: Any, text: str) -> Any:
    """A content with another text. Parts that are no text keep their places."""
    if not isinstance(content, (list, tuple)):
        return text
    parts: list[Any] = []
    for part in content:
        is_text = is_text_part(part)
        parts.append({**part, "text": text} if is_text else part)
        if is_text:
            text = ""
    return [*parts, {"type": "text", "text": text}] if text else parts


def _head(request: Request) -> tuple[Message, ...]:
    """The turns of a chat, without the last turn if that is an answer."""
    turns = request.messages or ()
    return turns[:-1] if len(request.prompt_turns) < len(turns) else turns
