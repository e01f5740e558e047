"""Load a language model from a GGUF file, with transformers' configuration and float32 weights.

transformers' ``from_pretrained(gguf_file=...)`` is not used: it needs the accelerate package and
silently ignores tensors and settings that it does not know. The weights are dequantised one tensor
at a time, so peak memory is the model and one tensor.
"""

from types import SimpleNamespace
from typing import Any

import torch
from optimum.exporters.tasks import TasksManager
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers import modeling_gguf_pytorch_utils as transformers_gguf
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from layerguard.exporter.loading.gguf_config import ROPE_FREQUENCIES, correct
from layerguard.runtime.checkpoints.gguf import GgufFile, GgufTensor
from layerguard.runtime.errors import ExportError


def read_config(file: GgufFile) -> PretrainedConfig:
    """The configuration of the model in a file, with every setting of the file.

    Raises:
        ExportError: transformers cannot read this architecture from GGUF, or its configuration
            lacks a setting of the file.
    """
    known = transformers_gguf.GGUF_SUPPORTED_ARCHITECTURES
    config: PretrainedConfig = AutoConfig.from_pretrained(
        file.path.parent, gguf_file=file.path.name
    )
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ExportError(
            f"{file.path.name} has architecture {file.architecture} ({config.model_type} in "
            f"transformers), which has no language-model class; expected one of "
            f"{', '.join(sorted(known))}"
        )
    correct(config, file)
    config.architectures = [_class_name(config.model_type)]
    return config


def read_model(file: GgufFile, config: PretrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The language model in float32, and transformers' loading info.

    Raises:
        ExportError: the file has tensors that the model lacks.
    """
    kind = TasksManager.get_model_class_for_task(
        "text-generation", framework="pt", model_type=config.model_type
    )
    with torch.device("meta"):
        empty: PreTrainedModel = kind.from_config(config)
    weights = _weights(file, empty)
    model_class: Any = type(empty)
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
    )
    return model, info


def _weights(file: GgufFile, empty: PreTrainedModel) -> dict[str, Tensor]:
    """Every tensor with its name and layout in transformers.

    transformers' processors invert the changes of llama.cpp's converter: permuted query and key
    rows of Llama, norms plus 1 in Gemma, transposed layers of GPT-2. A processor that handles a
    tensor completely writes it to ``parsed`` itself.
    """
    processor_class = transformers_gguf.TENSOR_PROCESSORS.get(
        file.architecture, transformers_gguf.TensorProcessor
    )
    processor = processor_class(config=empty.config.to_dict())
    names = _tensor_names(empty, processor)
    parsed: dict[str, dict[str, Tensor]] = {"tensors": {}}
    unknown: list[str] = []
    for tensor in file.tensors:
        if tensor.name == ROPE_FREQUENCIES:
            continue  # part of the configuration
        if not _is_known(tensor, names):
            unknown.append(tensor.name)
            continue
        result = processor.process(
            weights=tensor.read(),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters=parsed,
        )
        if result.name is not None:
            parsed["tensors"][names[result.name]] = torch.from_numpy(result.weights.copy())
    if unknown:
        raise ExportError(
            f"{file.path.name} has {len(unknown)} tensors that transformers' "
            f"{type(empty).__name__} lacks, first {unknown[0]}; expected only tensors of "
            f"{file.architecture} models that it has. Export the model in safetensors instead"
        )
    return parsed["tensors"]


def _tensor_names(model: PreTrainedModel, processor: Any) -> dict[str, str]:
    """Names in transformers by names in the file.

    transformers searches every submodule and rebuilds gguf's table of names for each, which takes
    ten seconds. All names are found in the model and its direct children, so only these are shown.
    """

    def without_submodules(module: Any) -> Any:
        return SimpleNamespace(state_dict=module.state_dict, named_children=dict)

    children = [(name, without_submodules(child)) for name, child in model.named_children()]
    shown = SimpleNamespace(
        config=model.config, state_dict=model.state_dict, named_children=lambda: children
    )
    names: dict[str, str] = transformers_gguf.get_gguf_hf_weights_map(shown, processor)
    return names


def _is_known(tensor: GgufTensor, names: dict[str, str]) -> bool:
    """Whether a processor of transformers handles the tensor; experts are listed by their stem."""
    stem = tensor.name.removesuffix(".weight")
    return tensor.name in names or stem in names or tensor.name == "output.weight"


def _class_name(model_type: str) -> str:
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    return name if isinstance(name, str) else name[0]
