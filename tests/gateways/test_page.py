"""The page of gateways says what there is; ``make gateways`` drives the clients themselves."""

import json
import re
import tomllib

import yaml

from layerguard.runtime.server.contracts import CONTRACTS
from layerguard.runtime.server.settings import read_config
from tests.gateways.setting import PAGE, configurations

_TEXT = PAGE.read_text(encoding="utf-8")


def test_every_contract_is_on_the_page_by_its_name() -> None:
    """An operator sets its mode by it."""
    named = set(
        re.findall(r"`([a-z0-9-]+)`", _TEXT.partition("**Modes.**")[2].partition("\n- **")[0])
    )
    contracts = {contract.name for contract in CONTRACTS}
    assert contracts | {"extproc"} == named - {"enforce", "shadow", "off"}


def test_every_endpoint_on_the_page_exists() -> None:
    """With its method and path."""
    paths = {f"{one.method} {one.path}" for contract in CONTRACTS for one in contract.endpoints}
    named = re.findall(r"`((?:GET|POST) [^`]+)`", _TEXT)
    found = {path.replace("/v1/models/{name}", "/v1/models/{model}") for path in named}
    assert found
    assert found <= paths


def test_every_configuration_is_well_formed() -> None:
    """As YAML, JSON or a file of settings."""
    for heading in ("LiteLLM", "NeMo Guardrails", "agentgateway", "Envoy"):
        for text in configurations(heading, "yaml"):
            assert isinstance(yaml.safe_load(text), dict)
    for heading in ("Triton and KServe", "Portkey"):
        for text in configurations(heading, "json"):
            assert isinstance(json.loads(text), dict)


def test_the_categories_of_the_page_are_the_default() -> None:
    """As it says."""
    (text,) = configurations("OpenAI's moderations", "toml")
    categories = tomllib.loads(text)["contracts"]["categories"]
    assert read_config(None, {}, {"main": "b"}, {}).contracts.categories == categories
