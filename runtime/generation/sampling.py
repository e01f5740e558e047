"""From logits to the next token: greedy, or drawn at a temperature from the likeliest tokens."""

import math

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array


class Sampler:
    """Draws tokens; the same settings, seed and logits give the same tokens on every machine.

    Attributes:
        greedy: whether the likeliest token is taken every time.
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> None:
        """Settle how tokens are drawn.

        Args:
            temperature: divides the logits; 0 takes the likeliest token every time.
            top_k: draw among the k likeliest tokens; 0 is all of them.
            top_p: draw among the fewest likeliest tokens that hold this share of the
                probability, in (0, 1]; what ``top_k`` leaves is taken as a whole.
            seed: of the draws; None is different every time.

        Raises:
            InputError: a setting is outside its range; every one of them is named.
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
            InputError: they hold NaN, or no finite value: nothing can be drawn from them.
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
    """The tokens that may be drawn, likeliest first, and their probabilities, which sum to 1.

    Args:
        logits: float64 [vocabulary], divided by the temperature; equals keep their order.
        top_k: at most so many tokens; 0 is all.
        top_p: the fewest of these that hold this share of their probability; at least one.
    """
    order: Array = np.argsort(-logits, kind="stable")[: top_k or len(logits)]
    weights = np.exp(logits[order] - logits[order[0]])
    shares = weights / weights.sum()
    before = np.cumsum(shares) - shares
    kept = before < top_p
    kept[0] = True
    return order[kept], shares[kept] / shares[kept].sum()
