"""A request taken apart: what stands, and the answer at its end that grows."""

from dataclasses import dataclass, replace

from layerguard.runtime.text.request import Message, Request, text_of


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose answer grows.

    Attributes:
        opening: the request up to where the answer begins.
        said: the text of all that stands before the part that grows.
        answered: what of it is an answer already: turns of the assistant before the last one.
        begun: the part that grows, as far as the request had it.
    """

    request: Request
    opening: Request
    said: str
    answered: str
    begun: str

    @classmethod
    def of(cls, request: Request) -> "Asked":
        """The parts of a request; the last turn of a chat grows where it is the assistant's."""
        if request.messages is None:
            opening = Request(request.prompt)
            return cls(request, opening, request.prompt, "", request.response or "")
        head = _head(request)
        last = request.messages[len(head) :]
        return cls(
            request=request,
            opening=replace(request, messages=replace(request, messages=head).asked),
            said="\n".join(text for text in map(text_of, head) if text),
            answered=replace(request, messages=head).answer,
            begun=text_of(last[0]) if last else "",
        )

    def with_answer(self, text: str) -> Request:
        """The request with ``text`` as the part that grows."""
        if self.request.messages is None:
            return replace(self.request, response=text)
        head = _head(self.request)
        last = self.request.messages[len(head) :]
        if not last and not text:
            return self.request
        turn = {**(last[0] if last else {"role": "assistant"}), "content": text}
        return replace(self.request, messages=(*head, turn))


def _head(request: Request) -> tuple[Message, ...]:
    """The turns of a chat without the last one where that is an answer."""
    turns = request.messages or ()
    return turns[:-1] if len(request.asked) < len(turns) else turns
