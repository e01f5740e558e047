"""An answer that leaves once it is complete: a JSON body, or events of the Responses API."""

from layerguard.integrations.asgi.openai_form import Asked, answers
from layerguard.integrations.gate import check_each
from layerguard.runtime import Guard, Verdict


class WholeAnswer:
    """Keeps the body until it is complete, and checks each choice with its prompt.

    Attributes:
        verdict: the latest verdict; at first that of the request.
    """

    def __init__(
        self, guard: Guard, asked: Asked, verdict: Verdict, *, is_events: bool = False
    ) -> None:
        self._guard, self._asked, self.verdict = guard, asked, verdict
        self._is_events = is_events
        self._body = b""
        self._complete = False

    def push(self, data: bytes, *, last: bool) -> Verdict:
        """Add a part of the body; at the last one, the first flagged verdict if there is one.

        Raises:
            InputError: the body is not an answer in OpenAI's form.
            BundleError: the graph fails.
        """
        self._body += data
        if last:
            whole = answers(self._body, self._asked, is_events=self._is_events)
            self.verdict = check_each(self._guard, whole)
            self._complete = True
        return self.verdict

    def release(self) -> bytes:
        """The body once it is checked; empty before."""
        return self._body if self._complete else b""
