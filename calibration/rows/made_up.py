"""Made-up facts, such as names, dates and prices, that surround a text in a training row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Rng = np.random.Generator

_NAMES = ("Ana Ruiz", "Ben Okafor", "Chen Wei", "Dana Levi", "Emil Krause", "Farah Aziz",
          "Grace Miller", "Hugo Martin", "Ines Rossi", "Jonas Berg")  # fmt: skip
_WORDS = ("archive", "billing", "garden", "kitchen", "library", "market", "news", "office",
          "sports", "travel")  # fmt: skip


def name(rng: Rng) -> str:
    """The name of nobody in particular."""
    return one(_NAMES, rng)


def date(rng: Rng) -> str:
    """A day, as 2021-07-30."""
    return f"{number(rng, 2015, 2026)}-{number(rng, 1, 13):02}-{number(rng, 1, 29):02}"


def topic(rng: Rng) -> str:
    """One word, such as a category."""
    return one(_WORDS, rng)


def address(person: str, rng: Rng) -> str:
    """The e-mail address of a person, at a host that does not exist."""
    return f"{person.lower().replace(' ', '.')}@{topic(rng)}.example"


FIELDS: Mapping[str, Callable[[Rng], Any]] = {
    "id": lambda rng: number(rng, 1, 100_000),
    "uuid": lambda rng: rng.bytes(8).hex(),
    "date": date,
    "created_at": lambda rng: f"{date(rng)}T{number(rng, 0, 24):02}:{number(rng, 0, 60):02}:00Z",
    "author": name,
    "name": name,
    "email": lambda rng: address(name(rng), rng),
    "url": lambda rng: f"https://www.{topic(rng)}.example/{topic(rng)}/{number(rng, 1, 5000)}",
    "price": lambda rng: number(rng, 100, 100_000) / 100,
    "currency": lambda rng: one(("USD", "EUR", "GBP", "INR"), rng),
    "rating": lambda rng: number(rng, 1, 6),
    "status": lambda rng: one(("open", "closed", "active", "pending"), rng),
    "category": topic,
    "tags": lambda rng: [topic(rng), topic(rng)],
    "count": lambda rng: number(rng, 0, 300),
    "score": lambda rng: round(float(rng.random()), 3),
    "verified": lambda rng: bool(rng.integers(2)),
    "parent": lambda _: None,
    "language": lambda _: "en",
    "owner": lambda rng: {"id": number(rng, 1, 100_000), "name": name(rng)},
}
"""By the key of a record, a JSON value."""


def number(rng: Rng, least: int, end: int) -> int:
    """A number from ``least`` on, below ``end``."""
    return int(rng.integers(least, end))


def one(choices: Sequence[T], rng: Rng) -> T:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]
