"""A service without LayerGuard: a tokenizer, ONNX Runtime, and a bundle's fused graph.

Run as a program: BUNDLE and a file of texts as JSON; prints the answers as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

bundle, texts = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
card, template = manifest["fused"]["score"], manifest["text"]["template"]
tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # what a user types is text
session = onnxruntime.InferenceSession(str(bundle / card["file"]))

answers = []
for text in texts:
    # what a detector reads: the prompt in its template, or the plain content
    views = {
        "prompt": tokenizer.encode(template.replace("{prompt}", text)).ids,
        "conversation": tokenizer.encode(template.replace("{prompt}", text)).ids,
        "content": tokenizer.encode(text).ids,
    }
    rows = [views["prompt"], views["content"]]
    longest = max(map(len, rows))
    feeds = {
        "input_ids": np.array([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "roles": np.ones((2, longest), np.int64),  # a lone prompt is the user's
        "rows": np.zeros((1, 1 + max(card["columns"].values())), np.int64),
    }
    for name, column in card["columns"].items():
        feeds["rows"][0, column] = manifest["detectors"][name]["view"] == "content"
    found = session.run(card["outputs"], {name: feeds[name] for name in card["inputs"]})
    answers.append({k: v.item() for k, v in zip(card["outputs"], found, strict=True)})

strangers = {"layerguard", "onnx", "torch", "transformers"}.intersection(sys.modules)
print(json.dumps({"answers": answers, "strangers": sorted(strangers)}))
