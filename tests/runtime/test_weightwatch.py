"""The WeightWatch detector: its parameters, its readings, and how it is served."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.detectors.weightwatch import KIND, directions_sha256
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.text.distinct_rows import DistinctRows
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array, Tap
from tests.reference import weightwatch as reference
from tests.runtime.tamper import edit_manifest
from tests.scorers import CALIBRATED
from tests.tiny import LAYERS, WIDTH, make_bundle, make_params, params_of

_PARAMS = {**make_params(), "weightwatch": params_of("weightwatch")}
_TEXTS = (
    "the quiet garden",
    {"prompt": "the quiet garden", "response": "boats lay still"},
    {"prompt": "rain came over low hills and small boats", "response": "a river near now"},
)


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard with all three detectors on a pooled graph that gives token states too."""
    folder = tmp_path_factory.mktemp("watching") / "bundle"
    return Guard.load(make_bundle(folder, _PARAMS), threads=1)


def _states(tokens: int = 6, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(LAYERS + 1, tokens, WIDTH)).astype(np.float32)


def _oracle(states: Array, roles: Array) -> float:
    params = params_of("weightwatch")
    found = reference.cosines(states, params["directions"], params["layers"].tolist())
    limits = [params[name] for name in ("low", "high", "scale")]
    return reference.excess(reference.extremes(found, roles), *limits)


@pytest.mark.parametrize("roles", [None, [0, 1, 1, 2, 2, 3], [2] * 6])
def test_scores_agree_with_the_oracle(roles: Any) -> None:
    """Each role is held to its own ranges; without roles every token is the user's."""
    given = None if roles is None else np.array(roles)
    found = KIND.bind(params_of("weightwatch")).score(_states(), roles=given)
    expected = _oracle(_states(), np.ones(6, int) if given is None else given)
    assert found.score == pytest.approx(expected, rel=1e-5)


def test_evidence_names_direction_and_role() -> None:
    """A flagged reading lists the directions farthest outside, at most five, the worst first."""
    params = params_of("weightwatch") | {"threshold": np.array(0.0)}
    states = _states()
    states[3, 4] = -params["directions"][4] * 7  # the assistant's fifth token, against o_proj u0
    reading = KIND.bind(params).score(states, roles=np.array([1, 1, 1, 1, 2, 2]))
    assert reading.flagged
    assert (reading.evidence[0].layer, reading.evidence[0].measure) == (3, "o_proj u0, assistant")
    assert reading.evidence[0].value == reading.score
    assert 1 < len(reading.evidence) <= 5
    assert all(item.value > 0 for item in reading.evidence)


def test_the_mask_leaves_tokens_out() -> None:
    """Padding does not count; a mask that keeps nothing is an error."""
    detector, states = KIND.bind(params_of("weightwatch")), _states()
    mask = np.array([1, 1, 1, 0, 0, 0])
    expected = detector.score(states[:, :3])
    states[:, 3:] = np.nan
    assert detector.score(states, mask) == expected
    with pytest.raises(InputError, match="found no unmasked token"):
        detector.score(states, np.zeros(6))


def test_a_state_of_length_zero_is_invalid() -> None:
    """It has no cosine: the reading is invalid and flagged."""
    states = _states()
    states[1, 2] = 0
    reading = KIND.bind(params_of("weightwatch")).score(states)
    assert (reading.status, reading.flagged, reading.evidence) == ("invalid", True, ())


def _with(name: str, place: Any, value: Any) -> dict[str, Array]:
    params = {key: array.copy() for key, array in params_of("weightwatch").items()}
    params[name][place] = value
    return params


def _first(count: int) -> dict[str, Array]:
    """The parameters of the first ``count`` directions."""
    params = params_of("weightwatch")
    whole = {"roles_seen", *CALIBRATED}
    return {
        name: array if name in whole else array[:count] if len(array) == 5 else array[:, :count]
        for name, array in params.items()
    }


FAULTS = {
    "long direction": (_with("directions", 2, 0.5), "directions has a row of length 2; expected 1"),
    "embedding": (_with("layers", 0, 0), r"layers is 0 to 3; expected states within 1\.\.3"),
    "beyond": (_with("layers", 4, 4), r"layers is 1 to 4; expected states within 1\.\.3"),
    "unknown part": (_with("parts", 4, 2), r"parts has 2; expected 0 \(down_proj\) or 1"),
    "negative rank": (_with("ranks", 0, -1), "ranks has -1; expected 0 or more"),
    "order": (
        _with("ranks", 1, 0),
        "directions are not in the order of layers, parts and ranks, each once",
    ),
    "range": (_with("low", (1, 2), 0.9), "low is above high"),
    "scale": (_with("scale", (3, 1), 0), "scale has values of zero or less"),
    "nan": (_with("high", (0, 0), np.nan), "high has 1 values that are not finite"),
    "empty": (_first(0), "directions is empty; expected at least one"),
    "fewer layers": (
        params_of("weightwatch") | {"layers": np.array([1], np.int32)},
        r"layers is int32 \[1\]; expected int32 \[5\]",
    ),
    "wide": (
        params_of("weightwatch") | {"directions": np.eye(5, WIDTH + 1, dtype=np.float32)},
        r"directions is float32 \[5, 17\]; expected float32 \[5, 16\]",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_parameters_are_checked(name: str) -> None:
    """Each fault is named with what was found and what is expected."""
    params, words = FAULTS[name]
    found = KIND.faults(params, LAYERS, WIDTH)
    assert any(re.search(f"^weightwatch/{words}", fault) for fault in found), found


def test_float16_directions_serve() -> None:
    """Half the bytes are allowed; the score moves by no more than their rounding."""
    params = params_of("weightwatch")
    half = params | {"directions": params["directions"].astype(np.float16)}
    assert KIND.faults(half, LAYERS, WIDTH) == []
    found, expected = (KIND.bind(p).score(_states()).score for p in (half, params))
    assert found == pytest.approx(expected, abs=2**-11 / 0.05)


def test_the_hash_binds_all_that_says_what_a_direction_is() -> None:
    """A sign, a state or an order that differs is another hash; ranges do not matter."""
    params = params_of("weightwatch")
    same = directions_sha256(_with("low", 0, -1))
    assert same == directions_sha256(params)
    others = [
        _with("directions", 0, -params["directions"][0]),
        _with("layers", 0, 2),
        _with("parts", 0, 1),
        _with("ranks", 0, 7),
        params | {"directions": params["directions"].astype(np.float16)},
    ]
    assert len({directions_sha256(other) for other in [params, *others]}) == len(others) + 1


def test_it_reads_extremes_and_nothing_else() -> None:
    """A bundle that says another pooling is refused."""
    with pytest.raises(InputError, match="reads extremes; found a tap of pooling mean"):
        KIND.bind(params_of("weightwatch"), Tap("conversation", "mean"))


def test_both_graph_modes_and_states_agree(watching: Guard, tmp_path: Path) -> None:
    """Pooled and states bundles, and another engine's states with roles, give one score."""
    other = Guard.load(make_bundle(tmp_path / "states", _PARAMS, mode="states"), threads=1)
    found, again = ([v.readings for v in g.check_batch(_TEXTS)] for g in (watching, other))
    for left, right in zip(found, again, strict=True):
        assert left["weightwatch"].score == pytest.approx(right["weightwatch"].score, rel=1e-5)
    asked = request(prompt="the quiet garden", response="boats lay still")
    row = watching.backbone._tokens.read(asked, {"conversation"})["conversation"]
    names = [f"state_{layer:02}" for layer in range(LAYERS + 1)]
    ids = np.array(row.windows)
    states = other.backbone.session.run(
        names, {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    roles = np.frombuffer(row.roles[0], np.uint8)
    verdict = other.score_states([state[0] for state in states], roles=roles)
    expected = found[1]["weightwatch"].score
    assert verdict.readings["weightwatch"].score == pytest.approx(expected, rel=1e-5)
    assert _oracle(np.stack([state[0] for state in states]), roles) == pytest.approx(
        expected, rel=1e-5
    )


def test_a_batch_reads_what_single_texts_do(watching: Guard) -> None:
    """Padding and company do not change a reading, nor does a prompt that two views share."""
    together = [verdict.readings["weightwatch"] for verdict in watching.check_batch(_TEXTS)]
    for text, expected in zip(_TEXTS, together, strict=True):
        alone = watching.check(text) if isinstance(text, str) else watching.check(**text)
        assert alone.readings["weightwatch"].score == pytest.approx(expected.score, rel=1e-5)


def test_a_role_without_tokens_has_no_extremes(watching: Guard) -> None:
    """What calibration reads: infinities where nobody of that role spoke."""
    tap = watching._detectors["weightwatch"].tap
    pooled = watching.backbone.read(
        [request("garden rain"), request(prompt="", response="x")], [tap]
    )
    (extremes,), owner = pooled.of(tap)
    assert owner.tolist() == [0, 1]
    assert extremes.shape == (2, 4, 2, 5)
    assert np.isinf(extremes[0, [0, 2, 3]]).all()
    assert np.isfinite(extremes[:, 1]).all()
    assert np.isfinite(extremes[1, 2]).all()


def test_rows_are_shared_unless_roles_differ() -> None:
    """A view without roles takes any row of its tokens; other roles are another row."""
    rows = DistinctRows()
    assert rows.index((1, 2), None) == 0
    assert rows.index((1, 2), b"\1\1") == 0
    assert rows.index((1, 2), b"\1\2") == 1
    assert rows.index((1, 2), None) == 0
    assert rows.index((1, 2), b"\1\2") == 1
    assert rows.index((1,), b"\1") == 2
    assert rows.index((1,), None) == 2
    assert rows.rows == [((1, 2), b"\1\1"), ((1, 2), b"\1\2"), ((1,), b"\1")]


def test_the_worst_window_decides(tmp_path: Path) -> None:
    """Of a long text cut into windows the highest score is the text's."""
    folder = make_bundle(tmp_path / "bundle", _PARAMS, windows="sliding")
    guard = Guard.load(folder, threads=1)
    one = request(prompt="garden " * 14, response="boats " * 9)
    tap = guard._detectors["weightwatch"].tap
    layers, owner = guard.backbone.read([one], [tap]).of(tap)
    assert len(owner) > 1
    readings = guard._detectors["weightwatch"].score_pooled(layers)
    found = guard.check_requests([one])[0].readings["weightwatch"]
    assert found.score == max(reading.score for reading in readings)


def test_a_graph_without_token_states_is_refused(tmp_path: Path) -> None:
    """The message says how to export one that has them."""
    bundle = make_bundle(tmp_path / "bundle", _PARAMS)

    def drop(manifest: Any) -> None:
        graph = manifest["graphs"]["score"]
        graph["outputs"] = [card for card in graph["outputs"] if card["kind"] != "state"]

    edit_manifest(bundle, drop)
    with pytest.raises(BundleError, match=r"has no state output of layer 1.*with --mode states"):
        Guard.load(bundle)


def test_memory_is_bounded_where_token_states_are_read(
    watching: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer rows a run where each token costs a state of every layer, and the same readings."""
    tap = watching._detectors["weightwatch"].tap
    expected = [v.readings["weightwatch"].score for v in watching.check_batch(_TEXTS)]
    runs: list[int] = []
    session = watching.backbone.session
    run = session.run

    def counted(outputs: Any, feeds: Any) -> Any:
        runs.append(len(feeds["input_ids"]))
        return run(outputs, feeds)

    monkeypatch.setattr(session, "run", counted)
    monkeypatch.setattr("layerguard.runtime.model.backbone._MAX_STATE_BYTES", 2 * WIDTH * 4 * 6)
    layers, _ = watching.backbone.read([request(**t) for t in _TEXTS[1:]], [tap]).of(tap)
    assert runs == [1, 1]
    readings = watching._detectors["weightwatch"].score_pooled(layers)
    assert [reading.score for reading in readings] == pytest.approx(expected[1:], rel=1e-5)
