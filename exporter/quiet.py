"""Silence for libraries that talk about themselves while they work for us."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# torch notes the absence of torchvision; the quantiser, through the root logger, a step that graphs
# with known shapes do not need
_TALKATIVE = ("", "torch.onnx", "torch.export", "torch.fx")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings and log lines below an error; exceptions pass."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
