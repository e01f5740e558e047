"""The trace of a prompt against a float64 network, and the summary of many traces."""

from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration.layertracer import graph as graph_module
from layerguard.calibration.layertracer.divergence import layer_robustness
from layerguard.calibration.layertracer.graph import AnalysisGraph
from layerguard.calibration.layertracer.masks import Mask, Mode, inert
from layerguard.calibration.layertracer.prompt_trace import PromptTrace, trace_prompt
from layerguard.calibration.layertracer.report import findings
from layerguard.calibration.layertracer.summary import suggest_layers, summarize
from layerguard.runtime import Bundle, BundleError
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array
from tests.reference import trace as reference
from tests.tiny import LAYERS, WIDTH, WORDS, make_bundle
from tests.tiny_analysis import lens, make_traceable

IDS = (2, 6, 7, 8, 9, 3)
MODES: tuple[Mode, ...] = ("zero", "ablate", "dim-mask")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> AnalysisGraph:
    """The analysis graph of the toy bundle."""
    bundle = make_traceable(tmp_path_factory.mktemp("traceable") / "bundle")
    return AnalysisGraph(Bundle.load(bundle), threads=1)


def probabilities(bypass: Array, keep: Array) -> list[Array]:
    """The oracle's distribution of every state for the ids above."""
    return [reference.softmax(logits) for logits in lens(np.array(IDS), bypass, keep)]


@pytest.mark.parametrize("mode", MODES)
def test_a_trace_is_that_of_the_network_in_float64(graph: AnalysisGraph, mode: Mode) -> None:
    """Probabilities, ratios and divergences, for every way of masking."""
    mask = Mask(mode, share=0.25, seed=3)
    trace = trace_prompt(graph, IDS, 11, mask=mask)
    whole = probabilities(*(gate[0] for gate in inert(1, LAYERS, WIDTH)))
    curve = [float(p[11]) for p in whole]
    np.testing.assert_allclose(trace.probability, curve, rtol=1e-4)
    np.testing.assert_allclose(trace.ratio, np.array(curve[1:]) / curve[:-1], rtol=1e-4)
    bypass, keep = mask.gates(range(1, LAYERS + 1), LAYERS, WIDTH)
    expected = [
        reference.js_divergence_nats(whole[-1], probabilities(*gates)[-1])
        for gates in zip(bypass, keep, strict=True)
    ]
    np.testing.assert_allclose(trace.divergence_nats, expected, atol=1e-6)
    assert min(expected) > 1e-3, "a mask that moves nothing would prove nothing"
    assert trace.vulnerable_layer == int(np.argmax(expected)) + 1
    assert trace.max_ratio_layer == reference.max_ratio_layer(curve)
    assert trace.first_rise_layer == reference.first_rise_layer(curve, 2.0, 0.01)


def test_without_a_target_it_follows_the_models_own(graph: AnalysisGraph) -> None:
    """Without a target, the most probable token of the last layer is followed."""
    trace = trace_prompt(graph, IDS)
    whole = probabilities(*(gate[0] for gate in inert(1, LAYERS, WIDTH)))[-1]
    assert trace.target == int(whole.argmax())
    assert trace.probability[-1] == pytest.approx(whole.max(), rel=1e-4)


def test_small_batches_give_the_same_trace(
    graph: AnalysisGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masking the layers in several runs, which bounds memory, gives the same trace."""
    together = trace_prompt(graph, IDS, mask=Mask("dim-mask"))
    monkeypatch.setattr(graph_module, "_MAX_BATCH_TOKENS", 1)
    alone = trace_prompt(graph, IDS, mask=Mask("dim-mask"))
    np.testing.assert_allclose(together.divergence_nats, alone.divergence_nats, atol=1e-6)


@pytest.mark.parametrize("target", [-1, len(WORDS)])
def test_a_target_that_is_no_token_is_refused(graph: AnalysisGraph, target: int) -> None:
    """The message gives the range."""
    with pytest.raises(InputError, match=f"expected a token id from 0 to {len(WORDS) - 1}"):
        trace_prompt(graph, IDS, target)


def test_logits_that_are_not_finite_are_refused(
    graph: AnalysisGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Non-finite logits are refused, because every divergence would be NaN."""
    monkeypatch.setattr(
        graph_module, "inert", lambda *shape: (inert(*shape)[0], inert(*shape)[1] * np.nan)
    )
    with pytest.raises(InputError, match="not finite; export the model in float32"):
        trace_prompt(graph, IDS)


def test_a_bundle_without_an_analysis_graph_is_refused(tmp_path: Path) -> None:
    """The message has the command that exports an analysis graph."""
    bundle = Bundle.load(make_bundle(tmp_path / "plain", {}))
    with pytest.raises(BundleError, match="layerguard export MODEL -o BUNDLE --analysis"):
        AnalysisGraph(bundle)


def test_masks_close_the_gates_of_one_layer_a_row() -> None:
    """Zero bypasses a layer, ablate keeps no dimension, dim-mask keeps all but the share."""
    for mode in MODES:
        bypass, keep = Mask(mode, share=0.25).gates([2, 3], LAYERS, WIDTH)
        for row, block in enumerate((1, 2)):
            others = np.arange(LAYERS) != block
            assert not bypass[row, others].any()
            assert (keep[row, others] == 1).all()
            assert bypass[row, block] == (mode == "zero")
            kept = {"zero": WIDTH, "ablate": 0, "dim-mask": 0.75 * WIDTH}[mode]
            assert keep[row, block].sum() == kept


def test_dimensions_follow_the_seed_and_the_layer_alone() -> None:
    """The masked dimensions depend on seed and layer, not on the batch."""
    mask = Mask("dim-mask")
    keep = mask.gates([1, 2], LAYERS, WIDTH)[1]
    np.testing.assert_array_equal(keep[1], mask.gates([2], LAYERS, WIDTH)[1][0])
    assert (keep[0, 0] != keep[1, 1]).any()
    assert (keep[0] != Mask("dim-mask", seed=1).gates([1], LAYERS, WIDTH)[1][0]).any()


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    """A share of 0, or above 1, is refused."""
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Mask("dim-mask", share=share)


def trace_of(largest: int, first: int | None, divergence: list[float]) -> PromptTrace:
    """A trace of three layers with these layers and divergences."""
    return PromptTrace(0, np.full(4, 0.25), np.ones(3), np.array(divergence), largest, first)


TRACES = [
    trace_of(1, 1, [0.1, 0.2, 0.0]),
    trace_of(2, 3, [0.3, 0.1, 0.0]),
    trace_of(2, None, [0.3, 0.0, 0.3]),
    trace_of(1, 3, [0.1, 0.2, 0.1]),
]


def test_a_summary_counts_and_averages() -> None:
    """Histograms count every prompt once; the vulnerable layer has the largest mean."""
    summary = summarize(TRACES)
    assert summary.max_ratio_counts.tolist() == [2, 2, 0]
    assert (summary.first_rise_counts.tolist(), summary.never_rises) == ([1, 0, 2], 1)
    assert summary.vulnerable_counts.tolist() == [2, 2, 0], "the first of equals"
    np.testing.assert_allclose(summary.divergence_nats.value, [0.2, 0.125, 0.1])
    assert summary.vulnerable_layer == 1
    assert 0.5 < summary.vulnerable_share < 1
    assert summary.layer_robustness == pytest.approx(layer_robustness(np.array([0.2, 0.125, 0.1])))
    for mean in (summary.divergence_nats, summary.probability):
        assert (mean.low <= mean.value).all()
        assert (mean.value <= mean.high).all()


def test_equal_traces_give_equal_summaries() -> None:
    """The bootstrap is seeded; the interval of one prompt has width zero."""
    assert summarize(TRACES).to_json() == summarize(TRACES).to_json()
    one = summarize(TRACES[:1]).divergence_nats
    np.testing.assert_array_equal(one.low, one.high)


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    """The 95 % intervals hold the true mean in about 95 of 100 draws of 50 prompts."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        drawn = [trace_of(1, 1, list(row)) for row in rng.beta(2, 5, (50, 3))]
        mean = summarize(drawn).divergence_nats
        held += bool(mean.low[0] <= 2 / 7 <= mean.high[0])
    assert 88 <= held <= 99


@pytest.mark.parametrize(
    ("cover", "vulnerable", "layers"),
    [(0.25, 1, 1), (0.26, 1, 2), (0.5, 1, 2), (0.51, 1, 3), (1.0, 1, 3), (0.25, 2, 2)],
)
def test_suggested_layers_hold_enough_particles_and_the_vulnerable_layer(
    cover: float, vulnerable: int, layers: int
) -> None:
    """The four prompts need 1, 3, 2 and 3 layers for both first rise and largest ratio."""
    assert suggest_layers(TRACES, vulnerable, cover) == layers


@pytest.mark.parametrize("cover", [0.0, 1.1, float("nan")])
def test_a_cover_that_is_no_share_is_refused(cover: float) -> None:
    """A cover of 0, or above 1, is refused."""
    with pytest.raises(InputError, match="cover: found"):
        summarize(TRACES, cover)


def test_layers_that_masking_moves_alike_have_no_most_vulnerable_one() -> None:
    """With equal divergences, as from ``ablate`` without biases, no layer is most vulnerable."""
    alike = " ".join(findings(summarize([trace_of(1, 1, [0.5, 0.5, 0.5])] * 3), Mask("ablate")))
    assert "alike whichever layer is masked (mask ablate)" in alike
    apart = " ".join(findings(summarize(TRACES), Mask()))
    assert "Masking layer 1 moves the output most (mask zero;" in apart
