"""Training texts with known places: payloads inserted into benign documents.

Some documents are then put into other forms, such as the result of a tool in JSON (``forms``). A
form is given to documents with a payload, with a harmless text and with neither alike, so that it
is no sign of an injection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerguard.calibration.rows.forms import FORMS
from layerguard.calibration.rows.marked import insert, sentence
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Place, Row
from layerguard.runtime.text.request import request

LEAST_CHARACTERS = 200
"""A shorter text is not a document: a payload in it would be most of the text."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """A document; ``place`` is where a payload stands in it, None without one."""

    text: str
    place: Place | None


def mixed(
    documents: Sequence[str],
    payloads: Sequence[str],
    harmless: Sequence[str],
    rng: np.random.Generator,
) -> dict[int, Inserted]:
    """Each document by its number: half with a payload, a quarter with a harmless text, if given.

    The documents come in random order; payloads, harmless texts and forms are used in turn. Of four
    documents in a row two have a payload, and all have one form.
    """
    order = rng.permutation(len(documents)).tolist()
    bad, good = (rng.permutation(len(texts)).tolist() for texts in (payloads, harmless))
    found = {}
    for number, index in enumerate(order):
        document, turn = documents[index], number // 2
        harmful = number % 2 == 0
        if harmful:
            marked = insert(document, payloads[bad[turn % len(bad)]], rng)
        elif harmless and turn % 2 == 0:
            marked = insert(document, harmless[good[turn // 2 % len(good)]], rng)
        else:
            marked = sentence(document, rng)
        formed = FORMS[number // 4 % len(FORMS)](marked, rng)
        found[index] = Inserted(formed.text, formed.place if harmful else None)
    return found


def with_payloads(rows: Sequence[Row], payloads: Sequence[Row], seed: int) -> list[Row]:
    """The rows, with payloads in half of those that are benign documents, and half in other forms.

    Args:
        rows: rows; those of label 0 with at least 200 characters are documents.
        payloads: texts to insert; those of label 0 are harmless, and stay benign.
        seed: random seed.

    Raises:
        InputError: there is no document, or no payload.
    """
    fits = [not row.label and len(row.request.prompt) >= LEAST_CHARACTERS for row in rows]
    harmful = [row.request.prompt for row in payloads if row.label != 0]
    if not any(fits) or not harmful:
        raise InputError(
            f"found {sum(fits)} documents and {len(harmful)} payloads; expected at least one of "
            f"each: rows of label 0 with {LEAST_CHARACTERS} characters in --labelled, and texts in "
            "--payloads"
        )
    harmless = [row.request.prompt for row in payloads if row.label == 0]
    documents = [row.request.prompt for row, fit in zip(rows, fits, strict=True) if fit]
    texts = mixed(documents, harmful, harmless, np.random.default_rng(seed))
    numbers = np.cumsum(fits) - 1
    return [
        _changed(row, texts[number]) if fit else row
        for row, fit, number in zip(rows, fits, numbers.tolist(), strict=True)
    ]


def _changed(row: Row, inserted: Inserted) -> Row:
    if inserted.text == row.request.prompt:
        return row
    places = None if inserted.place is None else (inserted.place,)
    label = 0 if places is None else 1
    return replace(row, request=request(inserted.text), label=label, spans=places)
