"""Arrays of other libraries, read through DLPack and the array interface."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from layerguard.runtime import Guard, InputError
from layerguard.runtime.kernels import dlpack, gathered, host
from tests.runtime.engines.buffers import addresses, refused, singles, tensors

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


class Offer:
    """An object that exposes only some attributes of another array."""

    def __init__(self, of: Any, *names: str, **others: Any) -> None:
        for name in names:
            setattr(self, name, getattr(of, name))
        for name, value in others.items():
            setattr(self, name, value)


def by_dlpack(tensor: Any) -> Any:
    """The tensor as an object that only supports DLPack."""
    return Offer(tensor, "__dlpack__", "__dlpack_device__")


@pytest.mark.usefixtures("in_place")
@dtypes
def test_torch_tensors_are_read_where_they_lie(guard: Guard, dtype: torch.dtype) -> None:
    """Lists of tensors, one tensor, and DLPack objects are all read in place."""
    states = tensors(dtype=dtype)
    expected = guard.score_states(singles(states)).readings
    for given in (list(states), states, [by_dlpack(s) for s in states], by_dlpack(states)):
        assert addresses(gathered(given)) == addresses(states)
        assert guard.score_states(given).readings == expected


@pytest.mark.usefixtures("in_place")
@dtypes
def test_rows_may_lie_apart(guard: Guard, dtype: torch.dtype) -> None:
    """Row strides are supported: every third token, or columns of a wider buffer."""
    states = tensors(15, dtype)
    for apart in (states[:, ::3], torch.cat([states, states], dim=2)[:, 2:7, 16:]):
        expected = guard.score_states(singles(apart)).readings
        assert addresses(gathered(apart)) == addresses(apart)
        assert guard.score_states(list(apart)).readings == expected


@pytest.mark.usefixtures("in_place")
def test_rows_may_lie_backwards(guard: Guard) -> None:
    """A negative stride is read in place; numpy has them, torch does not."""
    states = singles(tensors())
    expected = guard.score_states(states[:, ::-1].copy()).readings
    assert guard.score_states(states[:, ::-1]).readings == expected
    assert guard.score_states([state[::-1] for state in states]).readings == expected


@pytest.mark.usefixtures("in_place")
def test_array_interface_is_read_where_it_lies(guard: Guard) -> None:
    """Objects with only ``__array_interface__``, and memory views, are read in place."""
    states = singles(tensors())
    expected = guard.score_states(states).readings
    offers: list[Any] = [Offer(state, "__array_interface__") for state in states]
    for given in (offers, Offer(states, "__array_interface__"), [*map(memoryview, states)]):
        assert addresses(gathered(given)) == addresses(states)
        assert guard.score_states(given).readings == expected


def test_bfloat16_bits_outlive_their_tensor() -> None:
    """The capsule keeps the memory alive until the last view is gone, and no longer."""
    memory = np.arange(40, dtype=np.uint16)
    alive = weakref.ref(memory)
    bits = host(by_dlpack(torch.from_numpy(memory).view(torch.bfloat16)))[30:]
    del memory
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(bits, np.arange(30, 40))
    del bits
    gc.collect()
    assert alive() is None


def test_bfloat16_of_a_versioned_capsule() -> None:
    """DLPack 1.0 puts a version before the tensor."""
    tensor = tensors(dtype=torch.bfloat16)
    versioned = Offer(
        tensor,
        "__dlpack_device__",
        __dlpack__=lambda **_: tensor.__dlpack__(max_version=(1, 0)),
    )
    assert addresses([dlpack.bfloat16_bits(versioned)]) == addresses([tensor])


def test_bfloat16_of_any_shape() -> None:
    """Zero dimensions, zero elements and one element work as for other dtypes."""
    for shape in ((), (0,), (2, 0, 3), (1, 1)):
        bits = host(torch.ones(shape, dtype=torch.bfloat16))
        assert (bits.dtype, bits.shape) == (np.dtype(np.uint16), shape)
        assert (bits == 0x3F80).all()


def test_pinned_memory_is_the_host_s() -> None:
    """Pinned host memory is accepted."""
    tensor = tensors()
    pinned = Offer(tensor, "__dlpack__", __dlpack_device__=lambda: (3, 0))
    assert addresses([host(pinned)]) == addresses([tensor])


@pytest.mark.parametrize(("kind", "name"), [(2, "CUDA"), (10, "ROCm"), (99, "DLPack's type 99")])
def test_an_accelerator_s_memory_is_refused(guard: Guard, kind: int, name: str) -> None:
    """The error is one clear sentence, for a list of layers and for one array."""

    def there(tensor: Any) -> Any:
        return Offer(tensor, "__dlpack__", __dlpack_device__=lambda: (kind, 1))

    words = f"found Offer in the memory of device 1 ({name}), expected host memory; copy it"
    with refused(*[f"layer {i}: {words}" for i in range(4)], "tensor.cpu()"):
        guard.score_states([there(state) for state in tensors()])
    with refused(f"states: {words}"):
        guard.score_states(there(tensors()))


def test_what_a_maker_refuses_is_passed_on(guard: Guard) -> None:
    """The error of a tensor that requires a gradient is passed on."""
    with refused("layer 0: found Tensor", "use tensor.detach()"):
        guard.score_states(list(tensors().requires_grad_()))
    with refused("layer 0: found Tensor", "meta"):
        guard.score_states(list(tensors().to("meta")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.float8_e4m3fn, torch.bool])
def test_other_dtypes_are_refused(guard: Guard, dtype: torch.dtype) -> None:
    """Other dtypes are refused and not converted silently."""
    with pytest.raises(InputError, match="layer 0: found"):
        guard.score_states(list(tensors().to(dtype)))


def test_columns_apart_are_refused(guard: Guard) -> None:
    """A transposed [tokens, hidden] array is refused: its rows are not contiguous."""
    with refused("layer 3: found", "np.ascontiguousarray"):
        guard.score_states([state.T.contiguous().T for state in tensors()])
