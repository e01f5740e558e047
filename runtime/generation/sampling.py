"""Token sampling: greedy, or with temperature, top-k and top-p."""

import math

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array


class Sampler:
    """Samples tokens. The same settings, seed and logits give the same tokens on every machine.

    Attributes:
        greedy: whether the most likely token is always taken.
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> None:
        """Check and store the settings.

        Args:
            temperature: divides the logits; 0 always takes the most likely token.
            top_k: sample from the k most likely tokens; 0 means all tokens.
            top_p: sample from the smallest set of most likely tokens whose probability, after
                ``top_k`` and renormalisation, is at least this value, in (0, 1].
            seed: seed of the random generator; None gives different tokens every time.

        Raises:
            InputError: settings are outside their range; the message names all of them.
        """
        whole = isinstance(top_k, int) and top_k >= 0
        faults = [
            f"{name} {value!r}; expected {expected}"
            for name, value, good, expected in (
                ("temperature", temperature, math.isfinite(temperature) and temperature >= 0,
                 "a number of 0 or more"),
                ("top_k", top_k, whole, "a whole number of 0 or more"),
                ("top_p", top_p, 0 < top_p <= 1, "a share above 0, at most 1"),
                ("seed", seed, seed is None or (isinstance(seed, int) and seed >= 0),
                 "a whole number of 0 or more, or None"),
            )
            if not good
        ]  # fmt: skip
        if faults:
            raise InputError(f"sampling: {'; '.join(faults)}")
        self.greedy = temperature == 0
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._random = np.random.default_rng(seed)

    def draw(self, logits: Array) -> int:
        """The next token.

        Args:
            logits: floats [vocabulary], finite or minus infinity.

        Raises:
            InputError: the logits contain NaN, or no finite value.
        """
        values = np.asarray(logits, dtype=np.float64)
        if np.isnan(values).any() or not np.isfinite(values.max(initial=-np.inf)):
            raise InputError(
                "found logits that are not finite; expected finite ones. Export the model in "
                "float32 if float16 overflows"
            )
        if self.greedy:
            return int(values.argmax())
        tokens, shares = likeliest(values / self._temperature, self._top_k, self._top_p)
        place = int(np.searchsorted(np.cumsum(shares), self._random.random(), side="right"))
        return int(tokens[min(place, len(tokens) - 1)])


def likeliest(logits: Array, top_k: int, top_p: float) -> tuple[Array, Array]:
    """The candidate tokens, most likely first, and their probabilities, which sum to 1.

    Args:
        logits: float64 [vocabulary], divided by the temperature. Equal logits keep their order.
        top_k: most candidates; 0 means all tokens.
        top_p: of these, the smallest set whose probability is at least this value; at least one
            token.
    """
    order: Array = np.argsort(-logits, kind="stable")[: top_k or len(logits)]
    weights = np.exp(logits[order] - logits[order[0]])
    shares = weights / weights.sum()
    before = np.cumsum(shares) - shares
    kept = before < top_p
    kept[0] = True
    return order[kept], shares[kept] / shares[kept].sum()
