"""The messages of Envoy's external processing that this server reads and writes.

Only the fields that are used are declared; protobuf skips the others. Numbers and types are those
of ``envoy/service/ext_proc/v3/external_processor.proto`` and never change there.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from layerguard.runtime.errors import InputError

_STREAMED = 1
"""``ProcessingMode.BodySendMode.STREAMED``."""

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_PACKAGE = "layerguard.extproc"
_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "HeaderValue": {"key": (1, "string"), "value": (2, "string"), "raw_value": (3, "bytes")},
    "HeaderMap": {"headers": (1, "HeaderValue*")},
    "HttpHeaders": {"headers": (1, "HeaderMap")},
    "HttpBody": {"body": (1, "bytes"), "end_of_stream": (2, "bool")},
    "HttpTrailers": {},
    "ProcessingRequest": {
        "request_headers": (2, "HttpHeaders"),
        "response_headers": (3, "HttpHeaders"),
        "request_body": (4, "HttpBody"),
        "response_body": (5, "HttpBody"),
        "request_trailers": (6, "HttpTrailers"),
        "response_trailers": (7, "HttpTrailers"),
    },
    "BodyMutation": {"body": (1, "bytes"), "clear_body": (2, "bool")},
    "CommonResponse": {
        "header_mutation": (2, "HeaderMutation"),
        "body_mutation": (3, "BodyMutation"),
    },
    "PhaseResponse": {"response": (1, "CommonResponse")},  # Headers-, Body- and TrailersResponse
    "HttpStatus": {"code": (1, "int32")},
    "HeaderValueOption": {"header": (1, "HeaderValue")},
    "HeaderMutation": {
        "set_headers": (1, "HeaderValueOption*"),
        "remove_headers": (2, "string*"),
    },
    "ImmediateResponse": {
        "status": (1, "HttpStatus"),
        "headers": (2, "HeaderMutation"),
        "body": (3, "bytes"),
        "details": (5, "string"),
    },
    "ProcessingMode": {"response_body_mode": (4, "int32")},  # an enumeration
    "ProcessingResponse": {
        "request_headers": (1, "PhaseResponse"),
        "response_headers": (2, "PhaseResponse"),
        "request_body": (3, "PhaseResponse"),
        "response_body": (4, "PhaseResponse"),
        "request_trailers": (5, "PhaseResponse"),
        "response_trailers": (6, "PhaseResponse"),
        "immediate_response": (7, "ImmediateResponse"),
        "mode_override": (9, "ProcessingMode"),
    },
}
"""Number and type of each field by message; ``*``: repeated."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="layerguard/extproc.proto", package=_PACKAGE, syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            plain = kind.rstrip("*")
            declared = message.field.add(name=field_name, number=number)
            declared.label = field.LABEL_OPTIONAL if plain == kind else field.LABEL_REPEATED
            if plain in _FIELDS:
                declared.type, declared.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{plain}"
            else:
                declared.type = getattr(field, f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_CLASSES = _classes()
ProcessingRequest = _CLASSES["ProcessingRequest"]
ProcessingResponse = _CLASSES["ProcessingResponse"]


def phase_of(message: Any) -> str:
    """What a message of Envoy is: the name of its only field.

    Raises:
        InputError: it has none that is known.
    """
    names = [field.name for field, _ in message.ListFields()]
    if len(names) != 1:
        raise InputError(f"found {names} in a message; expected one of its phases")
    return str(names[0])


def go_on(phase: str, body: bytes | None = None, *, streams: bool = False) -> Any:
    """Let a message pass.

    Args:
        phase: what the message is.
        body: replaces its body; empty: removes it; None: leaves it.
        streams: whether the body of the answer shall come in parts.
    """
    response = ProcessingResponse()
    common = getattr(response, phase).response
    common.SetInParent()
    if body:
        common.body_mutation.body = body
    elif body is not None:
        common.body_mutation.clear_body = True
    if streams:
        response.mode_override.response_body_mode = _STREAMED
        common.header_mutation.remove_headers.append("content-length")  # the end may be replaced
    return response


def without_encoding() -> Any:
    """Let the headers of a request pass, but ask for an answer that can be read."""
    response = go_on("request_headers")
    response.request_headers.response.header_mutation.remove_headers.append("accept-encoding")
    return response


def answer(status: int, body: bytes) -> Any:
    """Answer the client in place of the upstream, with JSON."""
    response = ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = status
    immediate.body = body
    header = immediate.headers.set_headers.add().header
    header.key, header.raw_value = "content-type", b"application/json"
    return response


def header(headers: Any, name: str) -> str:
    """The value of a header; empty if it is absent."""
    for one in headers.headers.headers:
        if one.key == name:
            value: bytes = one.raw_value or one.value.encode()
            return value.decode("latin-1")
    return ""
