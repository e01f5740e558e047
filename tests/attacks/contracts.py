"""Posts any bytes to the HTTP contracts, and checks the form of each answer."""

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.config import Config, GuardConfig, SchedulerConfig
from layerguard.runtime.server.service import Service
from tests.runtime.server.contracts.forms import FORMS, Form


class Contracts:
    """A server of one bundle, in this process. Use it in a ``with`` block."""

    def __init__(self, bundle: Path) -> None:
        guard, scheduler = GuardConfig(threads=1), SchedulerConfig(deadline_s=600.0)
        self._service = Service(Config({"main": str(bundle)}, guard=guard, scheduler=scheduler))
        transport = httpx.ASGITransport(create_app(self._service), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://guard")
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._service.reload())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.run(self._service.drain())
        self._runner.run(self._client.aclose())
        self._runner.close()

    def post(self, form: Form, body: bytes) -> None:
        """Check that a call is answered, or refused as a wrong one in the contract's own form.

        Raises:
            AssertionError: the status is another one, or a client of the contract could not read
                the answer.
        """
        path = form.path.replace("MODEL", "main")
        response = self._runner.run(self._client.post(path, content=body))
        assert response.status_code in ((200,) if form.ignores_status else (200, 400)), (
            f"{form}: status {response.status_code}: {response.text[:300]}"
        )
        answer = response.json()
        if form.contract == "oip-v2" and b'"outputs"' in body and "outputs" in answer:
            return  # the outputs that this client asked for
        forms = [one for one in FORMS if one.path == form.path]
        assert any(_reads(one, response.status_code, answer) for one in forms), (
            f"{form}: no client reads {response.text[:300]}"
        )


def _reads(form: Form, status: int, answer: Any) -> bool:
    """Whether a client finds a decision in the answer, or the sentence of an error."""
    try:
        if isinstance(form.says(answer), str):
            return True
    except (LookupError, TypeError):  # it is no error
        pass
    try:
        return status == 200 and form.blocks(answer) in (True, False)
    except (LookupError, TypeError):
        return False


def decoded(data: bytes) -> tuple[Form, bytes]:
    """The form that the first byte chooses, and the body after it."""
    return FORMS[data[0] % len(FORMS) if data else 0], data[1:]


def encoded(number: int) -> bytes:
    """The input of a form's own body."""
    return bytes([number]) + json.dumps(FORMS[number].body).encode()
