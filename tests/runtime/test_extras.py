"""A package that is absent is named, with what installs it."""

import pytest

from layerguard.runtime.errors import MachineError
from layerguard.runtime.extras import needing


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("grpc", "a port needs grpc, which is not installed: pip install 'layerguard[extproc]'"),
        ("grpc.aio", "a port needs grpc, which"),
        (
            "onnxruntime",
            "a port needs onnxruntime, which is not installed: pip install 'layerguard[cpu]'",
        ),
    ],
)
def test_an_absent_package_is_named(missing: str, said: str) -> None:
    """Onnxruntime comes with an extra of its own."""
    with pytest.raises(MachineError) as caught, needing("extproc", "a port"):
        raise ImportError(name=missing)
    assert str(caught.value).startswith(said)


def test_a_module_of_ours_that_is_absent_is_a_fault_of_ours() -> None:
    """No extra installs it."""
    with pytest.raises(ImportError), needing("extproc"):
        raise ImportError(name="layerguard.runtime.nothing")
