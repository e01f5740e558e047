"""Calibrate SIREN: choose neurons that respond to harmful text, and train a network on them.

"LLM Safety From Within", arXiv 2604.18519; ``docs/detectors/siren.md``. Sparse probes choose
neurons (``probes``), and a network reads them (``network``). Cross-validation that keeps groups
together makes every choice, and holds out whole sources where rows have them. The threshold comes
from held-out scores of clean rows: neurons and network were fitted without the row and its source.

Differences from the publication: features are standardised after the layer weights, so the weights
no longer attenuate layers (measured +0.5 macro-F1). The network's settings come from a small seeded
grid instead of 32 Optuna trials. AUROC compares them instead of macro-F1 at 0.5: a guard uses a
calibrated threshold, and noise dominates the differences of F1 even over thousands of rows.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.calibration.rows.folds import Groups, group_codes, group_maxima
from layerguard.calibration.rows.source_folds import grouped_folds, source_folds
from layerguard.calibration.rows.stratified import check_counts
from layerguard.calibration.siren.network import HIDDEN, MEMBERS, Committee, Head
from layerguard.calibration.siren.probes import Selection, select
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.calibration.threads import one_thread
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import conformal_threshold
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

FOLDS = 5

DECAYS = (0.003, 0.01, 0.03)
"""Candidate weight decays of the network."""

EPOCHS = (8, 16, 32)
"""Candidate numbers of training epochs, ascending."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """Settings of the network, and the held-out harm probability of every row, float64 [n]."""

    decay: float
    epochs: int
    held_out: Array
    folds: int


def fit(
    states: Array | States,
    labels: Array,
    groups: Groups = None,
    eta: float = 0.9,
    seed: int = 0,
    target_fpr: float = DEFAULT_TARGET_FPR,
    sources: Groups = None,
) -> dict[str, Array]:
    """Train SIREN on the hidden states of labelled texts, and set its threshold.

    The score is the probability of harm, 0 to 1; with the mean state x_l of layer l it is

        score = softmax(W_1 max(0, W_0 concat_l(alpha_l x_l[neurons_l]) + b_0) + b_1)[1].

    Args:
        states: float32 [n, L + 1, hidden], the hidden states of each of n rows, averaged over its
            tokens: an array, which may be an ``np.memmap``, or ``States`` read in blocks.
        labels: integers [n], 0 clean or 1 harmful.
        groups: n labels; rows with equal labels (windows of one text, paraphrases) stay in one
            fold, and their clean rows count as one text with its largest score. None: every row
            is a group.
        eta: share of each probe's absolute weight that the chosen neurons hold, in (0, 1].
        seed: random seed of folds, solvers and networks.
        target_fpr: share of clean texts that may be flagged, in (0, 1).
        sources: n labels, where each row comes from. Folds then hold out whole sources, if the
            others have enough rows of both labels: the held-out scores, and so the threshold, are
            those of traffic that the network has not seen. None: all rows are of one source.

    Returns:
        The frozen arrays by name:

            - ``layers``: int32 [K], state indices, 1 to L, ascending.
            - ``neuron_offsets``: int32 [K + 1]; layer k has
              neurons[neuron_offsets[k]:neuron_offsets[k + 1]].
            - ``neurons``: int32 [features], indices of the chosen neurons in 0..hidden - 1.
            - ``alpha``: float32 [K], weight of each layer.
            - ``weight_0``, ``weight_1``: float32 [out, in]; the last has two outputs, 0 safe and 1
              harmful.
            - ``bias_0``, ``bias_1``: float32 [out].
            - ``threshold``: float64; a score above it is flagged.
            - ``target_fpr``: float64, as given.
            - ``clean_scores``: float64 [clean texts], ascending, the held-out scores that set the
              threshold.
            - ``fpr_interval``: float64 [2], 95 % interval of the realised false-positive rate.

    Raises:
        CalibrationError: fewer than 10 texts of a label, too few clean texts for the target, or
            states that are not finite.
        InputError: an argument has the wrong shape or is outside its range.

    Source: arXiv 2604.18519, section "Method"; ``tests/reference/siren.py``.
    """
    rows = _LabelledStates.checked(states, labels, groups, sources, eta)
    clean = rows.labels == 0
    conformal.rank(len(np.unique(rows.codes[clean])), target_fpr)  # refuses before the work
    fitted = _train(rows, eta, seed)
    clean_scores = group_maxima(fitted.held_out[clean], rows.codes[clean])
    return {**fitted.params, **conformal_threshold(clean_scores, target_fpr).arrays()}


def train(
    states: Array | States,
    labels: Array,
    groups: Groups = None,
    eta: float = 0.9,
    seed: int = 0,
    sources: Groups = None,
) -> FittedParameters:
    """Choose neurons and settings, and train the network; see ``fit`` for arguments and errors.

    The held-out scores are the harm probabilities of all rows. The settings contain the chosen
    hyper-parameters and their held-out AUROC.
    """
    return _train(_LabelledStates.checked(states, labels, groups, sources, eta), eta, seed)


@dataclass(frozen=True, slots=True, eq=False)
class _LabelledStates:
    """Validated states of labelled rows; their labels, group and source codes, int64 [n]."""

    states: States
    labels: Array
    codes: Array
    sources: Array | None

    @classmethod
    def checked(
        cls, states: Array | States, labels: Array, groups: Groups, sources: Groups, eta: float
    ) -> "_LabelledStates":
        states = as_states(states)
        labels = _checked_labels(labels, states.shape[0])
        if not 0 < eta <= 1:
            raise InputError(f"eta: found {eta}; expected a share above 0 and at most 1")
        codes = group_codes(groups, len(labels))
        check_counts("SIREN", labels, codes)
        source_codes = None if sources is None else group_codes(sources, len(labels))
        return cls(states, labels, codes, source_codes)


def _train(rows: _LabelledStates, eta: float, seed: int) -> FittedParameters:
    states, labels, codes, sources = rows.states, rows.labels, rows.codes, rows.sources
    with one_thread():
        choice = _choose(states, labels, codes, eta, seed, sources)
        selection = select(states, labels, codes, eta, seed, sources=sources)
        committee = Committee(selection.features(states), labels, choice.decay, seed)
        committee.learn(choice.epochs)
    settings = {
        "eta": float(eta),
        "folds": choice.folds,
        "folds_by": "source" if source_folds(labels, codes, sources, FOLDS) else "prompt",
        "members": MEMBERS,
        "hidden": HIDDEN,
        "decay": choice.decay,
        "epochs": choice.epochs,
        "held_out_auroc": round(float(roc_auc_score(labels, choice.held_out)), 6),
        "probe_macro_f1": [round(score, 6) for score in selection.f1],
        "probe_strengths": list(selection.strengths),
        "harmful": int(labels.sum()),
    }
    return FittedParameters(_frozen(selection, committee.head()), choice.held_out, settings)


def _choose(
    states: Array | States,
    labels: Array,
    codes: Array,
    eta: float,
    seed: int,
    sources: Array | None = None,
) -> _Choice:
    """Choose the settings with the best AUROC over all held-out rows; ties go to the first.

    Neurons are selected again in every fold, from its training rows.
    """
    folds = grouped_folds(labels, codes, sources, FOLDS, seed)
    held_out = {(decay, epochs): np.empty(len(labels)) for decay in DECAYS for epochs in EPOCHS}
    with tqdm(total=len(folds) * (1 + len(DECAYS)), desc="siren", unit="fit", disable=None) as bar:
        for training, held in folds:
            known = labels[training]
            selection = select(states, labels, codes, eta, seed, training, sources)
            features, unseen = (selection.features(states, rows) for rows in (training, held))
            bar.update()
            for decay in DECAYS:
                committee, shown = Committee(features, known, decay, seed), 0
                for epochs in EPOCHS:
                    committee.learn(epochs - shown)
                    shown = epochs
                    held_out[decay, epochs][held] = committee.head().probability(unseen)
                bar.update()
    decay, epochs = max(held_out, key=lambda key: roc_auc_score(labels, held_out[key]))
    return _Choice(decay, epochs, held_out[decay, epochs], len(folds))


def _frozen(selection: Selection, head: Head) -> dict[str, Array]:
    sizes = [len(neurons) for neurons in selection.neurons]
    params = {
        "layers": np.array(selection.layers, dtype=np.int32),
        "neuron_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        "neurons": np.concatenate(selection.neurons),
        "alpha": selection.alpha,
    }
    for i, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
        params[f"weight_{i}"], params[f"bias_{i}"] = weight, bias
    return params


def _checked_labels(labels: Array, n: int) -> Array:
    """Labels as int64 [n].

    Raises:
        InputError: the shape is not [n], or a label is neither 0 nor 1.
    """
    array = np.asarray(labels)
    if array.shape != (n,):
        raise InputError(f"labels: found {list(array.shape)}; expected [{n}], one for each row")
    if not np.isin(array, (0, 1)).all():
        invalid = array[~np.isin(array, (0, 1))][0]
        raise InputError(f"labels: found {invalid!r}; expected 0 (clean) or 1 (harmful)")
    return array.astype(np.int64)
