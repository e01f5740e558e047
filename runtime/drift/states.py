"""States of prompts at a checkpoint, read in the same way as at the base model."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.types import Array, Tap

TAP = Tap("prompt", "last")
_CHUNK = 128


def evaluation_states(backbone: Backbone, prompts: Sequence[str], layer: int) -> Array:
    """States of the evaluation prompts, one user turn each, float32 [prompts, hidden].

    Raises:
        InputError: the chat template refuses a chat of one user turn.
    """
    requests = [request(prompt=prompt) for prompt in prompts]
    states: Array = last_token_states(backbone, requests, [layer], "prompts")[:, 0]
    return states


def last_token_states(
    backbone: Backbone, requests: Sequence[Request], layers: Sequence[int], description: str
) -> Array:
    """States of some layers at the last prompt token. Shows a progress bar on a terminal.

    Args:
        backbone: the exported model.
        requests: prompts up to the start of the answer. If a prompt has several windows, the last
            window is used.
        layers: state indices, 0..L (see ``layerguard.runtime.types``).
        description: label of the progress bar.

    Returns:
        float32 [requests, layers, hidden].

    Raises:
        InputError: the chat template refuses a prompt.
    """
    parts = []
    with tqdm(total=len(requests), desc=description, unit="prompt", disable=None) as bar:
        for start in range(0, len(requests), _CHUNK):
            chunk = requests[start : start + _CHUNK]
            states, owner = backbone.read(chunk, {TAP}).of(TAP)
            last = np.flatnonzero(np.diff(owner, append=len(chunk)))
            selected = [states[layer][last].astype(np.float32, copy=False) for layer in layers]
            parts.append(np.stack(selected, axis=1))
            bar.update(len(chunk))
    return np.concatenate(parts)
