"""The model of the streaming benchmarks: a random Llama of 46 million weights, with detectors.

What a stream costs does not depend on what the weights mean. Model and bundles are kept under
``.cache`` at the repository's root, which git ignores.
"""

import json
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.bench.minilm import CACHE, PROMPTS, run_command
from tests.peers.siren_heads import content_head, write_head
from tests.random_detectors import freeze, make_params

LAYERS, WIDTH, WINDOW, VOCABULARY = 10, 640, 2304, 4096


def model_folder() -> Path:
    """The model as transformers keeps it."""
    folder = CACHE / "stream-model"
    if not (folder / "config.json").is_file():
        import torch  # noqa: PLC0415
        from transformers import (  # noqa: PLC0415
            LlamaConfig,
            LlamaForCausalLM,
            PreTrainedTokenizerFast,
        )

        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=10,
            num_key_value_heads=2, intermediate_size=1728, vocab_size=VOCABULARY,
            max_position_embeddings=WINDOW, tie_word_embeddings=True, pad_token_id=0,
            bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=_tokenizer(), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
        tokenizer.save_pretrained(folder)
        LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


def head_folder() -> Path:
    """A SIREN head for the model in the released format."""
    base = str(model_folder())
    config, tensors = content_head(base, blocks=tuple(range(LAYERS)), width=WIDTH)
    config["inference"]["max_length"] = WINDOW
    return write_head(CACHE / "stream-head", config, tensors)


def siren_bundle() -> Path:
    """A bundle with that head alone."""
    bundle = CACHE / "stream-siren"
    if not (bundle / "detectors.npz").is_file():
        run_command("export", str(model_folder()), "-o", str(bundle), "--template", "{prompt}")
        run_command("import-siren", str(head_folder()), str(bundle))
    return bundle


def full_bundle() -> Path:
    """A bundle with LCF, SIREN and WeightWatch of random parameters; nothing is flagged."""
    folder = CACHE / "stream-full"
    if not (folder / "detectors.npz").is_file():
        freeze(siren_bundle(), folder, make_params(LAYERS, WIDTH))
    return folder


@cache
def pieces(count: int) -> list[str]:
    """A text of about so many tokens, each a piece of its own: what a served model emits."""
    texts = [json.loads(line)["text"] for line in (PROMPTS / "clean.jsonl").open(encoding="utf-8")]
    tokenizer = _tokenizer()
    ids: list[int] = []
    for text in filter(str.isascii, texts):  # so that each token is text by itself
        ids += tokenizer.encode(f" {text}", add_special_tokens=False).ids
    return [tokenizer.decode([i]) for i in ids[:count]]


@cache
def _tokenizer() -> Tokenizer:
    """Byte-level BPE, trained on the project's own prompts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    lines = [path.read_text(encoding="utf-8") for path in sorted(PROMPTS.glob("*.jsonl"))]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer
