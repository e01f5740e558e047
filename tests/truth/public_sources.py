"""Rows of public sources of harm, of injections and of benign text, without repeated texts.

ToxicChat and WildGuard are published in two parts; both are used, as whole sources are tested.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from layerguard.calibration.rows.leakage import TestTexts, normalised
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests.truth.rows import shared_rows

HARM: Mapping[str, Sequence[str]] = {
    "ToxicChat": ("siren_toxicchat_train", "siren_toxicchat_test"),
    "OpenAI moderation": ("siren_openai_moderation",),
    "WildGuard": ("siren_wildguard_train", "siren_wildguard_test"),
    "BeaverTails": ("siren_beavertails_30k_test",),
    "SafeRLHF": ("siren_saferlhf_test2k",),
}
INJECTION: Mapping[str, Sequence[str]] = {
    "BIPIA": ("bipia_lcf",),
    "deepset": ("deepset_prompt_injections",),
    "InjecAgent": ("injecagent",),
}
BENIGN: Mapping[str, Sequence[str]] = {
    "Alpaca": ("benign_alpaca",),
    "Dolly": ("benign_dolly_1k",),
    "questions": ("benign_bench_questions",),
    "NotInject": ("notinject",),
    "gsm8k": ("benign_gsm8k",),
}
_FILES = {**HARM, **INJECTION, **BENIGN}
_HARMFUL_SHARE = 1 / 3
_SEED = 0


def source_rows(source: str, most: int) -> list[Row]:
    """Rows of one source in random order, each with the source as ``domain``.

    A third of the rows of ``HARM`` and ``INJECTION`` have label 1. Rows with the same whole text
    are taken once. Fewer rows are returned where a label has fewer.
    """
    harmful = 0 if source in BENIGN else round(_HARMFUL_SHARE * most)
    wanted = {0: most - harmful, 1: harmful}
    taken = []
    for row in _shuffled(source):
        assert row.label is not None
        if wanted[row.label]:
            wanted[row.label] -= 1
            taken.append(row)
    return taken


def without_overlap(training: Sequence[Row], test: Iterable[Row]) -> list[Row]:
    """The training rows whose prompt and whole text both do not occur in the test rows."""
    return list(TestTexts.of(test).without(training))


@cache
def _shuffled(source: str) -> tuple[Row, ...]:
    """Every different text of a source, in random order."""
    published = [row for name in _FILES[source] for row in shared_rows(name)]
    rows = [_row(source, one) for one in published]
    distinct = list({normalised(row.request.content()): row for row in rows}.values())
    order = np.random.default_rng(_SEED).permutation(len(distinct)).tolist()
    return tuple(distinct[i] for i in order)


def _row(source: str, published: Mapping[str, Any]) -> Row:
    judged = published["kind"] == "response"  # the label is about the answer
    text = request(prompt=published["text"], response=published["response"] if judged else None)
    return Row(published["id"], text, published["label"], domain=source)
