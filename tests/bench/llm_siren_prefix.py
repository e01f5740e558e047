"""Scores prefixes with llm-siren; run by a Python that has it, with a head's folder as argument.

Reads one text as JSON a line from standard input; writes its score as JSON a line.
"""

import json
import sys

import torch
from siren_guard import SirenGuard


def main() -> None:
    guard = SirenGuard.from_pretrained(sys.argv[1], device="cpu", dtype=torch.float32)
    for line in sys.stdin:
        print(json.dumps(float(guard.score_streaming(json.loads(line)).score)), flush=True)


if __name__ == "__main__":
    main()
