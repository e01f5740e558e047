"""What the runtime is made of, and what it must never load."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from layerguard import runtime

_SOURCES = sorted(Path(runtime.__file__).parent.rglob("*.py"))
_ALLOWED = {
    "numpy",
    "onnxruntime",
    "tokenizers",
    "jinja2",
    "tqdm",
    "packaging",
    "model_signing",
    "layerguard",
}
_OF_ONE_FILE = {
    "kernels.py": {"cffi"},
    "gguf.py": {"gguf"},
    "signing.py": {"cryptography"},
    "parquet.py": {"pyarrow"},
}
"""At build time; where a GGUF or Parquet file is read, which no serving process does; where a key
is read."""

_OF_THE_SERVER = {"starlette", "uvicorn", "uvloop", "prometheus_client"}
"""In the package of ``layerguard serve``, which nothing but its command imports."""

_OF_EXTPROC = {"grpc", "google"}
"""In the server's package ``extproc``, which is imported if the setting asks for it."""

_OF_TRACING = {"opentelemetry"}
"""In its package ``tracing``, likewise."""

_OF_FOLDERS = {
    "server": _OF_THE_SERVER,
    "extproc": _OF_EXTPROC,
    "tracing": _OF_TRACING,
    "triton": {"triton_python_backend_utils"},  # Triton brings it
}
_NEVER = (
    "torch",
    "transformers",
    "sklearn",
    "scipy",
    "optimum",
    "onnx",
    "safetensors",
    "ml_dtypes",
    "yaml",
    "model_signing",
    "gguf",
    "pyarrow",
    "ray",
)


def _loaded(statement: str) -> set[str]:
    """The top-level packages in a clean process after a statement."""
    code = (
        f"import sys; {statement}; import json;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import layerguard.runtime",
        "import layerguard.runtime.cli",
        "import layerguard.runtime.cli.score, layerguard.runtime.cli.doctor",
        "import layerguard.runtime.cli.serve",
        "import layerguard.runtime.triton.texts",
    ],
)
def test_importing_the_runtime_loads_little(statement: str) -> None:
    """No training library, no HTTP server, and onnxruntime only when a graph is opened."""
    assert _loaded(statement).isdisjoint({*_NEVER, *_OF_THE_SERVER, "onnxruntime"})


def test_importing_the_server_loads_no_training_library() -> None:
    """The server needs what a check needs, and its own packages."""
    loaded = _loaded("import layerguard.runtime.server.run")
    assert loaded.isdisjoint({*_NEVER, *_OF_EXTPROC, *_OF_TRACING, "onnxruntime"})
    assert loaded >= _OF_THE_SERVER


def test_serving_loads_no_training_library(sound: Path) -> None:
    """A whole check, from load to verdict, needs none of them either."""
    statement = (
        "from layerguard.runtime import Guard;"
        f"Guard.load({str(sound)!r}, threads=1).check('the garden')"
    )
    loaded = _loaded(statement)
    assert loaded.isdisjoint(_NEVER)
    assert "onnxruntime" in loaded


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: path.name)
def test_sources_import_what_is_allowed(path: Path) -> None:
    """A source imports the standard library, the runtime and its five packages, no more."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = _ALLOWED | _OF_ONE_FILE.get(path.name, set())
    for folder in path.parts:
        allowed = allowed | _OF_FOLDERS.get(folder, set())
    assert _imports(tree) - set(sys.stdlib_module_names) <= allowed
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("layerguard"):
            assert str(node.module).startswith("layerguard.runtime")


def test_the_front_door_is_small() -> None:
    """Sixteen names, all of them there."""
    assert len(runtime.__all__) == 16
    assert all(hasattr(runtime, name) for name in runtime.__all__)
    assert runtime.__all__ == sorted(runtime.__all__)
