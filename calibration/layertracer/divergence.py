"""Jensen-Shannon divergence, in nats, of a masked model's output from the full model's.

JS(P, Q) = (KL(P|M) + KL(Q|M)) / 2 with M = (P + Q) / 2, in [0, ln 2]. This is the divergence, not
its square root, the distance.
"""

import math

import numpy as np

from layerguard.runtime.types import Array

LN_2 = math.log(2)
"""The divergence of two distributions that have no common token."""


def js_divergence_nats(log_p: Array, log_q: Array) -> Array:
    """The divergence along the last axis of finite log-probabilities, float64.

    Args:
        log_p: [..., vocabulary].
        log_q: [..., vocabulary], broadcast against ``log_p``.
    """
    middle = np.logaddexp(log_p, log_q) - LN_2
    terms = np.exp(log_p) * (log_p - middle) + np.exp(log_q) * (log_q - middle)
    clipped: Array = np.clip(terms.sum(axis=-1) / 2, 0, LN_2)  # corrects rounding
    return clipped


def layer_robustness(divergence_nats: Array) -> float:
    """1 - mean divergence / ln 2: 1 if no mask changes the output, 0 if each changes it fully.

    A definition of this project. The paper's robustness score (LRS) has another formula, which we
    could not read; do not compare the two.

    Args:
        divergence_nats: [L], the mean over prompts for each masked block.
    """
    return float(1 - divergence_nats.mean() / LN_2)
