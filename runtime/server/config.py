"""The settings of the server, one dataclass for each section; ``settings`` reads them.

No two sections use the same name, so that each setting is also a flag and a variable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from layerguard.runtime.model.session import Device, Weights
from layerguard.runtime.types import OnUnfamiliar, OnUnread

WHOLE_GUARD = "guard"
"""What ``categories`` calls the whole guard."""

Mode = Literal["enforce", "shadow", "off"]
"""``enforce``: a flagged text is blocked; ``shadow``: it is only counted and reported; ``off``: it
is not checked."""


CONTRACT_NAMES = (
    "native", "native-streams", "litellm", "moderations", "fms", "nemo", "kserve-v1", "oip-v2",
    "agentgateway", "portkey", "lakera", "azure-prompt-shields", "extproc",
)  # fmt: skip
"""Of all contracts; ``contracts`` itself can be imported only with the extra ``serve``."""


class Rule(NamedTuple):
    """What a setting means, and the numbers or, of a table, the names that it may have."""

    help: str
    least: float | None = None
    most: float | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Section ``[http]``."""

    host: Annotated[str, Rule("address to listen on")] = "127.0.0.1"
    port: Annotated[int, Rule("port to listen on", least=0, most=65_535)] = 8080
    tls_certificate: Annotated[str, Rule("file with the certificate chain; empty: no TLS")] = ""
    tls_key: Annotated[str, Rule("file with the certificate's private key")] = ""
    keys_file: Annotated[
        str, Rule("file with one API key per line; empty: no key is asked for")
    ] = ""
    admin_keys_file: Annotated[str, Rule("the same, for /admin; empty: /admin is closed")] = ""
    page: Annotated[Literal["on", "off"], Rule("whether / shows a page of figures")] = "on"
    processes: Annotated[
        int, Rule("processes that serve; process N also answers on the port N + 1 above", least=1)
    ] = 1
    body_bytes: Annotated[int, Rule("largest body of a request", least=1)] = 4 << 20
    header_bytes: Annotated[int, Rule("largest head of a request", least=1024)] = 32 << 10
    read_s: Annotated[float, Rule("seconds within which a request must arrive", least=0.1)] = 30.0
    connections: Annotated[int, Rule("most open connections", least=1)] = 2048
    drain_s: Annotated[float, Rule("seconds that running requests have at shutdown", least=0)] = (
        30.0
    )


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """Section ``[guard]``: see ``Guard.load`` for its arguments."""

    device: Annotated[Device, Rule("there is no silent fallback from cuda to cpu")] = "cpu"
    threads: Annotated[
        int, Rule("threads within one operator; 0: ONNX Runtime's choice", least=0)
    ] = 0
    weights: Annotated[Weights, Rule("packed: fast; mapped: processes share the memory")] = "packed"
    verify: Annotated[str, Rule("public key that must have signed every bundle")] = ""
    load_s: Annotated[
        float, Rule("seconds within which a bundle must load; 0: without a limit", least=0)
    ] = 0.0
    on_unfamiliar: Annotated[
        OnUnfamiliar | Literal[""],
        Rule("for a text unlike the calibration rows; empty: as the bundle says"),
    ] = ""
    on_unread: Annotated[
        OnUnread | Literal[""],
        Rule("for a request with parts that cannot be read, such as images; empty: as the bundle"),
    ] = ""
    on_error: Annotated[
        Literal["block", "allow"], Rule("allow: pass what the guard cannot check")
    ] = "block"
    mode: Annotated[Mode, Rule("enforce, shadow or off, for routes without their own mode")] = (
        "enforce"
    )
    route_modes: Annotated[
        Mapping[str, Mode], Rule("modes by contract: native=shadow,...", names=CONTRACT_NAMES)
    ] = field(default_factory=dict)
    shadow: Annotated[
        Mapping[str, str], Rule("candidates by bundle: main=other compares other's answers")
    ] = field(default_factory=dict)
    detector_modes: Annotated[
        Mapping[str, Mode], Rule("modes by detector, over the bundle's own")
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Section ``[audit]``: see ``audit``."""

    audit_file: Annotated[str, Rule("file for a line about each answer; empty: none")] = ""
    audit_key_file: Annotated[str, Rule("file with the key of its HMACs")] = ""
    audit_chain: Annotated[
        Literal["on", "off"], Rule("on: each line also has an HMAC over itself and the last one")
    ] = "off"


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """Section ``[traces]``: see ``tracing``."""

    traces: Annotated[
        Literal["off", "otlp"],
        Rule("otlp: send OpenTelemetry spans, over HTTP; needs the extra otel"),
    ] = "off"
    traces_endpoint: Annotated[
        str, Rule("URL for the spans; empty: as the variable OTEL_EXPORTER_OTLP_ENDPOINT says")
    ] = ""


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Section ``[scheduler]``."""

    workers: Annotated[int, Rule("texts or batches that are checked at the same time", least=1)] = 2
    batch_rows: Annotated[int, Rule("most texts in one run of the model", least=1)] = 32
    batch_tokens: Annotated[
        int, Rule("most tokens in one run, estimated; give a GPU more, such as 8192", least=1)
    ] = 512
    queue_requests: Annotated[int, Rule("most texts that wait", least=1)] = 1024
    queue_tokens: Annotated[int, Rule("most tokens that wait, estimated", least=1)] = 1 << 20
    deadline_s: Annotated[
        float, Rule("seconds within which a request is answered", least=0.001)
    ] = 10.0


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Section ``[streams]``: answers that are still being written."""

    streams: Annotated[int, Rule("most open answers", least=1)] = 1024
    stream_bytes: Annotated[int, Rule("most bytes of their caches", least=1)] = 1 << 30
    stream_idle_s: Annotated[
        float, Rule("seconds after which a quiet one is closed", least=0.1)
    ] = 120.0


@dataclass(frozen=True, slots=True)
class ContractConfig:
    """Section ``[contracts]``."""

    categories: Annotated[
        Mapping[str, str],
        Rule("categories of /v1/moderations, and the detector that decides each; guard: all"),
    ] = field(default_factory=lambda: {"illicit": "guard"})
    extproc_port: Annotated[
        int, Rule("port for Envoy's external processing; 0: none", least=0, most=65_535)
    ] = 0


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    Attributes:
        bundles: folder or name of each bundle, by the name that requests use. The first one answers
            requests that name none.
    """

    bundles: Annotated[Mapping[str, str], Rule("NAME=BUNDLE,...")] = field(default_factory=dict)
    http: HttpConfig = field(default_factory=HttpConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    traces: TraceConfig = field(default_factory=TraceConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    streams: StreamConfig = field(default_factory=StreamConfig)
    contracts: ContractConfig = field(default_factory=ContractConfig)
