"""How far a masked model's output is from the whole model's: Jensen-Shannon divergence in nats.

JS(P, Q) = (KL(P|M) + KL(Q|M)) / 2 with M = (P + Q) / 2: the divergence, not its square root, the
distance. It lies in [0, ln 2].
"""

import math

import numpy as np

from layerguard.runtime.types import Array

LN_2 = math.log(2)
"""The divergence of two distributions that share no token."""


def js_divergence_nats(log_p: Array, log_q: Array) -> Array:
    """The divergence along the last axis, of float64 log-probabilities that are finite.

    Args:
        log_p: [..., vocabulary].
        log_q: [..., vocabulary], broadcast against ``log_p``.
    """
    middle = np.logaddexp(log_p, log_q) - LN_2
    terms = np.exp(log_p) * (log_p - middle) + np.exp(log_q) * (log_q - middle)
    clipped: Array = np.clip(terms.sum(axis=-1) / 2, 0, LN_2)  # rounding leaves the interval
    return clipped


def layer_robustness(divergence_nats: Array) -> float:
    """1 - mean divergence / ln 2: 1 where no mask changes the output, 0 where each changes all.

    Ours. The paper has a robustness figure of its own (LRS) whose formula is not published in a
    form that we could read; the two must not be compared.

    Args:
        divergence_nats: [L], the mean over prompts for each masked block.
    """
    return float(1 - divergence_nats.mean() / LN_2)
