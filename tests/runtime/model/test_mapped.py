"""Memory-mapped weights: the same tensors, the same verdicts, one copy in memory."""

import hashlib
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from layerguard.runtime import Bundle, BundleError, Guard, InputError
from layerguard.runtime.bundle.files import WEIGHTS
from layerguard.runtime.bundle.write import seal
from layerguard.runtime.cli import main, options
from layerguard.runtime.model.mapped import MappedWeights
from layerguard.runtime.model.session import Session
from tests import tiny_decoder
from tests.runtime.model.test_processes import LONG, run_script

_GRAPHS = ("score.onnx", "decode.onnx")
_SAME = 1e-5


def put_outside(folder: Path) -> Path:
    """Move the matrices of a bundle's graphs to ``weights.data``, equal ones once."""
    places: dict[bytes, int] = {}
    data = b""
    for name in _GRAPHS:
        model = onnx.load(str(folder / name))
        for tensor in model.graph.initializer:
            if len(tensor.dims) < 2:
                continue
            raw = numpy_helper.to_array(tensor).tobytes()
            key = hashlib.sha256(raw).digest()
            if key not in places:
                places[key] = len(data)
                data += raw
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for entry, value in (
                ("location", WEIGHTS), ("offset", places[key]), ("length", len(raw))
            ):  # fmt: skip
                tensor.external_data.add(key=entry, value=str(value))
        (folder / name).write_bytes(model.SerializeToString())
    (folder / WEIGHTS).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy decoder with external weights, as an export writes them."""
    folder = tiny_decoder.make_bundle(tmp_path_factory.mktemp("outside") / "bundle")
    manifest = Bundle.load(folder).manifest
    seal(put_outside(folder), manifest)
    return folder


def test_tensors_are_read_as_onnx_reads_them(outside: Path) -> None:
    """Names, shapes, dtypes and values agree; both graphs share the same bytes."""
    weights = MappedWeights()
    score, decode = (weights.tensors_of(outside / name) for name in _GRAPHS)
    for name, found in zip(_GRAPHS, (score, decode), strict=True):
        tensors = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in onnx.load(str(outside / name)).graph.initializer
            if len(tensor.dims) >= 2
        }
        assert found.keys() == tensors.keys()
        for key, expected in tensors.items():
            np.testing.assert_array_equal(found[key], expected, strict=True)
            assert not found[key].flags.writeable
    assert np.shares_memory(score["embedding"], decode["embedding"])


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64]
)
def test_every_type_is_read_as_onnx_reads_it(dtype: type[np.generic], tmp_path: Path) -> None:
    """The onnx package writes the tensor; unsupported types are left out."""
    values = np.arange(-3, 9).reshape(3, 4)
    expected = {"first": values.astype(dtype), "second": (7 * values.T).astype(dtype)}
    tensors = [numpy_helper.from_array(value, name) for name, value in expected.items()]
    tensors.append(numpy_helper.from_array(values > 0, "a truth value"))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "small", [], [], tensors))
    path = tmp_path / "score.onnx"
    outside = {"save_as_external_data": True, "location": WEIGHTS, "size_threshold": 0}
    onnx.save_model(model, str(path), **outside)
    found = MappedWeights().tensors_of(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_a_graph_with_its_weights_inside_has_none_outside(sound: Path) -> None:
    """A bundle without external weights is served as before."""
    assert MappedWeights().tensors_of(sound / "score.onnx") == {}
    guard = Guard.load(sound, threads=1, weights="mapped")
    assert guard.check("the garden").readings == Guard.load(sound, threads=1).check(
        "the garden"
    ).readings  # fmt: skip


@given(data=st.data())
def test_a_malformed_graph_has_no_tensors_or_sound_ones(outside: Path, data: st.DataObject) -> None:
    """Random changes give no error of ours and no view beyond the file."""
    graph = outside.parent / "broken" / "score.onnx"
    graph.parent.mkdir(exist_ok=True)
    (graph.parent / WEIGHTS).write_bytes((outside / WEIGHTS).read_bytes())
    raw = bytearray((outside / "score.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    graph.write_bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))])
    weights = MappedWeights()
    for view in weights.tensors_of(graph).values():
        assert len(view.tobytes()) == view.nbytes  # reads every byte of it
        (whole,) = weights._maps.values()
        assert view.nbytes <= whole.nbytes == (outside / WEIGHTS).stat().st_size


def test_a_graph_that_is_cut_off_is_refused_by_onnxruntime(outside: Path, tmp_path: Path) -> None:
    """The tensor reader leaves the error message to ONNX Runtime."""
    graph = tmp_path / "score.onnx"
    graph.write_bytes((outside / "score.onnx").read_bytes()[:-40])
    assert MappedWeights().tensors_of(graph) == {}
    with pytest.raises(BundleError, match="cannot be loaded by onnxruntime"):
        Session(graph, threads=1, weights=MappedWeights())


def test_mapped_weights_give_the_same_verdicts(outside: Path) -> None:
    """Checks, streams and answers agree with those of packed weights."""
    packed = Guard.load(outside, threads=1)
    mapped = Guard.load(outside, threads=1, weights="mapped")
    for text in ("the garden", LONG):
        _assert_close(packed.check(text).readings, mapped.check(text).readings)
    ends = []
    for guard in (packed, mapped):
        with guard.stream(prompt="the garden") as stream:
            ends.append(stream.push(" was quiet before the rain").readings)
    _assert_close(*ends)
    answers = [
        "".join(e.text for e in guard.generate("the garden", max_new_tokens=4, on_flag="log"))
        for guard in (packed, mapped)
    ]
    assert answers[0] == answers[1]


def _assert_close(one: object, other: object) -> None:
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    assert one.keys() == other.keys()
    for name, reading in one.items():
        assert other[name].score == pytest.approx(reading.score, rel=_SAME, abs=_SAME)


def test_one_map_serves_both_graphs(outside: Path) -> None:
    """The sessions of score and decode graph share the same memory."""
    guard = Guard.load(outside, threads=1, weights="mapped")
    guard.stream(prompt="the garden").close()
    score = guard.backbone.session
    decode = guard.streams.resources.decode_graph._session
    assert score.weights is decode.weights is not None
    assert len(score.weights._maps) == 1


def test_an_unknown_place_for_weights_is_refused(outside: Path) -> None:
    """Only packed and mapped are known."""
    with pytest.raises(InputError, match="weights 'shared'; expected packed or mapped"):
        Guard.load(outside, weights="shared")  # type: ignore[arg-type]


def test_a_pickled_guard_keeps_its_weights_mapped(outside: Path) -> None:
    """So do device and threads."""
    again = pickle.loads(pickle.dumps(Guard.load(outside, threads=1, weights="mapped")))
    assert again.backbone.session.weights is not None


@pytest.mark.parametrize(
    "command",
    [
        ["score", "{bundle}", "the garden"],
        ["doctor", "{bundle}"],
        ["generate", "{bundle}", "the garden", "--max-new-tokens", "1", "--on-flag", "log"],
    ],
)
def test_commands_that_serve_map_the_weights_if_told_to(
    outside: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """With ``--weights mapped`` the guard reads the file's map; without it, packed copies."""
    guards: list[Guard] = []
    load = options.load_guard

    def watched(arguments: Namespace) -> Guard:
        guards.append(load(arguments))
        return guards[-1]

    monkeypatch.setattr(options, "load_guard", watched)
    asked = [part.format(bundle=outside) for part in command]
    for more in (["--weights", "mapped"], []):
        assert main([*asked, "--threads", "1", *more]) in (0, 1)
    mapped, packed = (guard.backbone.session.weights for guard in guards)
    assert mapped is not None
    assert list(mapped._maps) == [WEIGHTS]
    assert packed is None


_FORKED = """
import os, sys
from layerguard.runtime import Guard
path, text = sys.argv[1:]
guard = Guard.load(path, threads=2, weights="mapped")
before = guard.check(text).readings
child = os.fork()
if not child:
    assert guard.check(text).readings == before
    assert guard.stream(prompt="the garden").push(" was quiet").readings
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_forked_process_reads_the_parents_map(outside: Path, tmp_path: Path) -> None:
    """The child opens its graphs with the parent's map."""
    run_script(_FORKED, str(outside), LONG, folder=tmp_path)
