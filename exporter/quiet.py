"""Hide log lines and warnings of the conversion libraries during an export.

Only these libraries are affected: the root logger, other loggers and other warnings work as before.
Log levels and, before Python 3.14, warning filters belong to the whole process; a lock therefore
lets one thread at a time change and restore them.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock

_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
"""PyTorch logs that torchvision is absent, onnxscript that it does not fold some constants."""

_MODULES = ("torch", "transformers", "onnxscript", "onnx_ir", "onnxruntime")

_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"The tensor attributes? .* assigned during export", UserWarning),
)
"""Warnings of PyTorch whose stack level names a module of the standard library."""

_LOCK = RLock()
"""Reentrant: a failed conversion is analysed in a second ``quiet`` block inside the first."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hide log lines and warnings of the conversion libraries within the ``with`` block.

    Exceptions pass. A second thread waits until the first has left its block.
    """
    with _LOCK, ExitStack() as stack:
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)  # errors are raised as well
        stack.enter_context(warnings.catch_warnings())
        for name in _MODULES:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        for message, category in _WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        yield
