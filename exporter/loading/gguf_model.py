"""A language model out of a GGUF file: transformers' configuration and names, float32 weights.

``from_pretrained(gguf_file=...)`` of transformers is not used: it asks for the accelerate package,
and it passes over tensors and settings that it does not know without a word. The weights are
dequantised one tensor at a time, so that the most that is held is the model and one tensor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gguf
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
    """The configuration of the model in a file, every setting of the file in it.

    Raises:
        ExportError: transformers does not read this architecture from GGUF, or a setting of the
            file has no place in its configuration.
    """
    known = transformers_gguf.GGUF_SUPPORTED_ARCHITECTURES
    config: PretrainedConfig = AutoConfig.from_pretrained(
        file.path.parent, gguf_file=file.path.name
    )
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ExportError(
            f"{file.path.name} is of architecture {file.architecture}, in transformers "
            f"{config.model_type}, which has no language-model class; expected one of "
            f"{', '.join(sorted(known))}"
        )
    correct(config, file)
    config.architectures = [_class_name(config.model_type)]
    return config


def read_model(file: GgufFile, config: PretrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The language model in float32, and transformers' loading info.

    Raises:
        ExportError: the file has tensors that the model has no place for.
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
    """Every tensor under the name and in the layout that transformers gives it.

    The processors of transformers undo what llama.cpp's converter did: permuted query and key rows
    of Llama, norms that have 1 added in Gemma, transposed layers of GPT-2. One that takes a tensor
    for itself puts it into ``parsed``.
    """
    processor_class = transformers_gguf.TENSOR_PROCESSORS.get(
        file.architecture, transformers_gguf.TensorProcessor
    )
    processor = processor_class(config=empty.config.to_dict())
    with _one_name_map():
        names = transformers_gguf.get_gguf_hf_weights_map(empty, processor)
    parsed: dict[str, dict[str, Tensor]] = {"tensors": {}}
    unknown: list[str] = []
    for tensor in file.tensors:
        if tensor.name == ROPE_FREQUENCIES:
            continue  # in the configuration already
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
            f"{type(empty).__name__} has no place for, first {unknown[0]}; expected those of its "
            f"{file.architecture} models alone. Export the model in safetensors instead"
        )
    return parsed["tensors"]


@contextmanager
def _one_name_map() -> Iterator[None]:
    """Transformers asks for the same table of names once a module, which takes ten seconds."""
    original = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = cache(original)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = original


def _is_known(tensor: GgufTensor, names: dict[str, str]) -> bool:
    """Whether a processor of transformers takes the tensor: experts go by their stem."""
    stem = tensor.name.removesuffix(".weight")
    return tensor.name in names or stem in names or tensor.name == "output.weight"


def _class_name(model_type: str) -> str:
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    return name if isinstance(name, str) else name[0]
