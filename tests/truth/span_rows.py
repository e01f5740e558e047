"""The rows of the injection table: training texts, and five sources held out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.calibration.rows.insertion import Inserted, mixed
from layerguard.runtime.rows.jsonl import Place, read_rows
from layerguard.runtime.text.request import clean
from tests.bench.minilm import PROMPTS
from tests.truth.rows import shared_rows

MOST_CHARACTERS = 1000
"""Longer test rows are left out, so that no text is cut."""

_DOCUMENT = (200, 700)
_SEED = 0


@dataclass(frozen=True, slots=True)
class Text:
    """One text.

    Attributes:
        text: as the view ``content`` gives it to the tokenizer.
        source: name of its source.
        label: 1 if it holds an injection.
        span: where the injection is; None if there is none, or if its place is not known.
    """

    text: str
    source: str
    label: int
    span: Place | None = None

    @property
    def words(self) -> str:
        """The injection, if its place is known."""
        return self.text[slice(*self.span)] if self.span else ""


def training() -> list[Text]:
    """Dolly's documents, half of them with one of the project's payloads, and clean prompts.

    Half of the documents are in other forms; see ``calibration.rows.forms``.
    """
    rng = np.random.default_rng(_SEED)
    payloads = read_rows([PROMPTS / "payloads.jsonl"]).good
    harmful = [row.request.prompt for row in payloads if row.label]
    harmless = [row.request.prompt for row in payloads if not row.label]
    found = mixed(_documents()[:260], harmful, harmless, rng)
    return _texts(found, "documents") + [Text(text, "prompts", 0) for text in _prompts()[:200]]


def _texts(found: Mapping[int, Inserted], source: str) -> list[Text]:
    return [_cleaned(item, source) for item in found.values()]


def _cleaned(item: Inserted, source: str) -> Text:
    """The text as it is read, with the place of the payload in it."""
    text = clean(item.text)
    if item.place is None:
        return Text(text, source, 0)
    words = clean(item.text[slice(*item.place)])
    start = text.index(words)
    return Text(text, source, 1, (start, start + len(words)))


def held_out(most: int) -> list[Text]:
    """Five sources that nothing is trained or chosen on: so many texts of each and each label."""
    plain = [
        *_chosen(_injections("bipia_lcf", _bipia), most),
        *_chosen(_injections("injecagent", _injecagent), most),
        *_chosen(_injections("deepset_prompt_injections", lambda _: None), most),
    ]
    xstest = (text for text in _injections("xstest", lambda _: None) if not text.label)
    return [
        *plain,
        *_chosen(_injections("notinject", lambda _: None), most),
        *_chosen(xstest, most),
    ]


def _documents() -> list[str]:
    """Dolly's prompts with their documents, cut after a sentence; of every second one the document
    alone.
    """
    found = []
    for number, row in enumerate(shared_rows("benign_dolly_1k")):
        text = row["text"] if number % 2 else row["text"].partition("\n")[2]
        if len(text) >= _DOCUMENT[0]:
            head = clean(text)[: _DOCUMENT[1]]
            found.append(head[: max(head.rfind(end) for end in ".!?\n") + 1] or head)
    return found


def _prompts() -> list[str]:
    return [clean(row.request.prompt) for row in read_rows([PROMPTS / "clean.jsonl"]).good]


def _injections(name: str, place: Any) -> Iterator[Text]:
    for row in shared_rows(name):
        text = clean(row["text"])
        if len(text) <= MOST_CHARACTERS:
            span = place(row | {"text": text}) if row["label"] else None
            yield Text(text, name, row["label"], span)


def _bipia(row: dict[str, Any]) -> Place:
    """From the heading of the embedded instruction to the user's question, or to the end."""
    text = row["text"]
    start = text.index("[ASSISTANT INSTRUCTION EMBEDDED IN")
    end = text.find("\n\nQuestion:", start)
    return start, end if end >= 0 else len(text)


def _injecagent(row: dict[str, Any]) -> Place | None:
    """The attacker's instruction, with the sentences that introduce it."""
    text, attack = row["text"], clean(row["meta"]["attack"])
    place = text.find(attack)
    if place < 0:
        return None
    head = text.find("IMPORTANT!!!")
    return (min(place, head) if head >= 0 else place), place + len(attack)


def _chosen(texts: Iterable[Text], most: int) -> list[Text]:
    """At most so many texts of each label, drawn at random, each text once."""
    unique = list({text.text: text for text in texts}.values())
    rng = np.random.default_rng(_SEED)
    found = []
    for label in (0, 1):
        some = [text for text in unique if text.label == label]
        found += [some[i] for i in rng.permutation(len(some))[:most].tolist()]
    return found
