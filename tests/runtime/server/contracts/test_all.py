"""What holds for every contract: it blocks, passes, and has its own form of every refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime.server.config import HttpConfig
from layerguard.runtime.server.contracts import CONTRACTS
from layerguard.runtime.server.service import Service
from tests.runtime.server.contracts.conftest import Post
from tests.runtime.server.contracts.forms import FORMS, Form

Make = Callable[..., Service]
every_form = pytest.mark.parametrize("form", FORMS, ids=str)


def _path(form: Form, model: str = "main") -> str:
    return form.path.replace("MODEL", model)


def _refusal(form: Form, response: Any, status: int) -> str:
    """The sentence of a refusal, in the contract's form."""
    assert response.status_code == (200 if form.ignores_status else status)
    if form.ignores_status:
        assert form.blocks(response.json())
    return form.says(response.json())


def test_every_contract_has_a_form() -> None:
    """The tests below leave none out, but for the one whose bodies are streams."""
    names = {contract.name for contract in CONTRACTS} - {"native-streams"}
    assert names == {form.contract for form in FORMS}


@every_form
def test_it_blocks_what_the_guard_flags_and_passes_the_rest(form: Form, post: Post) -> None:
    """The client reads in its own form what the bundle says."""
    (passed,) = post(_path(form), form.body)
    (blocked,) = post(_path(form, "strict"), form.body, strict=True)
    assert (passed.status_code, blocked.status_code) == (200, 200)
    assert (form.blocks(passed.json()), form.blocks(blocked.json())) == (False, True)


@every_form
def test_in_shadow_mode_it_passes(form: Form, post: Post, make_service: Make) -> None:
    """The operator sets the mode by the contract's name."""
    service = make_service({"route_modes": {form.contract: "shadow"}})
    (response,) = post(_path(form, "strict"), form.body, strict=True, service=service)
    assert response.status_code == 200
    assert not form.blocks(response.json())


@every_form
def test_in_mode_off_it_passes(form: Form, post: Post, make_service: Make) -> None:
    """Without a verdict."""
    service = make_service({"route_modes": {form.contract: "off"}})
    (response,) = post(_path(form, "strict"), form.body, strict=True, service=service)
    assert not form.blocks(response.json())


@every_form
def test_a_wrong_body_gets_the_contracts_error(form: Form, post: Post) -> None:
    """No JSON, another type, the essential key absent."""
    for body in ({"content": b"{"}, {"json": []}, {"json": dict(form.wrong)}):
        (response,) = post(_path(form), body)
        assert "expected" in _refusal(form, response, 400)


@every_form
def test_a_server_that_cannot_answer_refuses_at_once(form: Form, post: Post) -> None:
    """503 with Retry-After, for gateways that then choose; a block for clients that would go on."""
    (response,) = post(_path(form), form.body, load=False)
    assert "the server is starting" in _refusal(form, response, 503)
    assert response.headers["retry-after"] == "1"


@every_form
def test_a_wrong_key_and_a_large_body_are_refused(
    form: Form, post: Post, make_service: Make, tmp_path: Path
) -> None:
    """Before the body is read, in the contract's form too."""
    (tmp_path / "keys").write_text("right\n", encoding="utf-8")
    service = make_service(http=HttpConfig(keys_file=str(tmp_path / "keys"), body_bytes=2000))
    long = {"content": b" " * 3000, "headers": {"ocp-apim-subscription-key": "right"}}
    keyless, large = post(_path(form), form.body, long, service=service)
    assert "API key" in _refusal(form, keyless, 401)
    assert "at most 2000 bytes" in _refusal(form, large, 413)
