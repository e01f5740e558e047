"""Calibrate SIREN: which neurons know that a text is harmful, and a small network that reads them.

"LLM Safety From Within", arXiv 2604.18519; METHODS "SIREN". Sparse probes choose neurons
(``siren_probes``), a network reads them (``siren_head``). Everything that is chosen is chosen by
cross-validation that keeps groups together; the threshold comes from scores of clean rows by
networks, and neurons, that were fitted without them.

Where we leave the publication: features are standardised after the layer weights, so the weights
no longer hold layers back (measured +0.5 macro-F1); the network's settings come from a small
seeded grid instead of 32 Optuna trials, and are judged by AUROC instead of macro-F1 at 0.5: a guard
works at a calibrated threshold, and over thousands of rows F1 still ranks settings by its noise.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from layerguard.calibration import conformal
from layerguard.calibration.folds import Groups, group_codes, group_maxima, stratified_folds
from layerguard.calibration.siren_head import HIDDEN, MEMBERS, Committee, Head
from layerguard.calibration.siren_probes import Selection, select
from layerguard.calibration.states import States, as_states
from layerguard.calibration.threads import one_thread
from layerguard.calibration.trained import Trained
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

FOLDS = 5

DECAYS = (0.003, 0.01, 0.03)
"""Candidate weight decays of the network."""

EPOCHS = (8, 16, 32)
"""Candidate lengths of training, ascending."""

LEAST_GROUPS = 10
"""Of each label: fewer cannot be spread over the folds."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """Settings of the network and the harm probability of every row, held out, float64 [n]."""

    decay: float
    epochs: int
    held_out: Array


def fit(
    states: Array | States,
    labels: Array,
    groups: Groups = None,
    eta: float = 0.9,
    seed: int = 0,
    target_fpr: float = 0.01,
) -> dict[str, Array]:
    """The frozen parameters of SIREN; see ``train``, which also tells the settings it chose."""
    return train(states, labels, groups, eta, seed, target_fpr).params


def train(
    states: Array | States,
    labels: Array,
    groups: Groups = None,
    eta: float = 0.9,
    seed: int = 0,
    target_fpr: float = 0.01,
) -> Trained:
    """Choose neurons and settings, train the network, and set the threshold.

    Args:
        states: float32 [n, L + 1, hidden], each row's states as the mean over its tokens: an array,
            which may be an ``np.memmap``, or ``States`` that are read in parts.
        labels: [n], 0 clean or 1 harmful.
        groups: one label a row; groups (windows of one text, paraphrases) never straddle folds,
            and a group's clean rows count as one text with their largest score.
        eta: share of each probe's absolute weight that the chosen neurons hold, in (0, 1].
        seed: of folds, solvers and networks.
        target_fpr: share of clean texts that may be flagged, in (0, 1).

    Returns:
        params: layers int32 [K], state indices; neuron_offsets int32 [K + 1]; neurons int32;
        alpha float32 [K]; weight_i float32 [out, in] and bias_i float32 [out], two outputs last,
        0 safe; threshold and target_fpr float64; clean_scores float64, ascending; fpr_interval
        float64 [2]. held_out: the harm probability of every row. settings: the chosen
        hyper-parameters and their held-out AUROC.

    Raises:
        CalibrationError: one label is missing or too rare, too few clean texts for the target, or
            states that are not finite.
        InputError: an argument is of the wrong shape, or outside its range.
    """
    states = as_states(states)
    labels = _checked_labels(labels, states.shape[0])
    if not 0 < eta <= 1:
        raise InputError(f"eta: found {eta}; expected a share above 0, at most 1")
    codes = group_codes(groups, len(labels))
    check_counts("SIREN", labels, codes)
    clean = labels == 0
    texts = len(np.unique(codes[clean]))
    conformal.rank(texts, target_fpr)  # refuses before the work

    with one_thread():
        choice = _choose(states, labels, codes, eta, seed)
        selection = select(states, labels, codes, eta, seed)
        committee = Committee(selection.features(states), labels, choice.decay, seed)
        committee.learn(choice.epochs)
    scores = group_maxima(choice.held_out[clean], codes[clean])
    params = {
        **_frozen(selection, committee.head()),
        "threshold": np.array(conformal.threshold(scores, target_fpr)),
        "clean_scores": scores,
        "target_fpr": np.array(float(target_fpr)),
        "fpr_interval": conformal.fpr_interval(texts, target_fpr),
    }
    settings = {
        "eta": float(eta),
        "folds": FOLDS,
        "members": MEMBERS,
        "hidden": HIDDEN,
        "decay": choice.decay,
        "epochs": choice.epochs,
        "held_out_auroc": round(float(roc_auc_score(labels, choice.held_out)), 6),
        "probe_macro_f1": [round(score, 6) for score in selection.f1],
        "probe_strengths": list(selection.strengths),
        "harmful": int(labels.sum()),
    }
    return Trained(params, choice.held_out, settings)


def _choose(states: Array | States, labels: Array, codes: Array, eta: float, seed: int) -> _Choice:
    """The network's settings with the best AUROC over all held-out rows, the first of equals.

    Neurons are chosen anew in every fold, from its training rows.
    """
    folds = stratified_folds(labels, codes, FOLDS, seed)
    held_out = {(decay, epochs): np.empty(len(labels)) for decay in DECAYS for epochs in EPOCHS}
    with tqdm(total=len(folds) * (1 + len(DECAYS)), desc="siren", unit="fit", disable=None) as bar:
        for training, held in folds:
            known = labels[training]
            selection = select(states, labels, codes, eta, seed, training)
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
    return _Choice(decay, epochs, held_out[decay, epochs])


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
        InputError: there are not n, or one is neither 0 nor 1.
    """
    found = np.asarray(labels)
    if found.shape != (n,):
        raise InputError(f"labels: found {list(found.shape)}; expected [{n}], one for each row")
    if not np.isin(found, (0, 1)).all():
        strange = found[~np.isin(found, (0, 1))][0]
        raise InputError(f"labels: found {strange!r}; expected 0 (clean) or 1 (harmful)")
    return found.astype(np.int64)


def check_counts(what: str, labels: Array, codes: Array) -> None:
    """Refuse labels that cannot be spread over the folds.

    Raises:
        CalibrationError: a label has too few groups; ``what`` says for what.
    """
    for label, name in ((0, "clean"), (1, "harmful")):
        count = len(np.unique(codes[labels == label]))
        if count < LEAST_GROUPS:
            raise CalibrationError(
                f"{what} found {count} {name} texts (label {label}); expected at least "
                f"{LEAST_GROUPS} of each label, and some hundreds to be of use"
            )
