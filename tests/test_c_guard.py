"""The C library's guard says what Python's does, to the bit, on the same states and archive."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.runtime import Bundle, Reading
from layerguard.runtime._kernels import lib
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.bundle.serving import SERVING, serving_arrays
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.kernels import RunningMean
from layerguard.runtime.types import ADDED, Array, Pooling
from tests.c_guard import CGuard, CReading, RefusedError
from tests.random_detectors import make_params
from tests.runtime.test_decision import DOMAIN, SCORES, calibrated
from tests.tiny import LAYERS, WIDTH, make_bundle, params_of

NAMES = ("agent_siren", "familiarity", "lcf", "siren", "span", "weightwatch")
TOKENS = 9


def archive_of(params: dict[str, dict[str, Array]], path: Path) -> Path:
    """An archive of these parameters alone, as ``fit`` returns them."""
    write_npz(path, {f"{d}/{k}": v for d, mine in params.items() for k, v in mine.items()})
    return path


@pytest.fixture(scope="module")
def params() -> dict[str, dict[str, Array]]:
    """All detectors, each with a threshold amid the scores of random states."""
    found = {name: dict(params_of(name)) for name in NAMES}
    for name, threshold in zip(NAMES, (0.6, 3.0, 6.0, 0.5, 6.0, 5.0), strict=True):
        found[name]["threshold"] = np.array(threshold)
        found[name]["clean_scores"] = np.linspace(0, 2 * threshold, 50)
    return found


@pytest.fixture(scope="module")
def guard(params: dict[str, dict[str, Array]], tmp_path_factory: pytest.TempPathFactory) -> CGuard:
    """The C guard of all detectors."""
    return CGuard(archive_of(params, tmp_path_factory.mktemp("c") / "detectors.npz"))


def bound(params: dict[str, dict[str, Array]]) -> dict[str, Detector]:
    """Python's detectors of these parameters."""
    return {name: REGISTRY[name].bind(mine) for name, mine in params.items()}


def same(found: CReading, expected: Reading) -> None:
    """Every number has the bits of Python's."""
    for ours, theirs in (
        (found.score, expected.score),
        (found.threshold, expected.threshold),
        (found.p_value, expected.p_value),
    ):
        assert np.float64(ours).tobytes() == np.float64(theirs).tobytes(), (found, expected)
    assert found.flagged == expected.flagged
    assert found.status == (lib.LG_READ if expected.status == "ok" else lib.LG_INVALID)
    if expected.status == "ok" and expected.detector in ("lcf", "span", "weightwatch"):
        first = expected.evidence[0]
        assert (found.layer, found.evidence) == (first.layer, first.value)


def states_like(dtype: str, layout: str, seed: int, width: int = WIDTH) -> list[Array]:
    """Random states of one text, laid out as engines do."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(LAYERS + 1, TOKENS, width)).astype(np.float32) * 1.5
    if dtype == "bfloat16":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    else:
        values = values.astype(dtype)
    if layout == "rows":
        return [layer.copy() for layer in values]
    if layout == "tokens-first":  # [tokens, layers, width]
        return list(np.ascontiguousarray(values.transpose(1, 0, 2)).transpose(1, 0, 2))
    backwards = np.ascontiguousarray(values[:, ::-1])
    return list(backwards[:, ::-1])


@pytest.mark.parametrize("layout", ["rows", "tokens-first", "backwards"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_readings_have_pythons_bits(
    guard: CGuard, params: dict[str, dict[str, Array]], dtype: str, layout: str, *, masked: bool
) -> None:
    """Of every detector, dtype and layout, with mask and roles and without."""
    detectors = bound(params)
    for seed in range(8):
        states = states_like(dtype, layout, seed)
        rng = np.random.default_rng(seed)
        mask = rng.random(TOKENS) < 0.6 if masked else None
        if mask is not None:
            mask[seed % TOKENS] = True
        roles = rng.integers(0, 4, TOKENS).astype(np.uint8) if masked else None
        found = guard.score(states, mask, roles)
        assert list(found) == list(NAMES)
        for name, detector in detectors.items():
            same(found[name], detector.score(states, mask, roles))


@pytest.mark.parametrize("seed", range(4))
def test_a_reading_names_the_first_token_of_its_window(
    guard: CGuard, params: dict[str, dict[str, Array]], seed: int
) -> None:
    """From whole texts and from streams, the token that Python names."""
    states = states_like("float32", "rows", seed)
    probe = bound(params)["span"].tap.probe
    assert probe is not None
    first, _ = probe.place(probe.windows(states))
    stream = guard.stream()
    for token in range(TOKENS):
        stream.push([layer[token : token + 1] for layer in states])
    assert guard.score(states)["span"].place == stream.read()["span"].place == first


def test_both_verdicts_are_among_the_readings(guard: CGuard) -> None:
    """The states above flag some texts and pass others, by every detector."""
    seen = {(n, r.flagged) for s in range(8) for n, r in
            guard.score(states_like("float32", "rows", s)).items()}  # fmt: skip
    assert len(seen) == 2 * len(NAMES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_flagged(
    guard: CGuard, params: dict[str, dict[str, Array]], value: float
) -> None:
    """Readings are invalid where Python's are, with the same p-value."""
    states = states_like("float32", "rows", 0)
    for layer in states:
        layer[TOKENS - 1, :] = value
    found = guard.score(states)
    for name, detector in bound(params).items():
        expected = detector.score(states)
        assert (found[name].status, found[name].flagged) == (lib.LG_INVALID, True)
        assert (expected.status, found[name].p_value) == ("invalid", expected.p_value)
        assert not math.isfinite(found[name].score)


@pytest.mark.parametrize("shape", [(6, 64), (28, 257)])
def test_models_of_other_sizes_have_pythons_bits(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Detectors as large as a real model's; WeightWatch's directions in float16 too."""
    layers, width = shape
    params = make_params(layers, width)
    halves = params["weightwatch"]["directions"].astype(np.float16)
    for directions in (params["weightwatch"]["directions"], halves):
        params["weightwatch"]["directions"] = directions
        guard = CGuard(archive_of(params, tmp_path / "detectors.npz"))
        states = np.random.default_rng(3).normal(size=(layers + 1, 7, width)).astype(np.float32)
        found = guard.score(states)
        for name, detector in bound(params).items():
            same(found[name], detector.score(states))


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, TOKENS), max_size=4).map(sorted), seed=st.integers(0, 99))
def test_streams_have_pythons_bits_however_cut(
    guard: CGuard, params: dict[str, dict[str, Array]], cuts: list[int], seed: int
) -> None:
    """A stream of pieces reads what Python's pools of the whole text do."""
    states = states_like("float32", "rows", seed)
    roles = np.random.default_rng(seed).integers(0, 4, TOKENS).astype(np.uint8)
    stream = guard.stream()
    for start, stop in zip([0, *cuts], [*cuts, TOKENS], strict=True):
        stream.push([layer[start:stop] for layer in states], roles[start:stop])
    found = stream.read()
    running = RunningMean(LAYERS + 1, WIDTH)
    running.add(states)
    for name, detector in bound(params).items():
        expected = detector.score(states, roles=roles)
        if detector.tap.pooling == "mean":
            expected = detector.score_pooled(running.mean[:, None])[0]
        same(found[name], expected)


def test_forks_go_apart_and_marks_come_back(guard: CGuard) -> None:
    """A copy does not see what its origin takes in, and brings it back."""
    states = states_like("float16", "rows", 5)
    stream = guard.stream()
    with pytest.raises(RefusedError) as none:
        stream.read()
    assert none.value.status == lib.LG_ERR_EMPTY
    stream.push([layer[:4] for layer in states])
    mark, before = stream.copy(), stream.read()
    stream.push([layer[4:] for layer in states])
    after = stream.read()
    assert mark.read() == before != after
    mark.push([layer[4:] for layer in states])
    assert mark.read() == after


def serve(bundle: Bundle, path: Path) -> CGuard:
    """The C guard of a bundle in memory, frozen as ``calibration/guard/freeze.py`` does."""
    groups = {
        **bundle.params, "decision": bundle.decision, SERVING: serving_arrays(bundle.manifest),
    }  # fmt: skip
    write_npz(path, {f"{d}/{k}": v for d, mine in groups.items() for k, v in mine.items()})
    return CGuard(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of LCF and SIREN."""
    return make_bundle(tmp_path_factory.mktemp("sound") / "bundle")


@pytest.mark.parametrize("promised", [True, False])
@pytest.mark.parametrize(
    ("policy", "shadow"),
    [("any", ()), ("all", ()), ("lcf", ("siren",)), ("any", ("lcf",)), ("siren", ("lcf",))],
)
def test_verdicts_are_pythons(
    sound: Path, tmp_path: Path, policy: str, shadow: tuple[str, ...], *, promised: bool
) -> None:
    """By every policy, in every domain, with scores on, between and beyond the clean ones."""
    bundle = calibrated(sound, policy, shadow, promised=promised)
    python, guard = Decision(bundle), serve(bundle, tmp_path / "detectors.npz")
    assert guard.info.domains == (1 if promised else 0)
    rng = np.random.default_rng(4)
    cases = [*rng.normal(size=(40, 2)), *SCORES[:10], SCORES[DOMAIN][0], np.array([1e9, -1e9])]
    cases += [np.array([math.nan, 0.0]), np.array([0.0, math.inf])]
    guard.score(states_like("float32", "rows", 0))
    for scores in cases:
        for domain in (None, "chat", "mail", "unheard of"):
            found = {
                name: decide(
                    name,
                    float(score),
                    float(bundle.params[name]["threshold"]),
                    bundle.params[name]["clean_scores"].tolist(),
                    (),
                )
                for name, score in zip(("lcf", "siren"), scores, strict=True)
            }
            for reading, score in zip(guard.readings, scores, strict=True):
                reading.score = score
            expected, verdict = python.decide(found, domain), guard.decide(domain)
            assert (verdict.flagged, verdict.invalid) == (expected.flagged, expected.invalid)
            assert verdict.p_value == (-1 if expected.p_value is None else expected.p_value)
            assert verdict.domain == expected.domain
            for name, reading in guard.found().items():
                same(reading._replace(layer=-1), replace(expected.readings[name], detector=""))


def test_what_was_not_read_cannot_be_decided(guard: CGuard) -> None:
    """A deciding detector that was left out is an error, and the verdict is flagged."""
    states = states_like("float32", "rows", 0)
    found = guard.score(states, chosen=[True, True, False, True, True])
    assert "lcf" not in found
    with pytest.raises(RefusedError) as missing:
        guard.decide()
    assert missing.value.status == lib.LG_ERR_DECISION


def test_what_the_states_do_not_hold_is_refused(sound: Path, tmp_path: Path) -> None:
    """A detector of the final norm, or of feed-forward outputs, is only read where it is asked."""
    bundle = Bundle.load(sound)
    cards = dict(bundle.manifest.detectors)
    cards["siren"] = replace(cards["siren"], semantics="hf")
    other = replace(bundle, manifest=replace(bundle.manifest, detectors=cards))
    guard = serve(other, tmp_path / "normed.npz")
    states = states_like("float32", "rows", 0)
    with pytest.raises(RefusedError) as refused:
        guard.score(states)
    assert refused.value.status == lib.LG_ERR_POOLING
    assert list(guard.score(states, chosen=[True, False])) == ["lcf"]
    assert list(guard.score(states, chosen=[False, True], final_norm=1)) == ["siren"]
    cards["siren"] = replace(cards["siren"], semantics="block", pooling="mlp_mean")
    other = replace(bundle, manifest=replace(bundle.manifest, detectors=cards))
    guard = serve(other, tmp_path / "fed.npz")
    with pytest.raises(RefusedError) as refused:
        guard.score(states)
    assert refused.value.status == lib.LG_ERR_POOLING
    cards["siren"] = replace(cards["siren"], pooling="last")
    other = replace(bundle, manifest=replace(bundle.manifest, detectors=cards))
    found = serve(other, tmp_path / "last.npz").score(states)["siren"]
    last = [layer[-1:] for layer in states]
    same(found, REGISTRY["siren"].bind(bundle.params["siren"]).score_pooled(last)[0])


def test_what_only_a_graph_computes_is_refused(tmp_path: Path) -> None:
    """Added lengths are in no states: the other detectors of the archive are read alone."""
    params = {name: params_of(name) for name in ("delta", "lcf")}
    bundle = Bundle.load(make_bundle(tmp_path / "bundle", params))
    guard = serve(bundle, tmp_path / "detectors.npz")
    states = states_like("float32", "rows", 0)
    assert guard.detector(0).pooling == lib.LG_DELTA == get_args(Pooling).index(ADDED)
    stream = guard.stream()
    stream.push(states)
    for read in (stream.read, lambda: guard.score(states)):
        with pytest.raises(RefusedError) as refused:
            read()
        assert refused.value.status == lib.LG_ERR_POOLING
    assert list(guard.score(states, chosen=[False, True])) == ["lcf"]
    for name, pooling in (("delta", "mean"), ("delta", "window"), ("lcf", ADDED)):
        cards = dict(bundle.manifest.detectors)
        cards[name] = replace(cards[name], pooling=pooling)  # type: ignore[arg-type]
        other = replace(bundle, manifest=replace(bundle.manifest, detectors=cards))
        with pytest.raises(RefusedError, match="has an entry that the detector cannot read"):
            serve(other, tmp_path / "other.npz")


def test_an_archive_without_a_policy_scores_and_does_not_decide(
    sound: Path, tmp_path: Path
) -> None:
    """Frozen before the policy was: who decides is not guessed."""
    bundle = calibrated(sound)
    groups = {**bundle.params, "decision": bundle.decision}
    guard = CGuard(archive_of(groups, tmp_path / "detectors.npz"))  # type: ignore[arg-type]
    guard.score(states_like("float32", "rows", 0))
    assert guard.info.policy == -1
    with pytest.raises(RefusedError) as refused:
        guard.decide()
    assert refused.value.status == lib.LG_ERR_DECISION
