"""The fit of familiarity: the model, held-out distances, centres by source, thresholds."""

import numpy as np
import pytest
from scipy.linalg import inv

from layerguard.calibration import familiarity
from layerguard.calibration.familiarity.estimation import MOST_DIRECTIONS, train
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError
from tests.calibration.synthetic import clean_states
from tests.reference import familiarity as reference


def test_the_distance_is_that_of_the_maximum_likelihood_model() -> None:
    """Mahalanobis under the covariance of the oracle, at the middle layer."""
    states = clean_states(80, seed=0)
    fitted = train(states)
    assert fitted.params["layer"] == 1
    assert fitted.params["directions"].shape == (8, states.shape[2])
    x = states[:, 1].astype(np.float64)
    mean, covariance = reference.covariance_fit(x, rank=8)
    moved = x - mean
    expected = np.sqrt(np.einsum("ni,ij,nj->n", moved, inv(covariance), moved))
    frozen = [fitted.params[name] for name in ("centres", "scale", "directions")]
    assert reference.scores(x, *frozen) == pytest.approx(expected, rel=1e-4)


def test_held_out_distances_are_those_of_new_rows() -> None:
    """At the threshold of a target, that share of new rows is unfamiliar, and of far rows all."""
    flagged = []
    for draw in range(20):
        params = familiarity.fit(clean_states(100, seed=draw), target_fpr=0.1, seed=draw)
        bound = REGISTRY["familiarity"].bind(params)
        fresh = clean_states(100, seed=1000 + draw)
        flagged += [r.flagged for r in bound.score_pooled(list(fresh.swapaxes(0, 1)))]
        far = bound.score_pooled(list((fresh + 30).swapaxes(0, 1)))
        assert all(reading.flagged for reading in far)
    # 2,000 rows whose threshold varies by draw: a standard deviation of about 0.01
    assert 0.06 < np.mean(flagged) < 0.14


def test_each_source_has_a_centre() -> None:
    """Rows between two far sources are unfamiliar, which one centre for all would call familiar."""
    states = clean_states(200, seed=0)
    sources = ["one" if i % 2 else "other" for i in range(200)]
    states[::2] += 40
    middle = clean_states(20, seed=5) + 20
    layers = list(middle.swapaxes(0, 1))
    with_sources = REGISTRY["familiarity"].bind(familiarity.fit(states, sources, target_fpr=0.05))
    without = REGISTRY["familiarity"].bind(familiarity.fit(states, target_fpr=0.05))
    assert all(reading.flagged for reading in with_sources.score_pooled(layers))
    assert sum(reading.flagged for reading in without.score_pooled(layers)) < 10


def test_groups_stay_together_and_count_once() -> None:
    """Copies of a row are in one fold, so a copy's distance is not that of a row that was seen."""
    states = clean_states(60, seed=0)
    doubled = np.concatenate([states, states])
    groups = [*range(60), *range(60)]
    params = familiarity.fit(doubled, groups=groups, target_fpr=0.1)
    assert len(params["clean_scores"]) == 60
    together = train(doubled, groups=groups).held_out
    assert together[:60] == pytest.approx(together[60:])
    assert together.mean() > train(doubled).held_out.mean()


def test_many_rows_do_not_add_directions_beyond_the_most() -> None:
    """One for each ten rows, up to a fixed number, and fewer than the width."""
    wide = clean_states(500, seed=0, width=80)
    assert len(train(wide).params["directions"]) == MOST_DIRECTIONS
    assert len(train(wide[:9]).params["directions"]) == 0
    assert len(train(clean_states(500, seed=0)).params["directions"]) == 11


def test_one_text_is_refused() -> None:
    """A held-out distance needs two; the message says what to bring."""
    with pytest.raises(CalibrationError, match="found 1 texts; expected at least 2"):
        train(clean_states(3, seed=0), groups=["a", "a", "a"])
