"""Reference runs in float64."""

import numpy as np
import pytest
import torch

from layerguard.exporter.loading.architecture import examine
from layerguard.exporter.proof.reference import References, float64
from layerguard.runtime.errors import ExportError
from tests.exporter.models import WIDTH, build, plant_outliers


def test_planted_outliers_reach_the_states() -> None:
    """A few channels are in the thousands, the others near one."""
    ids = np.arange(20) + 5
    references = References(examine(plant_outliers(build("llama"))))
    references.request(ids)
    last = np.abs(references.get(ids).exact.states[-1])
    assert last.max() > 1_000
    assert np.median(last) < 10


def test_all_operations_are_float64_and_the_weights_are_restored() -> None:
    """This includes norms and softmax, for which the model's code requests float32."""
    model = build("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.arange(20)[None] + 5
    with torch.inference_mode(), float64(model):
        widened = model(input_ids=ids).last_hidden_state
        again = model(input_ids=ids, output_hidden_states=True)
    assert widened.dtype == torch.float64
    assert all(state.dtype == torch.float64 for state in again.hidden_states)
    # the result of a norm in float32 could be represented in float32
    inputs = torch.linspace(1, 2, WIDTH, dtype=torch.float64)[None]
    with torch.inference_mode(), float64(model):
        normed = model.norm(inputs)
    assert (normed != normed.float().double()).any()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_an_error_in_the_float64_run_restores_the_weights() -> None:
    """The model can be used after a failed run."""
    model = build("llama")
    refused = pytest.raises(ExportError, match=r"LlamaModel cannot be run in float64 \(planted\)")
    with refused, float64(model):
        raise RuntimeError("planted")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
