"""What does guarding an answer cost a token, against the bare decode loop over the same graph?

A random Llama of 46 million weights in float32, greedy, one prompt. The bare loop asks ONNX Runtime
for logits, keys and values alone, and keeps them as the guard does. The other peer is transformers'
``generate`` with its own cache. SIREN reads the plain text, whose tokens are not the chat's: a
second pass a token.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from onnxruntime import InferenceSession, SessionOptions
from transformers import AutoModelForCausalLM

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.streaming.cache import KeyValueCache
from layerguard.runtime.types import Array
from tests.bench.harness import measure, report
from tests.bench.minilm import CACHE
from tests.bench.streams import LAYERS, WIDTH, model_folder, pieces, siren_bundle
from tests.random_detectors import freeze, make_params

_NEW, _PROMPT, _ROUNDS = 64, 100, 9
_SETS = (("lcf",), ("lcf", "weightwatch"), ("lcf", "weightwatch", "siren"))


def main() -> None:
    prompt = "".join(pieces(_PROMPT))
    guards = {" ".join(names): Guard.load(_bundle(names)) for names in _SETS}
    ids = _ids(guards["lcf"], prompt)
    bare = _bare(siren_bundle(), ids)
    contenders: dict[str, Callable[[], object]] = {
        "bare loop": bare,
        "transformers": _transformers(ids),
        **{name: _guarded(guard, prompt) for name, guard in guards.items()},
    }
    expected = bare()
    for name, call in contenders.items():
        if call() != expected:
            raise SystemExit(f"{name} makes other tokens than the bare loop")
    seconds = measure(contenders, rounds=_ROUNDS)
    rows = [
        {
            "what": name,
            "ms a token": 1e3 * found / _NEW,
            "over the bare loop, ms a token": 1e3 * (found - seconds["bare loop"]) / _NEW,
            "ratio to the bare loop": found / seconds["bare loop"],
        }
        for name, found in seconds.items()
    ]
    question = f"Guarded answers: {_NEW} greedy tokens after a prompt of {len(ids)} (46 M weights)"
    report("generate", question, rows)


def _bundle(names: tuple[str, ...]) -> Path:
    folder = CACHE / "-".join(["generate", *names])
    if not (folder / "detectors.npz").is_file():
        params = make_params(LAYERS, WIDTH)
        freeze(siren_bundle(), folder, {name: params[name] for name in names})
    return folder


def _ids(guard: Guard, prompt: str) -> list[int]:
    """The prompt's tokens as the guard reads them."""
    found = guard.stream(prompt=prompt).conversation
    assert found is not None
    return list(found.sequence.ids)


def _guarded(guard: Guard, prompt: str) -> Callable[[], list[int]]:
    def generate() -> list[int]:
        events = guard.generate(prompt, max_new_tokens=_NEW, on_flag="log")
        return [event.token_id for event in events if event.token_id is not None]

    return generate


def _bare(folder: Path, prompt: list[int]) -> Callable[[], list[int]]:
    options = SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    card = Bundle.load(folder).manifest.graphs["decode"]
    session = InferenceSession(str(folder / card.file), options, ["CPUExecutionProvider"])
    past = [item for item in session.get_inputs() if item.name.startswith("past_")]
    layout = {item.name: (item.shape[1], item.shape[3], np.dtype(np.float32)) for item in past}
    named = {(output.kind, output.layer): output.name for output in card.outputs}
    blocks = range(1, LAYERS + 1)
    wanted = [named[kind, block] for block in blocks for kind in ("key", "value")]
    wanted += [output.name for output in card.outputs if output.kind == "logits"]
    inert = np.zeros((LAYERS, 1, WIDTH), np.float32)

    def generate() -> list[int]:
        cache, ids, made = KeyValueCache(layout), prompt, []
        for _ in range(_NEW):
            tokens: Array = np.array([ids], np.int64)
            feeds = {"input_ids": tokens, "attention_mask": cache.mask(len(ids)), "steering": inert}
            *values, logits = session.run(wanted, {**feeds, **cache.feeds})
            cache.append(values)
            ids = [int(logits[0].argmax())]
            made += ids
        return made

    return generate


def _transformers(prompt: list[int]) -> Callable[[], list[int]]:
    model = AutoModelForCausalLM.from_pretrained(model_folder()).eval()
    ids = torch.tensor([prompt])

    def generate() -> list[int]:
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=_NEW,
                min_new_tokens=_NEW,
                do_sample=False,
            )
        found: list[int] = made[0, len(prompt) :].tolist()
        return found

    return generate


if __name__ == "__main__":
    main()
