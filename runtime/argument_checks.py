"""Checks of the arguments of ``Guard``'s methods."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.runtime.bundle.manifest import ModelCard
from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import check_text
from layerguard.runtime.types import Array

_KEYS = ("text", "prompt", "response", "messages", "tools", "domain")
"""Keys of an item of a batch."""


def check_path(path: Any) -> None:
    """Refuse what is no path of a bundle.

    Raises:
        InputError: it is neither a str nor a path.
    """
    if not isinstance(path, (str, os.PathLike)):
        kind = type(path).__name__
        raise InputError(f"path: found {kind}; expected the folder or the name of a bundle")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a value that is neither None nor one of the choices.

    Raises:
        InputError: it is another one.
    """
    if value is not None and value not in choices:
        expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise InputError(f"{name}: found {value!r}; expected {expected}")


def check_keys(arguments: Mapping[Any, Any]) -> None:
    """Refuse an item of a batch with a key that has no meaning.

    Raises:
        InputError: there is one.
    """
    unknown = [ascii(key)[:40] for key in arguments if key not in _KEYS]
    if unknown:
        raise InputError(f"found the key {', '.join(unknown)}; expected only {', '.join(_KEYS)}")


def check_domain(domain: Any) -> None:
    """Refuse a kind of traffic that is neither None nor a text.

    Raises:
        InputError: it is something else.
    """
    if domain is not None:
        check_text("domain", domain)


def check_states(
    arrays: Sequence[Array], roles: Array | None, model: ModelCard, normed: Sequence[str]
) -> None:
    """Refuse states of another model, or states that a detector cannot read.

    Args:
        arrays: L + 1 arrays [tokens, hidden].
        roles: [tokens], or None.
        model: the bundle's model.
        normed: names of the detectors that read the state after the final norm.

    Raises:
        InputError: a shape is wrong, or there are such detectors.
    """
    tokens, width = arrays[0].shape[0], arrays[0].shape[-1]
    if (len(arrays), width) != (model.layers + 1, model.width):
        raise InputError(
            f"states: found {len(arrays)} of width {width}; expected {model.layers + 1} of "
            f"width {model.width}: pass the states of {model.id}"
        )
    if roles is not None and np.shape(roles) != (tokens,):
        raise InputError(
            f"roles: found shape {np.shape(roles)}; expected ({tokens},), one entry per token"
        )
    if normed:
        raise InputError(
            f"{', '.join(normed)} read the state after the final norm; expected detectors that "
            "read the state before it. Check the text instead"
        )
