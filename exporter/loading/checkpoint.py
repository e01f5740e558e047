"""Load a folder, GGUF file or hub id: the backbone in float32, its head and its revision."""

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
from layerguard.exporter.loading.changes import Change, changes_between
from layerguard.exporter.loading.source import ModelSource
from layerguard.runtime.bundle.files import card_of
from layerguard.runtime.checkpoints.gguf import GgufFile
from layerguard.runtime.checkpoints.json_object import read_json
from layerguard.runtime.errors import ExportError, InputError

_WEIGHTS = (".safetensors", ".bin")
_SCALE = re.compile(
    r"\.((weight|input|output|[qkv])_scale(_inv|_\d)?|scales?|q?zeros|qweight|g_idx|SCB|absmax|"
    r"weight_(packed|shape|zero_point)|quant_\w+|\w*zero_point)$"
)
"""Names of tensors that quantisers store beside, or instead of, a weight."""
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A loaded model.

    Attributes:
        model: the backbone in eval mode and float32; the text part of a multimodal checkpoint.
        causal: the language model whose backbone is ``model`` (the same module); None if the
            checkpoint has no language-model head, or is multimodal.
        revision: the hub's commit, the sha256 of a GGUF file, or a sha256 over configuration and
            weights of a folder; with an adapter, followed by ``+`` and the sha256 of the adapter.
        missing: parameters of ``model`` that the checkpoint lacks, initialised at random.
        quantisation: block types of a GGUF file's tensors, by descending share of the weights;
            else empty.
        changes: what tuning changed, for a model with an adapter or a base.
    """

    model: PreTrainedModel
    causal: PreTrainedModel | None
    revision: str
    missing: frozenset[str]
    quantisation: str = ""
    changes: tuple[Change, ...] = ()


def load(source: ModelSource) -> LoadedModel:
    """Load a model, with its language-model head if it has one, and merge the adapter.

    Raises:
        ExportError: the model does not exist, transformers cannot load it, or the adapter does not
            fit it.
    """
    file = source.read_gguf()
    try:
        config = _config(source, file)
        if file is None:
            model, info = _pretrained(source, config)
        else:
            model, info = gguf_model.read_model(file, config)
    except ExportError:
        raise
    except Exception as error:  # transformers raises any type, such as NameError
        raise ExportError(_failure(source, error)) from error
    _check_stored(source, config, model, info)
    model.eval()
    text = _backbone(source, model) if _has_head(config) else _text_part(model)
    changes: tuple[Change, ...] = ()
    if source.adapter is not None:
        changes = adapter.merge(model, model.base_model_prefix, source.adapter)
    elif source.base is not None:
        base = ModelSource(source.base, trust_remote_code=source.trust_remote_code)
        changes = changes_between(text, load(base).model)
    if getattr(text.config, "attn_logit_softcapping", None) is not None:
        text.set_attn_implementation("eager")  # fused attention ignores the soft-cap
    # by tensor, because the text part has other names for its parameters than the whole model
    initialised = {id(p) for name, p in model.named_parameters() if name in info["missing_keys"]}
    missing = frozenset(name for name, p in text.named_parameters() if id(p) in initialised)
    return LoadedModel(
        model=text,
        causal=model if _has_head(config) and len(initialised) == len(missing) else None,
        revision=_revision(source, config),
        missing=missing,
        quantisation="" if file is None else file.quantisation,
        changes=changes,
    )


def _config(source: ModelSource, file: GgufFile | None) -> PretrainedConfig:
    """The configuration of a model with one stack of blocks."""
    config: PretrainedConfig
    if file is None:
        config = AutoConfig.from_pretrained(source.name, **source.arguments())
    else:
        config = gguf_model.read_config(file)
    if config.is_encoder_decoder:
        raise ExportError(
            f"{source.label} is an encoder-decoder ({config.model_type}); expected one stack "
            "of blocks, an encoder or a decoder. Save the encoder as a separate model"
        )
    return config


def _pretrained(
    source: ModelSource, config: PretrainedConfig
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of a folder or hub id, and transformers' loading info."""
    task = "text-generation" if _has_head(config) else "feature-extraction"
    # optimum knows the model types for which AutoModel returns no bare backbone
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
    """Whether the checkpoint was saved from a language model whose only input is text."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return config.get_text_config(decoder=True) is config and any(
        name in known for name in config.architectures or ()
    )


def _backbone(source: ModelSource, model: PreTrainedModel) -> PreTrainedModel:
    """The part of a language model without its head."""
    base: object = model.base_model
    if base is model:  # base_model_prefix names an attribute that does not exist
        base = getattr(model, "model", model)
    if base is model or not isinstance(base, PreTrainedModel):
        raise ExportError(
            f"{source.label}: {type(model).__name__} does not separate its backbone from its head; "
            "expected a language model with a backbone as a submodule. Save the backbone alone"
        )
    return base


def _check_stored(
    source: ModelSource, config: PretrainedConfig, model: PreTrainedModel, info: dict[str, Any]
) -> None:
    """Refuse quantised checkpoints.

    Raises:
        ExportError: the model would ignore the scales of its weights, or keeps its weights
            quantised.
    """
    scales = sorted(key for key in info["unexpected_keys"] if _SCALE.search(key))
    kept = sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32})
    if not scales and not kept:
        return
    method = _quantisation_method(config)
    if scales:
        detail = f"has {len(scales)} scales that {type(model).__name__} drops, first {scales[0]}"
    else:
        detail = f"keeps weights in {', '.join(kept)}"
    raise ExportError(
        f"{source.label} is quantised{method} and {detail}; expected plain weights. Export the "
        "model before quantisation"
    )


def _quantisation_method(config: PretrainedConfig) -> str:
    """The quantisation method in the configuration, as `` by gptq``; empty if there is none."""
    settings = getattr(config, "quantization_config", None)
    if settings is not None and not isinstance(settings, dict):
        settings = settings.to_dict()
    return f" by {str(settings.get('quant_method', 'an unknown method'))[:40]}" if settings else ""


def _text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The text decoder of a multimodal model; any other model itself."""
    config: PretrainedConfig = model.config
    if config.get_text_config(decoder=True) is config:
        return model
    text: PreTrainedModel = model.get_decoder()
    return text


def _failure(source: ModelSource, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    failure = f"{source.label} cannot be loaded ({type(error).__name__}: {lines[0]})"
    quantised = _quantised_by(source.folder)
    if quantised:
        return (
            f"{failure}; its weights are quantised by {quantised}, expected plain ones. Export the "
            "model before quantisation"
        )
    if "trust_remote_code" in str(error):
        return (
            f"{failure}; read the code in its repository, and if you trust it add "
            "--trust-remote-code"
        )
    if source.gguf is not None:
        return f"{failure}; expected a GGUF file of a language model that transformers can read"
    if source.folder is None and not _HUB_ID.fullmatch(source.name):
        return (
            f"{source.name}: no such folder; expected one with config.json and weights, or a GGUF "
            "file"
        )
    if source.folder is None:
        return f"{failure}; expected a hub id, or a folder with config.json and weights"
    return (
        f"{failure}; found {_library(source.folder)}, expected config.json and weights of a text "
        "model as save_pretrained of transformers writes them"
    )


def _quantised_by(folder: Path | None) -> str | None:
    """The quantisation method in a folder's config.json; None if there is none."""
    try:
        settings = read_json(folder / "config.json").get("quantization_config") if folder else None
    except InputError:
        return None
    return str(settings.get("quant_method"))[:40] if isinstance(settings, dict) else None


def _library(folder: Path) -> str:
    """The library of a folder's files, detected by optimum: transformers, diffusers, timm, ..."""
    try:
        return f"files of {TasksManager.infer_library_from_model(str(folder))}"
    except (OSError, ValueError, KeyError):
        return "no config.json"


def _revision(source: ModelSource, config: PretrainedConfig) -> str:
    """The hub's commit or the fingerprint of the files, and ``+`` that of the adapter if any."""
    commit = getattr(config, "_commit_hash", None)
    if source.gguf is not None:
        parts = [card_of(source.gguf).sha256]
    else:
        parts = [commit or (_fingerprint(source.folder) if source.folder else "unknown")]
    if source.adapter is not None:
        parts.append(_fingerprint(source.adapter))
    return "+".join(parts)


def _fingerprint(folder: Path) -> str:
    """sha256 over names and content of configuration and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in ("config.json", adapter.CONFIG) or path.suffix in _WEIGHTS:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
