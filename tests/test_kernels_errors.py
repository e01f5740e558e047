"""What the kernels refuse: the message says what was found, what was expected and what to do."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import kernels
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.kernels import pool_last, pool_mean
from tests.kernel_cases import DEPTH, SCORERS, Array, lcf_model, siren_model, states
from tests.scorers import LcfKernel, SirenKernel

WIDTH = 33
Pool = Callable[..., Array]
both = pytest.mark.parametrize("scorer", SCORERS)


def bad_layouts() -> dict[str, tuple[Any, str]]:
    """Name, layers and the words that their error must contain."""
    h = states(WIDTH, 3)
    wide = np.repeat(h, 2, axis=2)[..., ::2]
    odd = list(h)
    odd[2] = odd[2][:2]
    narrow = list(h)
    narrow[4] = narrow[4][:, :-1]
    mixed = list(h)
    mixed[3] = mixed[3].astype(np.float16)
    unaligned = np.frombuffer(b"\0" + h.tobytes(), np.uint8)[1:].view(np.float32).reshape(h.shape)
    return {
        "float64": (h.astype(np.float64), "found dtype float64, expected float32"),
        "integers": (h.astype(np.int32), "found dtype int32"),
        "other byte order": (h.astype(">f4"), "native byte order"),
        "rows not contiguous": (wide, "expected 4; copy it with np.ascontiguousarray"),
        "one layer of fewer rows": (odd, r"layer 2: found float32 \(2, 33\), expected .*\(3, 33\)"),
        "one layer narrower": (narrow, r"layer 4: found float32 \(3, 32\)"),
        "one layer of another dtype": (mixed, "layer 3: found float16"),
        "one row without its batch axis": (h[:, 0], r"found shape \(33,\), expected \(rows, width"),
        "lists": (h.tolist(), "found list that numpy cannot read in place"),
        "too few layers": (h[:3], "found 3 states, expected 6"),
        "too narrow": (h[..., : WIDTH - 1].copy(), "found states of width 32, expected"),
        "not aligned": (unaligned, "copy it with array.copy()"),
    }


@both
@pytest.mark.parametrize("name", bad_layouts())
def test_states_that_cannot_be_read_are_named(scorer: str, name: str) -> None:
    """Each wrong layout is refused with the layer, what was found and what to do."""
    layers, words = bad_layouts()[name]
    with pytest.raises(InputError, match=words):
        SCORERS[scorer](WIDTH)(layers)


def test_every_fault_of_the_states_is_listed() -> None:
    """Two wrong layers give two lines."""
    h = list(states(WIDTH, 3))
    h[1] = h[1].astype(np.float64)
    h[4] = h[4][0]
    with pytest.raises(InputError, match=r"(?s)layer 1: .*layer 4: "):
        lcf_model(WIDTH).kernel().score(h)


def test_a_first_layer_that_is_wrong_is_the_only_fault() -> None:
    """The others are compared with the first that can be read."""
    h = [None, *states(WIDTH, 3)[1:]]
    with pytest.raises(InputError) as caught:
        lcf_model(WIDTH).kernel().score(h)
    assert str(caught.value).count("layer ") == 1


def test_lcf_takes_exactly_the_calibrated_width_and_depth() -> None:
    """Wider states or more layers are another model's."""
    kernel = lcf_model(WIDTH).kernel()
    with pytest.raises(InputError, match="found states of width 34, expected 33"):
        kernel.score(states(WIDTH + 1, 1))
    with pytest.raises(InputError, match="found 7 states, expected 6"):
        kernel.score(states(WIDTH, 1, depth=DEPTH + 1))


LCF_FAULTS = {
    "mu": (np.zeros(WIDTH), r"lcf/mu is float32 \[33\]; expected float32 \[L, D\]"),
    "sigma": (
        np.ones((DEPTH, WIDTH - 1)),
        r"lcf/sigma is float32 \[5, 32\]; expected float32 \[5, 33\]",
    ),
    "score_mean": (np.full(DEPTH, np.nan), "lcf/score_mean has 5 values that are not finite"),
    "score_scale": (np.zeros(DEPTH), "lcf/score_scale has values of zero or less"),
    "centre": (np.zeros(DEPTH + 1), r"lcf/centre is float64 \[6\]; expected float64 \[5\]"),
    "precision": (np.full((DEPTH, DEPTH), np.inf), "lcf/precision has 25 values that are not"),
}


@pytest.mark.parametrize("name", LCF_FAULTS)
def test_lcf_parameters_are_checked(name: str) -> None:
    """A parameter of wrong shape, not finite or not positive is refused by name."""
    value, words = LCF_FAULTS[name]
    with pytest.raises(InputError, match=words):
        LcfKernel(**{**vars(lcf_model(WIDTH)), name: value})


def test_every_fault_of_the_parameters_is_listed() -> None:
    """All wrong parameters are named at once."""
    wrong = {"sigma": -np.ones((DEPTH, WIDTH)), "centre": np.zeros(1)}
    with pytest.raises(InputError, match=r"(?s)lcf/sigma has .*lcf/centre is "):
        LcfKernel(**{**vars(lcf_model(WIDTH)), **wrong})


def test_a_sigma_without_an_inverse_is_refused() -> None:
    """A subnormal sigma would become an infinite factor."""
    sigma = np.full((DEPTH, WIDTH), 1e-39, np.float32)
    with pytest.raises(InputError, match="whose inverse exceeds float32"):
        LcfKernel(**{**vars(lcf_model(WIDTH)), "sigma": sigma})


def test_parameters_are_private_copies() -> None:
    """Changing an array after binding changes no score."""
    model, h = lcf_model(WIDTH), states(WIDTH, 1)
    kernel = model.kernel()
    before = kernel.score(h)[0]
    for array in kernel.params.values():
        array[...] = 9
    np.testing.assert_array_equal(kernel.score(h)[0], before)


def siren_faults() -> dict[str, tuple[dict[str, Any], str]]:
    """Name, parameters that replace the good ones, and the words of their error."""
    model = siren_model(WIDTH)
    offsets, neurons = model.neuron_offsets.copy(), model.neurons.copy()
    offsets[1], offsets[2] = offsets[2], offsets[1]
    neurons[0] = -1
    return {
        "offsets fall": ({"neuron_offsets": offsets}, "expected an ascending list from 0 to"),
        "offsets beyond": ({"neuron_offsets": model.neuron_offsets + 1}, "expected an ascending"),
        "offsets short": ({"neurons": model.neurons[:-1]}, "the number of neurons, 51"),
        "negative neuron": ({"neurons": neurons}, "siren/neurons has indices below 0"),
        "negative layer": (
            {"layers": model.layers - 2},
            r"layers is \[-1, 0, 2, 1, 3\]; expected states from 0 on",
        ),
        "alpha not finite": ({"alpha": model.alpha * np.nan}, "alpha has 5 values that are not"),
        "alpha short": ({"alpha": model.alpha[1:]}, "alpha have 6 and 4 entries; expected 6 and 5"),
        "one bias missing": ({"biases": model.biases[:-1]}, "siren/bias_2 is missing"),
        "weight transposed": (
            {"weights": (model.weights[0].T, *model.weights[1:])},
            r"weight_0 is \[52, 33\]; expected \[33, 52\]",
        ),
        "three outputs": (
            {
                "weights": (*model.weights[:-1], np.zeros((3, 6), np.float32)),
                "biases": (*model.biases[:-1], np.zeros(3, np.float32)),
            },
            "siren's last layer has 3 outputs; expected 2, safe and harmful",
        ),
        "nothing hidden": (
            {
                "weights": (np.zeros((0, 52), np.float32), np.zeros((2, 0), np.float32)),
                "biases": (np.zeros(0, np.float32), np.zeros(2, np.float32)),
            },
            "siren/bias_0 is empty; expected at least one output",
        ),
        "nothing chosen": (
            {
                "layers": model.layers[:0],
                "neuron_offsets": model.neuron_offsets[:1],
                "neurons": model.neurons[:0],
                "alpha": model.alpha[:0],
                "weights": (np.zeros((2, 0), np.float32),),
                "biases": (np.zeros(2, np.float32),),
            },
            r"(?s)siren/layers is \[\]; .*siren/neurons is empty",
        ),
    }


@pytest.mark.parametrize("name", siren_faults())
def test_siren_parameters_are_checked(name: str) -> None:
    """Indices, shapes and values that do not fit together are refused when the kernel is made."""
    wrong, words = siren_faults()[name]
    with pytest.raises(InputError, match=words):
        SirenKernel(**{**vars(siren_model(WIDTH)), **wrong})


@pytest.mark.parametrize("pool", [pool_mean, pool_last])
def test_pooling_refuses_masks_that_do_not_fit(pool: Pool) -> None:
    """A mask of another length or that keeps nothing, and states without tokens, are named."""
    h = states(WIDTH, 4)
    with pytest.raises(InputError, match=r"mask: found shape \(3,\), expected \(4,\)"):
        pool(h, np.ones(3, bool))
    with pytest.raises(InputError, match="there is no unmasked token"):
        pool(h, np.zeros(4, bool))
    with pytest.raises(InputError, match="there is no unmasked token"):
        pool(h[:, :0])
    with pytest.raises(InputError, match="a size is zero"):
        pool(h[:, :, :0])
    with pytest.raises(InputError, match="found 0 states"):
        pool(())


def test_set_level_refuses_unknown_names() -> None:
    """An unknown level is the machine's error, says so, and leaves the level as it was."""
    before = kernels.level()
    with pytest.raises(MachineError, match="no level has this name"):
        kernels.set_level("x86-64-v9")
    assert kernels.level() == before


@pytest.mark.parametrize(("value", "words"), [("x86-64-v9", "no level has this name"), ("", "")])
def test_the_environment_names_the_level(value: str, words: str) -> None:
    """An unknown LAYERGUARD_LEVEL is explained, not crashed on; an empty one is none."""
    code = "from layerguard.runtime.kernels import level; print(level())"
    environment = {**os.environ, "LAYERGUARD_LEVEL": value}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (run.returncode == 0) == (not words)
    assert words in run.stderr


def test_the_environment_can_ask_for_the_lowest_level() -> None:
    """The lowest level can be asked for on any machine."""
    lowest = "x86-64" if kernels.level().startswith("x86") else "portable"
    code = "from layerguard.runtime.kernels import level; print(level())"
    environment = {**os.environ, "LAYERGUARD_LEVEL": lowest}
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert printed.strip() == lowest
