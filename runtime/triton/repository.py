"""Writes a model repository: the fused graph, and a Python model that tokenises for it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import CHAT_TEMPLATE, MANIFEST, TOKENIZER, WEIGHTS
from layerguard.runtime.bundle.fused import FusedCard
from layerguard.runtime.errors import BundleError, InputError, MachineError
from layerguard.runtime.fused_inputs import token_sources
from layerguard.runtime.model.session import Session
from layerguard.runtime.triton.config import Device, ModelConfig, Tensor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST_TEXTS = 64
"""Texts that Triton may join; the Python model runs texts of similar length together."""
_INSTANCES = 2
"""Of the Python model: one tokenises while the other waits for the graph."""
_MODEL = '''"""Reads texts for the fused graph; `layerguard export-triton` wrote this folder."""

from pathlib import Path

from layerguard.runtime.triton.model import TextModel


class TritonPythonModel(TextModel):
    """The model that Triton runs."""

    folder = Path(__file__).parent
'''


def write_repository(path: Path, repository: Path, name: str, device: Device = "cpu") -> list[Path]:
    """Write the models ``name`` and ``name_graph`` into a model repository.

    Args:
        path: a fused bundle.
        repository: a folder; it is made if there is none.
        name: name of the model that clients ask.
        device: where the graph runs. It is loaded on this machine's CPU in any case.

    Returns:
        The two folders.

    Raises:
        BundleError: the bundle has faults, or its graph is not what its manifest says.
        InputError: the bundle is not fused, the name cannot be used, or a folder exists.
        MachineError: onnxruntime is not installed, or the files cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name {name[:100]!r}; expected up to 100 letters, digits, dots, hyphens and "
            "underscores, and a letter or digit first: choose another --name"
        )
    bundle = Bundle.load(path)
    card = bundle.manifest.fused.get("score")
    if card is None:
        raise InputError(
            f"{path} has no fused graph; expected one: run `layerguard fuse {path}` first"
        )
    if bundle.manifest.text.windows != "head-tail":
        raise InputError(
            f"{path} reads long texts in several windows ({bundle.manifest.text.windows}), which "
            "one run of the fused graph cannot decide on; expected head-tail: export the model "
            "with --windows head-tail, or use `layerguard serve`"
        )
    graph = graph_config(bundle, card, f"{name}_graph", device)
    models = (text_config(bundle, graph, name), graph)
    with _new_folders([repository / model.name for model in models]) as folders:
        for folder, model in zip(folders, models, strict=True):
            (folder / "config.pbtxt").write_text(model.to_text(), encoding="ascii")
        texts, weights = (folder / "1" for folder in folders)
        texts.mkdir()
        (texts / "model.py").write_text(_MODEL, encoding="utf-8")
        for file in (TOKENIZER, CHAT_TEMPLATE):
            if file in bundle.manifest.files:
                (texts / file).write_bytes(bundle.read(file))
        shutil.copyfile(bundle.path / MANIFEST, texts / MANIFEST)
        # a graph of several files is a folder named model.onnx
        (weights / "model.onnx").mkdir(parents=True)
        with bundle.opened(card.file) as opened:
            shutil.copyfile(opened, weights / "model.onnx" / "model.onnx")
            if WEIGHTS in bundle.manifest.files:
                shutil.copyfile(opened.with_name(WEIGHTS), weights / "model.onnx" / WEIGHTS)
    return folders


def graph_config(bundle: Bundle, card: FusedCard, name: str, device: Device) -> ModelConfig:
    """The configuration of the fused graph, from the graph itself.

    Raises:
        BundleError: the graph has other inputs or outputs than the manifest says.
    """
    with bundle.opened(card.file) as opened:
        session = Session(opened, threads=1)
    for what, found, listed in (
        ("inputs", session.inputs, card.inputs), ("outputs", session.outputs, card.outputs)
    ):  # fmt: skip
        if found != listed:
            fault = (
                f"{card.file} has the {what} {', '.join(found)}; its card lists "
                f"{', '.join(listed)}: run `layerguard fuse` again"
            )
            raise BundleError(bundle.path, [fault])
    inputs = [_tensor(one, *session.input_type(one)) for one in session.inputs]
    outputs = [_tensor(one, *session.output_type(one)) for one in session.outputs]
    parameters = {"bundle_id": bundle.id, "opset": str(card.opset)}
    return ModelConfig(name, "onnxruntime", inputs, outputs, device, parameters)


def text_config(bundle: Bundle, graph: ModelConfig, name: str) -> ModelConfig:
    """The configuration of the model that clients ask."""
    sources = len(token_sources(bundle.manifest))
    assert ("rows" in {one.name for one in graph.inputs}) == (sources > 1)
    texts = [Tensor(one, "object", (1,), optional=True) for one in ("text", "request")]
    outputs = [Tensor(one.name, one.dtype, (1,)) for one in graph.outputs]
    outputs += [Tensor("truncated", "bool", (1,)), Tensor("unread", "bool", (1,))]
    detectors = bundle.manifest.detectors.items()
    parameters = {
        "bundle_id": bundle.id,
        "graph": graph.name,
        **{f"{detector}_threshold": repr(card.threshold) for detector, card in detectors},
    }
    return ModelConfig(
        name, "python", texts, outputs, "cpu", parameters, _INSTANCES, max_batch=_MOST_TEXTS
    )


def _tensor(name: str, dtype: object, shape: tuple[int | None, ...]) -> Tensor:
    return Tensor(name, str(dtype), tuple(-1 if size is None else size for size in shape))


@contextmanager
def _new_folders(folders: list[Path]) -> Iterator[list[Path]]:
    """Make folders that do not exist yet; they are removed again if the block fails.

    Raises:
        InputError: one exists.
        MachineError: they cannot be written.
    """
    for folder in folders:
        if folder.exists():
            raise InputError(
                f"{folder} exists; expected a new one: remove it, or choose another --name"
            )
    try:
        try:
            for folder in folders:
                folder.mkdir(parents=True)
            yield folders
        except BaseException:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise MachineError(
            f"{error.filename or folders[0]} cannot be written ({error.strerror}); expected a "
            "writable disk: free some space, or choose another folder"
        ) from error
