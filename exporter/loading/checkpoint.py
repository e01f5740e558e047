"""A model by folder, GGUF file or hub id: its backbone in float32, its head, name and revision."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from layerguard.exporter.loading import adapter, gguf_model
from layerguard.runtime.bundle.files import card_of
from layerguard.runtime.checkpoints.gguf import GgufFile, find_gguf, read_gguf
from layerguard.runtime.checkpoints.json_object import read_json
from layerguard.runtime.errors import ExportError, InputError

_WEIGHTS = (".safetensors", ".bin")
_SCALE = re.compile(
    r"\.((weight|input|output|[qkv])_scale(_inv|_\d)?|scales?|q?zeros|qweight|g_idx|SCB|absmax|"
    r"weight_(packed|shape|zero_point)|quant_\w+|\w*zero_point)$"
)
"""Names of what quantisers store beside, or instead of, a weight."""
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        name: a folder, a GGUF file, or a hub id.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the model.
        adapter: folder of a LoRA adapter to merge into the weights.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one."""
        path = Path(self.name)
        return path if path.is_dir() else None

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, where it is one or a folder that holds one.

        Raises:
            ExportError: the folder holds several.
        """
        try:
            return find_gguf(Path(self.name))
        except InputError as error:
            raise ExportError(str(error)) from error

    @property
    def label(self) -> str:
        """The hub id, or the name of the folder or the GGUF file; ``+`` the adapter's.

        Never a path of this machine. A GGUF file goes by its own name, which tells the
        quantisation; its ``general.name`` is seldom that of the model.
        """
        if self.gguf is not None:
            model = self.gguf.stem
        else:
            model = self.name if self.folder is None else self.folder.resolve().name
        return model if self.adapter is None else f"{model}+{self.adapter.resolve().name}"

    def arguments(self) -> dict[str, Any]:
        """What every ``from_pretrained`` takes beside the name."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A backbone and its origin.

    Attributes:
        model: eval mode, float32, no head; the text part where the checkpoint has several.
        causal: the language model that ``model`` is the backbone of, the very same module; None
            where the checkpoint holds no language-model head, or towers beside the text part.
        revision: the hub's commit, or a sha256 over configuration and weights of a folder; with an
            adapter, ``+`` the sha256 of that. The sha256 of the file itself where it is a GGUF.
        quantisation: block types of a GGUF's tensors, the one of most weights first; else empty.
        missing: its parameters that the checkpoint lacks and that were therefore made at random.
    """

    model: PreTrainedModel
    causal: PreTrainedModel | None
    revision: str
    missing: frozenset[str]
    quantisation: str = ""


def load(source: Source) -> Loaded:
    """Load a model, with its language-model head where it has one, and merge the adapter.

    Raises:
        ExportError: there is no such model, it is none that transformers can load, or the adapter
            is none for it.
    """
    file = gguf_file(source)
    try:
        config = _config(source, file)
        if file is None:
            model, info = _pretrained(source, config)
        else:
            model, info = gguf_model.read_model(file, config)
    except ExportError:
        raise
    except Exception as error:  # transformers raises whatever its parts raise, NameError among it
        raise ExportError(_failure(source, error)) from error
    _check_stored(source, config, model, info)
    model.eval()
    text = _backbone(source, model) if _has_head(config) else _text_part(model)
    if source.adapter is not None:
        adapter.merge(model, model.base_model_prefix, source.adapter)
    if getattr(text.config, "attn_logit_softcapping", None) is not None:
        text.set_attn_implementation("eager")  # fused attention leaves the cap out
    # by tensor, not by name: the text part calls its parameters otherwise than the whole
    made_up = {id(p) for name, p in model.named_parameters() if name in info["missing_keys"]}
    missing = frozenset(name for name, p in text.named_parameters() if id(p) in made_up)
    return Loaded(
        model=text,
        causal=model if _has_head(config) and len(made_up) == len(missing) else None,
        revision=_revision(source, config),
        missing=missing,
        quantisation="" if file is None else file.quantisation,
    )


def gguf_file(source: Source) -> GgufFile | None:
    """The header of the GGUF file that the source is; None where it is none.

    Raises:
        ExportError: the file cannot be read, is damaged, or is one of several in the folder.
    """
    try:
        return None if source.gguf is None else read_gguf(source.gguf)
    except InputError as error:
        raise ExportError(str(error)) from error


def _config(source: Source, file: GgufFile | None) -> PretrainedConfig:
    """The configuration of one stack of blocks."""
    config: PretrainedConfig
    if file is None:
        config = AutoConfig.from_pretrained(source.name, **source.arguments())
    else:
        config = gguf_model.read_config(file)
    if config.is_encoder_decoder:
        raise ExportError(
            f"{source.label} is an encoder-decoder ({config.model_type}); expected one stack "
            "of blocks, an encoder or a decoder. Save its encoder as a model of its own"
        )
    return config


def _pretrained(source: Source, config: PretrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model that ``from_pretrained`` makes of a folder or hub id, and its loading info."""
    task = "text-generation" if _has_head(config) else "feature-extraction"
    # optimum knows the model types whose bare backbone AutoModel does not give
    kind = TasksManager.get_model_class_for_task(task, framework="pt", model_type=config.model_type)
    model, info = kind.from_pretrained(
        source.name,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        **source.arguments(),
    )
    return model, info


def _has_head(config: PretrainedConfig) -> bool:
    """Whether the checkpoint was saved from a language model that reads text alone."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return config.get_text_config(decoder=True) is config and any(
        name in known for name in config.architectures or ()
    )


def _backbone(source: Source, model: PreTrainedModel) -> PreTrainedModel:
    """The part of a language model below its head."""
    base: object = model.base_model
    if base is model:  # the class names another attribute than the one it has
        base = getattr(model, "model", model)
    if base is model or not isinstance(base, PreTrainedModel):
        raise ExportError(
            f"{source.label}: {type(model).__name__} does not tell its backbone from its head; "
            "expected a language model with a backbone of its own. Save the backbone alone"
        )
    return base


def _check_stored(
    source: Source, config: PretrainedConfig, model: PreTrainedModel, info: dict[str, Any]
) -> None:
    """Quantised weights must not be taken for plain ones, nor their scales be left behind.

    Raises:
        ExportError: the model has no place for the scales, or keeps its weights quantised.
    """
    scales = sorted(key for key in info["unexpected_keys"] if _SCALE.search(key))
    kept = sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32})
    if not scales and not kept:
        return
    method = _quantisation_method(config)
    if scales:
        found = f"has {len(scales)} scales that {type(model).__name__} drops, first {scales[0]}"
    else:
        found = f"keeps weights in {', '.join(kept)}"
    raise ExportError(
        f"{source.label} is quantised{method} and {found}; expected plain weights. Export the "
        "model that it was quantised from"
    )


def _quantisation_method(config: PretrainedConfig) -> str:
    """By what a checkpoint was quantised, as its configuration says it: `` by gptq``."""
    settings = getattr(config, "quantization_config", None)
    if settings is not None and not isinstance(settings, dict):
        settings = settings.to_dict()
    return f" by {str(settings.get('quant_method', 'an unknown method'))[:40]}" if settings else ""


def _text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The decoder that reads text, where the model has towers for images or sound as well."""
    config: PretrainedConfig = model.config
    if config.get_text_config(decoder=True) is config:
        return model
    text: PreTrainedModel = model.get_decoder()
    return text


def _failure(source: Source, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    found = f"{source.label} cannot be loaded ({type(error).__name__}: {lines[0]})"
    quantised = _quantised_by(source.folder)
    if quantised:
        return (
            f"{found}; its weights are quantised by {quantised}, expected plain ones. Export the "
            "model that it was quantised from"
        )
    if "trust_remote_code" in str(error):
        return (
            f"{found}; read the code that comes with it, and if you trust it add "
            "--trust-remote-code"
        )
    if source.gguf is not None:
        return f"{found}; expected a language model's GGUF file that transformers reads"
    if source.folder is None and not _HUB_ID.fullmatch(source.name):
        return (
            f"{source.name}: no such folder; expected one with config.json and weights, or a GGUF "
            "file"
        )
    if source.folder is None:
        return f"{found}; expected a hub id, or a folder with config.json and weights"
    return (
        f"{found}; found {_library(source.folder)}, expected config.json and weights of a text "
        "model as save_pretrained of transformers writes them"
    )


def _quantised_by(folder: Path | None) -> str | None:
    """The method in a folder's config.json, where that says that it is quantised."""
    try:
        settings = read_json(folder / "config.json").get("quantization_config") if folder else None
    except InputError:
        return None
    return str(settings.get("quant_method"))[:40] if isinstance(settings, dict) else None


def _library(folder: Path) -> str:
    """What a folder holds, as far as optimum can tell: transformers, diffusers, timm, ..."""
    try:
        return f"files of {TasksManager.infer_library_from_model(str(folder))}"
    except (OSError, ValueError, KeyError):
        return "no config.json"


def _revision(source: Source, config: PretrainedConfig) -> str:
    """The hub's commit or the fingerprint of folder or file, ``+`` the adapter's."""
    commit = getattr(config, "_commit_hash", None)
    if source.gguf is not None:
        parts = [card_of(source.gguf).sha256]
    else:
        parts = [commit or (_fingerprint(source.folder) if source.folder else "unknown")]
    if source.adapter is not None:
        parts.append(_fingerprint(source.adapter))
    return "+".join(parts)


def _fingerprint(folder: Path) -> str:
    """sha256 over configuration and weights, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in ("config.json", adapter.CONFIG) or path.suffix in _WEIGHTS:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
