"""The OpenAPI 3.1 document of the endpoints that describe themselves."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from layerguard.runtime.server.contracts.contract import Contract
from layerguard.runtime.server.contracts.native_schema import SCHEMAS

_FAULTS = {
    "400": "The request is wrong",
    "401": "No valid API key",
    "408": "The body did not arrive in time",
    "413": "The body is too long",
    "415": "The body is encoded",
    "500": "The guard failed",
    "503": "The guard cannot answer now; see Retry-After",
}


def document(contracts: Iterable[Contract], bundles: Iterable[str]) -> dict[str, Any]:
    """The document.

    Args:
        contracts: whose endpoints are described, if they have an ``operation``.
        bundles: names that requests may use.
    """
    paths: dict[str, dict[str, Any]] = {}
    for contract in contracts:
        for one in contract.endpoints:
            if one.operation is not None:
                operation = _operation(contract.name, one.operation)
                paths.setdefault(one.path, {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "LayerGuard", "version": version("layerguard")},
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, "Bundle": {"enum": list(bundles)}},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _operation(contract: str, own: Mapping[str, Any]) -> dict[str, Any]:
    fault = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    faults = {status: {"description": text, "content": fault} for status, text in _FAULTS.items()}
    return {"tags": [contract], **own, "responses": {**own["responses"], **faults}}
