"""Why the server does not answer a request.

    LayerGuardError
    ├── InputError            the request is wrong: 400
    │   └── RefusedError      it was refused before it was read: 401, 408, 413, 415
    └── UnavailableError      the guard cannot answer now: 503, with Retry-After
        ├── OverloadError     a queue is full, or the server starts or shuts down
        └── DeadlineError     there was no answer within the deadline

Gateways that may go on without a guard do so for a 503, not for other errors.
"""

from http import HTTPStatus
from typing import ClassVar

from layerguard.runtime.errors import InputError, LayerGuardError

RETRY_AFTER_S = 1
"""Seconds after which a client should ask again: queues empty within their deadline or sooner."""


class RefusedError(InputError):
    """The request was refused before it was read.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(LayerGuardError):
    """The guard cannot answer now.

    Attributes:
        cause: one word for the metrics.
    """

    cause: ClassVar[str] = "unavailable"


class OverloadError(UnavailableError):
    """A queue is full, or the server is shutting down."""

    cause = "overload"


class DeadlineError(UnavailableError):
    """There was no answer within the deadline."""

    cause = "deadline"


def status_of(error: Exception) -> HTTPStatus:
    """The HTTP status of an error."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, InputError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, UnavailableError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR
