"""uvicorn's HTTP protocol with bounds that it lacks: on the size of a head, and on its time."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose heads are too large or too slow.

    Attributes:
        most: bytes of the head of a request, or of its trailers.
        seconds: within which a head must be complete.
    """

    most = 32 << 10
    seconds = 30.0
    _unparsed = 0
    """Bytes since the parser last finished something: a header that does not end is unfinished."""
    _fields = 0
    """Bytes of the headers and trailers of this request."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; the callbacks below set the count of unparsed bytes back."""
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self.most and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._unparsed = self._fields = 0
        self._start_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, unless there are too many bytes of them already."""
        self._fields += len(name) + len(value)
        if self._fields <= self.most:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Answer the request, unless its head was too large."""
        self._unparsed = 0
        self._stop_timer()
        if self._fields > self.most:
            self._refuse()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def _should_upgrade_to_ws(self) -> bool:
        """Whether a WebSocket may begin; beyond the limit it is refused as any other request."""
        limit = self.limit_concurrency
        full = limit is not None and max(len(self.connections), len(self.tasks)) >= limit
        return super()._should_upgrade_to_ws() and not full

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the application answers such a request."""

    def _refuse(self) -> None:
        self.send_400_response(f"Expected a head of at most {self.most} bytes.")

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bounded_protocol(most: int, seconds: float) -> type[HttpToolsProtocol]:
    """The protocol with these bounds; see ``BoundedProtocol``."""
    return type("BoundedProtocol", (BoundedProtocol,), {"most": most, "seconds": seconds})
