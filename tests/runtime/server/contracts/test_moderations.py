"""OpenAI's moderations: categories, inputs and the bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime.server.config import Config, ContractConfig
from layerguard.runtime.server.contracts.moderations import CATEGORIES
from layerguard.runtime.server.service import Service
from tests.runtime.server.contracts.conftest import Post
from tests.tiny import make_bundle, make_params

_PATH = "/v1/moderations"
Make = Callable[..., Service]


def _flagged(result: dict[str, Any]) -> set[str]:
    return {name for name, flagged in result["categories"].items() if flagged}


def test_the_guard_decides_illicit_unless_the_settings_say_otherwise(post: Post) -> None:
    """All 13 categories are there; beside them the guard and each detector."""
    (response,) = post(_PATH, {"input": "a", "model": "strict"})
    (result,) = response.json()["results"]
    ours = {"layerguard", "layerguard/lcf", "layerguard/siren"}
    assert result["flagged"] is True
    assert _flagged(result) == {"illicit", "layerguard", "layerguard/siren"}
    assert result["categories"].keys() == set(CATEGORIES) | ours
    for table in ("category_scores", "category_applied_input_types"):
        assert result[table].keys() == result["categories"].keys()


def test_the_settings_say_who_decides_a_category(post: Post, make_service: Make) -> None:
    """A detector or the guard; also categories that OpenAI does not have."""
    categories = {"hate": "siren", "violence": "lcf", "self": "guard"}
    service = make_service(contracts=ContractConfig(categories))
    (response,) = post(_PATH, {"input": "a", "model": "strict"}, service=service)
    (result,) = response.json()["results"]
    assert _flagged(result) == {"hate", "self", "layerguard", "layerguard/siren"}


def test_a_category_without_its_detector_is_an_error(
    post: Post, sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the bundle that was asked; it would never be flagged. The log says what is wrong."""
    params = make_params()
    del params["siren"]
    bundles = {"other": str(make_bundle(tmp_path / "other", params)), "main": str(sound)}
    service = Service(Config(bundles, contracts=ContractConfig({"hate": "siren"})))
    response, sure = post(_PATH, {"input": "a"}, {"input": "a", "model": "main"}, service=service)
    assert (response.status_code, sure.status_code) == (500, 200)
    assert "found 'hate' decided by 'siren'" in caplog.text
    assert response.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("given", "results"),
    [
        ("a", 1),
        (["a", "the river"], 2),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "river"}], 1),
    ],
)
def test_every_input_has_a_result(post: Post, given: Any, results: int) -> None:
    """The parts of one message are one input."""
    (response,) = post(_PATH, {"input": given})
    assert len(response.json()["results"]) == results


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "expected a text or a list of texts"),
        ([[1, 2]], "expected a text or a list of texts"),
        (["a", {"type": "text", "text": "a"}], "expected a text or a list of texts"),
        ("\ud800", "a lone surrogate"),
    ],
)
def test_what_is_no_text_is_refused(post: Post, given: Any, said: str) -> None:
    """Images would pass unread."""
    (response,) = post(_PATH, {"content": json.dumps({"input": given})})
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_an_image_is_flagged(post: Post) -> None:
    """No detector can read it, and a result that is not flagged would say that it is harmless."""
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    (response,) = post(_PATH, {"input": [{"type": "text", "text": "a"}, image]})
    (result,) = response.json()["results"]
    assert result["flagged"]


def test_the_model_names_the_bundle_if_there_is_one(post: Post) -> None:
    """Clients send the name of OpenAI's model, which is no bundle."""
    named, other, none = post(
        _PATH,
        {"input": "a", "model": "strict"},
        {"input": "a", "model": "omni-moderation-latest"},
        {"input": "a"},
    )
    assert [r.json()["results"][0]["flagged"] for r in (named, other, none)] == [True, False, False]
    assert [r.json()["model"] for r in (named, other, none)] == [
        "strict",
        "omni-moderation-latest",
        "main",
    ]
