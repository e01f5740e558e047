"""``layerguard export-triton``: the files, and that they say what the graph is."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime import Bundle
from layerguard.runtime.cli import main
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.triton.repository import write_repository
from tests.fused.bundles import calibrated
from tests.runtime.tamper import edit_manifest
from tests.runtime.triton import pbtxt

_TYPES = {"bool": "TYPE_BOOL", "int64": "TYPE_INT64", "float64": "TYPE_FP64"}


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused bundle of three detectors that read different tokens; tests must not change it."""
    path = calibrated(tmp_path_factory.mktemp("triton") / "bundle")
    fuse(path, threads=1)
    return path


def _tensors(values: list[onnx.ValueInfoProto]) -> list[tuple[str, str, list[int]]]:
    """Name, Triton's type and dims of a graph's inputs or outputs; -1 is any size."""
    found = []
    for one in values:
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type))
        dims = [side.dim_value or -1 for side in one.type.tensor_type.shape.dim]
        found.append((one.name, _TYPES[kind.name], dims))
    return found


def _configured(cards: list[dict[str, list[object]]]) -> list[tuple[object, object, object]]:
    return [(one["name"][0], one["data_type"][0], one["dims"][0]) for one in cards]


def test_the_configuration_is_that_of_the_graph(fused: Path, tmp_path: Path) -> None:
    """Names, types and dims of all required inputs and all outputs, in order."""
    folder = write_repository(fused, tmp_path, "guard")[1]
    config = pbtxt.parse((folder / "config.pbtxt").read_text(encoding="ascii"))
    model = onnx.load(str(folder / "1" / "model.onnx" / "model.onnx"), load_external_data=False)
    initialised = {item.name for item in model.graph.initializer}
    required = [item for item in model.graph.input if item.name not in initialised]
    assert len(model.graph.input) > len(required), "the thresholds are optional"
    assert _configured(config["input"]) == _tensors(required)
    assert _configured(config["output"]) == _tensors(list(model.graph.output))
    assert config["backend"] == ["onnxruntime"]
    assert config["max_batch_size"] == [0]


def test_the_files_are_those_of_the_bundle(fused: Path, tmp_path: Path) -> None:
    """Two models, with the graph, the weights and the tokenizer, and no more."""
    assert main(["export-triton", str(fused), "-o", str(tmp_path / "new" / "models")]) == 0
    repository = tmp_path / "new" / "models"
    manifest = Bundle.load(fused).manifest
    files = {str(one.relative_to(repository)) for one in repository.rglob("*") if one.is_file()}
    weights = {"bundle_graph/1/model.onnx/weights.data"} & {
        f"bundle_graph/1/model.onnx/{name}" for name in manifest.files
    }
    assert files == {
        "bundle/config.pbtxt", "bundle/1/model.py", "bundle/1/manifest.json",
        "bundle/1/tokenizer.json", "bundle_graph/config.pbtxt",
        "bundle_graph/1/model.onnx/model.onnx", *weights,
    }  # fmt: skip
    graph = (repository / "bundle_graph/1/model.onnx/model.onnx").read_bytes()
    assert graph == (fused / "fused.onnx").read_bytes()
    config = pbtxt.parse((repository / "bundle/config.pbtxt").read_text(encoding="ascii"))
    parameters = {one["key"][0]: one["value"][0]["string_value"][0] for one in config["parameters"]}
    assert parameters["bundle_id"] == Bundle.load(fused).id
    assert float(parameters["lcf_threshold"]) == manifest.detectors["lcf"].threshold
    assert config["dynamic_batching"] == [{}]


def test_the_device_is_where_the_graph_runs(fused: Path, tmp_path: Path) -> None:
    """The Python model is on the CPU in any case."""
    for device, kind in (("cpu", "KIND_CPU"), ("cuda", "KIND_GPU")):
        folders = write_repository(fused, tmp_path, device, "cuda" if device == "cuda" else "cpu")
        texts, graph = (
            pbtxt.parse((folder / "config.pbtxt").read_text(encoding="ascii")) for folder in folders
        )
        assert graph["instance_group"][0]["kind"] == [kind]
        assert texts["instance_group"][0]["kind"] == ["KIND_CPU"]


def test_a_folder_that_exists_is_left_alone(
    fused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the two it is; nothing is written."""
    own = tmp_path / "guard_graph" / "mine"
    own.mkdir(parents=True)
    assert main(["export-triton", str(fused), "-o", str(tmp_path), "--name", "guard"]) == 2
    assert f"{own.parent} exists; expected a new one" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["guard_graph"]
    assert own.is_dir()


def test_a_bundle_that_is_not_fused_is_told_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that fuses it."""
    path = calibrated(tmp_path / "bundle", ["lcf"])
    assert main(["export-triton", str(path), "-o", str(tmp_path / "models")]) == 2
    assert f"run `layerguard fuse {path}` first" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_bundle_of_several_windows_is_refused(tmp_path: Path) -> None:
    """One run of the graph does not decide on the worst window."""
    sliding = calibrated(tmp_path / "bundle", ["lcf"])
    edit_manifest(sliding, lambda manifest: manifest["text"].update(windows="sliding"))
    fuse(sliding, threads=1)
    with pytest.raises(InputError, match="several windows"):
        write_repository(sliding, tmp_path / "models", "guard")


@pytest.mark.parametrize("name", ["", "a/b", "-a", ".a", "a b", "x" * 101, "ä"])
def test_a_name_that_is_no_folder_is_refused(fused: Path, tmp_path: Path, name: str) -> None:
    """Before anything is read."""
    with pytest.raises(InputError, match="expected up to 100 letters"):
        write_repository(fused, tmp_path, name)


def test_a_graph_that_is_not_as_its_card_says_is_refused(tmp_path: Path) -> None:
    """The configuration is of the graph that is there."""
    path = calibrated(tmp_path / "bundle", ["lcf"])
    fuse(path, threads=1)

    def swap(manifest: dict[str, dict[str, dict[str, list[str]]]]) -> None:
        manifest["fused"]["score"]["outputs"].reverse()

    edit_manifest(path, swap)
    with pytest.raises(BundleError, match=r"fused\.onnx has the outputs"):
        write_repository(path, tmp_path / "models", "guard")
    assert not (tmp_path / "models").exists()
