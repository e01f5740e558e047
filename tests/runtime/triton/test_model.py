"""The Python model, under a stand-in for Triton: it gives the guard's verdicts."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime import Guard
from layerguard.runtime.errors import BundleError
from layerguard.runtime.text.request import request
from layerguard.runtime.triton.repository import write_repository
from tests.fused.bundles import FRESH, calibrated, expected, load
from tests.fused.graphs import agree
from tests.runtime.tamper import edit_manifest
from tests.runtime.triton.stand_in import Server, TritonError

_CHAT = [
    {"role": "user", "content": "the garden was quiet"},
    {"role": "assistant", "content": "before rain"},
]
_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused bundle of three detectors that read different tokens; tests must not change it."""
    path = calibrated(tmp_path_factory.mktemp("model") / "bundle")
    fuse(path, threads=1)
    return path


@pytest.fixture
def server(fused: Path, tmp_path: Path) -> Server:
    """Its repository, loaded."""
    return _served(fused, tmp_path)


def _served(path: Path, folder: Path) -> Server:
    write_repository(path, folder / "models", "guard")
    return Server(folder / "models", "guard")


def _columns(answers: list[Any]) -> dict[str, Any]:
    """The outputs of all requests, by name."""
    assert not any(isinstance(one, TritonError) for one in answers)
    found = {name: np.array([v for one in answers for v in one[name]]) for name in answers[0]}
    return {name: found[name] for name in found if name not in ("truncated", "unread")}


def test_each_text_has_the_guards_verdict(fused: Path, server: Server) -> None:
    """A hundred requests that Triton joined: scores within the tolerance, the rest exactly."""
    wanted = expected(load(fused), FRESH)
    assert wanted["flagged"].any()
    assert not wanted["flagged"].all()
    agree(_columns(server.ask(*({"text": [text]} for text in FRESH))), wanted)
    assert 1 < len(server.runs) < 10, "texts of similar length share a run"


def test_a_batch_of_the_client_is_answered_in_order(fused: Path, server: Server) -> None:
    """Together with others."""
    some = FRESH[:12]
    answers = server.ask({"text": some[:7]}, {"text": [some[7]]}, {"text": some[8:]})
    agree(_columns(answers), expected(load(fused), some))


def test_requests_in_json_are_those_of_the_guard(tmp_path: Path) -> None:
    """A prompt with its answer, and a chat; roles are the bundle's."""
    path = calibrated(tmp_path / "bundle", template="chat", chat_template=_TEMPLATE)
    fuse(path, threads=1)
    guard, server = load(path), _served(path, tmp_path)
    asked: list[dict[str, Any]] = [
        {"text": "the garden"}, {"prompt": "the river", "response": "was quiet"},
        {"messages": _CHAT}, {"messages": [*_CHAT, _CHAT[0]]},
    ]  # fmt: skip
    (found,) = server.ask({"request": [json.dumps(one) for one in asked]})
    assert isinstance(found, dict)
    for i, one in enumerate(asked):
        verdict = guard.check(**one, counted=False)
        assert found["flagged"][i] == verdict.flagged
        for name, reading in verdict.readings.items():
            close = pytest.approx(reading.score, abs=1e-5 * (1 + abs(reading.score)))
            assert found[f"{name}_score"][i] == close


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"text": [b"\xff"]}, "text: found no UTF-8"),
        ({"request": ["{"]}, "request: found no JSON"),
        ({"request": ["[]"]}, "request: found list"),
        ({"request": ['{"text": 1}']}, "text: found int"),
        ({"request": ['{"txt": "a"}']}, "found the key 'txt'"),
        ({"text": ["a"], "request": ['{"text": "a"}']}, "found text and request; expected either"),
        ({"text": ["a", b"\xff"]}, "text: found no UTF-8"),
    ],
)
def test_a_wrong_request_gets_its_error_alone(
    server: Server, request_: dict[str, list[Any]], said: str
) -> None:
    """Those that Triton joined with it are answered."""
    before, wrong, after = server.ask({"text": ["a"]}, request_, {"text": ["b"]})
    assert isinstance(wrong, TritonError)
    assert said in wrong.message()
    assert wrong.code() == TritonError.INVALID_ARG
    assert isinstance(before, dict)
    assert isinstance(after, dict)


def test_what_no_detector_can_read_is_flagged(tmp_path: Path) -> None:
    """As the guard does, and refused if the bundle refuses it."""
    names = ["lcf", "weightwatch"]
    path = calibrated(tmp_path / "bundle", names, template="chat", chat_template=_TEMPLATE)
    fuse(path, threads=1)
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    chats = [
        [{"role": "user", "content": [{"type": "text", "text": text}, image]}] for text in FRESH
    ]
    allowing = Guard.load(path, threads=1, on_unread="allow")
    chat = next(one for one in chats if not allowing.check(messages=one).flagged)
    asked = {"request": [json.dumps({"messages": chat})]}
    (found,) = _served(path, tmp_path).ask(asked)
    assert isinstance(found, dict)
    assert (found["flagged"], found["unread"]) == ([True], [True])
    assert load(path).check(messages=chat).flagged
    edit_manifest(path, lambda manifest: manifest["text"].update(on_unread="refuse"))
    (refused,) = _served(path, tmp_path / "other").ask(asked)
    assert isinstance(refused, TritonError)
    assert "messages[0].content[1]" in refused.message()


def test_the_worst_window_of_a_chat_decides(tmp_path: Path) -> None:
    """SIREN reads the newest turns, and what a chat holds beside its turns, on their own."""
    path = calibrated(
        tmp_path / "bundle", ["lcf", "siren"], template="chat", chat_template=_TEMPLATE
    )
    fuse(path, threads=1)
    guard, server = load(path), _served(path, tmp_path)
    chats: list[dict[str, Any]] = [
        {"messages": [*_CHAT, {"role": "user", "content": text}]} for text in FRESH[:30]
    ]
    chats.append({**chats[0], "tools": [{"name": "look"}]})
    answers = server.ask(*({"request": [json.dumps(one)]} for one in chats))
    wanted = [guard.check(**one, counted=False) for one in chats]
    assert 0 < sum(verdict.flagged for verdict in wanted) < len(wanted)
    for answer, verdict in zip(answers, wanted, strict=True):
        assert answer["flagged"][0] == verdict.flagged
        assert answer["p_value"][0] == pytest.approx(verdict.p_value)
        for name, reading in verdict.readings.items():
            close = pytest.approx(reading.score, abs=1e-5 * (1 + abs(reading.score)))
            assert answer[f"{name}_score"][0] == close
            assert answer[f"{name}_p_value"][0] == pytest.approx(reading.p_value)


def test_a_chat_of_several_windows_is_refused_where_all_must_flag(tmp_path: Path) -> None:
    """No window alone decides then."""
    path = calibrated(tmp_path / "bundle", template="chat", chat_template=_TEMPLATE, policy="all")
    fuse(path, threads=1)
    chat = {"messages": _CHAT, "tools": [{"name": "look"}]}
    (found,) = _served(path, tmp_path).ask({"request": [json.dumps(chat)]})
    assert isinstance(found, TritonError)
    assert "all detectors must flag it" in found.message()


def test_an_unfamiliar_text_is_flagged_if_the_bundle_says_so(tmp_path: Path) -> None:
    """The graph's own output leaves that out, as its proof on familiar texts does not show."""
    path = calibrated(tmp_path / "bundle", ["familiarity", "lcf"])

    def flag(manifest: dict[str, Any]) -> None:
        manifest["detectors"]["familiarity"]["settings"]["on_unfamiliar"] = "flag"

    edit_manifest(path, flag)
    guard = load(path)
    verdicts = [guard.check(text, counted=False) for text in FRESH]
    assert {verdict.unfamiliar for verdict in verdicts} == {True, False}
    familiar = [
        request(text) for text, one in zip(FRESH, verdicts, strict=True) if not one.unfamiliar
    ]
    fuse(path, familiar, threads=1)
    (found,) = _served(path, tmp_path).ask({"text": FRESH})
    assert isinstance(found, dict)
    assert found["flagged"] == [verdict.flagged for verdict in verdicts]


def test_a_long_text_says_that_it_is_truncated(server: Server) -> None:
    """As ``Verdict.truncated``."""
    (found,) = server.ask({"text": ["the garden", "the garden was quiet " * 500]})
    assert isinstance(found, dict)
    assert found["truncated"] == [False, True]


def test_a_graph_that_fails_is_an_error_of_its_requests(server: Server) -> None:
    """Not a verdict."""
    server.fails = True
    (found,) = server.ask({"text": ["a"]})
    assert isinstance(found, TritonError)
    assert (found.message(), found.code()) == ("no memory", TritonError.INTERNAL)


def test_files_of_another_bundle_are_not_loaded(fused: Path, tmp_path: Path) -> None:
    """Neither a changed manifest nor a changed tokenizer."""
    for name in ("manifest.json", "tokenizer.json"):
        folder = tmp_path / name
        write_repository(fused, folder / "models", "guard")
        file = folder / "models" / "guard" / "1" / name
        file.write_bytes(file.read_bytes().replace(b'"', b' "', 1))
        with pytest.raises(BundleError, match=r"expected .*write the repository|changed after"):
            Server(folder / "models", "guard")


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [1.0, np.nan], [2.0, np.nan, 1.0]])
def test_a_window_without_a_score_is_worse_than_any(server: Server, scores: list[float]) -> None:
    """Wherever it stands; the text is flagged, and its score is not that of another window."""
    model = importlib.import_module("layerguard.runtime.triton.model")
    assert server.runs == []
    windows = [
        {
            "lcf_score": np.float64(one),
            "p_value": np.float64(one),
            "flagged": np.bool_(np.isnan(one)),
        }
        for one in scores
    ]
    found = model._worst(windows)
    assert np.isnan(found["lcf_score"])
    assert np.isnan(found["p_value"])
    assert found["flagged"]
    assert found["flagged"].dtype == bool
