"""A collector of OpenTelemetry's spans: an HTTP server that keeps what it was sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Collector:
    """What was sent.

    Attributes:
        url: where it takes spans.
        bodies: the bytes of each request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []

    def resources(self) -> list[Any]:
        """The parts of all requests, each with its resource."""
        parsed = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [part for one in parsed for part in one.resource_spans]

    def spans(self) -> list[Any]:
        """All spans."""
        return [span for part in self.resources() for one in part.scope_spans for span in one.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of this machine."""
    found = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(one: Any) -> dict[str, Any]:
    """The attributes of a span, event or resource, as Python values."""
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in one.attributes
    }
