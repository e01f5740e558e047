"""Does SIREN find harm in sources that it has not seen?

    python -m tests.truth.harm_sources [--smollm2]

Five harm sources are left out in turn, each with one benign source. SIREN is trained on the other
four, and thresholds come from their clean rows. Three trainings are compared: folds that hold out
prompts; folds that hold out whole sources; and these with the other four benign sources among the
clean rows. Training rows whose prompt or text is in a source that was left out are dropped.
BeaverTails and SafeRLHF have one publisher and similar texts: neither is unseen in the sense that
the others are. ``--smollm2`` prints another table instead: MiniLM, SmolLM2 and the mean of their
probabilities, on fewer rows, cut at 192 tokens. States are kept in ``.cache``.
"""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from tests.truth.harm_states import SIZES, Model
from tests.truth.harm_training import Training, left_out, load
from tests.truth.operating_point import RESAMPLES, Scored, interval, mean_rates
from tests.truth.public_sources import BENIGN, HARM
from tests.truth.tables import keep

BEFORE = Training("prompts", by_source=False, exposure=False)
BOTH = Training("sources, benign", by_source=True, exposure=True)
TRAININGS = (
    BEFORE,
    Training("sources", by_source=True, exposure=False),
    BOTH,
)
QUESTION = (
    "SIREN on sources that were left out, per cent; folds by prompts or sources, with benign "
    f"sources or without; 95 % intervals from {RESAMPLES} resamples of the rows"
)


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", action="store_true", help="compare two models")
    if not parser.parse_args().smollm2:
        keep("harm_sources_minilm", f"{QUESTION}; MiniLM", _table(["MiniLM"], TRAININGS))
        return
    models: list[Model] = ["MiniLM", "SmolLM2"]
    keep("harm_sources_smollm2", f"{QUESTION}; same rows for all", _table(models, (BEFORE, BOTH)))


def _table(models: Sequence[Model], trainings: Sequence[Training]) -> list[Mapping[str, object]]:
    """A line for each source that is left out, then means and their differences from before."""
    parts = load(models, SIZES[models[-1]])
    lines: list[Mapping[str, object]] = []
    scored: dict[str, dict[str, list[Scored]]] = {}
    turns = [(t, *pair) for t in trainings for pair in zip(HARM, BENIGN, strict=True)]
    for training, harm, benign in tqdm(turns, disable=None):
        found = left_out(parts, harm, benign, training)
        for model, one in found.scored.items():
            scored.setdefault(model, {}).setdefault(training.name, []).append(one)
            recall = interval([rates["recall at 1%"] for rates in one.resampled()])
            lines.append({
                "model": model, "training": training.name, "left out": f"{harm}, {benign}",
                "rows": found.trained, "dropped": found.dropped, "AUROC": one.auroc(),
                **one.rates(), "interval": recall,
            })  # fmt: skip
    for model, by_training in scored.items():
        lines += _means(model, by_training)
    return sorted(lines, key=lambda line: list(scored).index(str(line["model"])))


def _means(model: str, scored: Mapping[str, Sequence[Scored]]) -> Iterator[Mapping[str, object]]:
    """The mean of each training over all sources, and its difference from the first training."""
    resampled = {
        name: [mean_rates(draw) for draw in zip(*(one.resampled() for one in many), strict=True)]
        for name, many in scored.items()
    }
    first = next(iter(scored))
    for name, many in scored.items():
        rates = mean_rates([one.rates() for one in many])
        recall = interval([draw["recall at 1%"] for draw in resampled[name]])
        auroc = float(np.mean([one.auroc() for one in many]))
        line = {"model": model, "training": name}
        yield {**line, "left out": "mean", "AUROC": auroc, **rates, "interval": recall}
        if name != first:
            pairs = list(zip(resampled[name], resampled[first], strict=True))
            differences = {
                rate: interval([after[rate] - before[rate] for after, before in pairs])
                for rate in rates
            }
            yield {**line, "left out": f"minus {first!r}", **differences}


if __name__ == "__main__":
    main()
