"""What does ``layerguard trace`` print on a real chat model, and what does its graph cost?"""

import sys

from tests.bench.bench_commands import run
from tests.bench.harness import REPOSITORY, report
from tests.bench.smollm2 import model_file

_PROMPT = "The capital of France is"


def main() -> None:
    """Export with the analysis graph, trace one prompt, and keep what is printed."""
    bundle = str(REPOSITORY / "build" / "trace")
    command = [sys.executable, "-m", "layerguard.runtime.cli"]
    calls = {
        "export": ["export", str(model_file()), "-o", bundle, "--analysis", "--decode", "no"],
        "trace": ["trace", bundle, _PROMPT],
    }
    rows = [run(name, [*command, *call]) for name, call in calls.items()]
    report("trace", "SmolLM2-135M-Instruct with its analysis graph", rows)


if __name__ == "__main__":
    main()
