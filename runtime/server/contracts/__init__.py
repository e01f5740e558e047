"""The HTTP contracts: one module each, with a ``CONTRACT``, and one line here.

See ``contract`` for what a module needs, and ``native`` for an example.
"""

from collections.abc import Iterable

from layerguard.runtime.server.contracts import (
    agentgateway,
    azure,
    fms,
    kserve,
    lakera,
    litellm,
    moderations,
    native,
    native_streams,
    nemo,
    oip,
    portkey,
)
from layerguard.runtime.server.contracts.contract import Contract

CONTRACTS: tuple[Contract, ...] = (
    native.CONTRACT,
    native_streams.CONTRACT,
    agentgateway.CONTRACT,
    azure.CONTRACT,
    fms.CONTRACT,
    kserve.CONTRACT,
    lakera.CONTRACT,
    litellm.CONTRACT,
    moderations.CONTRACT,
    nemo.CONTRACT,
    oip.CONTRACT,
    portkey.CONTRACT,
)
"""All contracts that the server speaks."""


def duplicates(contracts: Iterable[Contract]) -> list[str]:
    """Names and endpoints that occur twice."""
    seen: set[str] = set()
    twice = []
    for contract in contracts:
        paths = [f"{one.method} {one.path}" for one in contract.endpoints]
        paths += [f"WS {one.path}" for one in contract.sockets]
        for name in (contract.name, *paths):
            if name in seen:
                twice.append(name)
            seen.add(name)
    return twice
