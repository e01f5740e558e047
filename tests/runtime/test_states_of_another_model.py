"""States of another model, given to a guard whose only detector reads a few neurons of them."""

from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime import Guard, InputError
from tests.tiny import LAYERS, WIDTH, make_bundle, make_params


@pytest.mark.parametrize("shape", [(LAYERS + 3, WIDTH), (LAYERS + 1, 4 * WIDTH)])
def test_wider_or_deeper_states_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    """SIREN alone could be read from larger states; they are not its model's all the same."""
    params = {"siren": make_params()["siren"]}
    guard = Guard.load(make_bundle(tmp_path / "bundle", params))
    states = np.zeros((shape[0], 5, shape[1]), np.float32)
    with pytest.raises(InputError, match="pass the states of tiny"):
        guard.score_states(states)
