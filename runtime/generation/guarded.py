"""Starting a guarded answer: what was asked is checked at once, the model runs with the events."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

from layerguard.runtime.bundle.manifest import TextRules
from layerguard.runtime.detectors.weightwatch import NAME, WeightWatch
from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.event import Event, OnFlag
from layerguard.runtime.generation.loop import Generation, Settings
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.generation.steering import Steering
from layerguard.runtime.generation.stop import StopText
from layerguard.runtime.streaming.opening import Opener
from layerguard.runtime.streaming.stream import Judge, Stream
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Array, Verdict


def settled(
    rules: TextRules,
    opener: Opener,
    *,
    max_new_tokens: int,
    on_flag: OnFlag,
    sampler: Sampler,
    stop: Sequence[str],
) -> Settings:
    """The settings, checked.

    Raises:
        InputError: one is outside its range, or asks for a detector that the bundle has not.
    """
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens!r}; expected a whole number, at least 1")
    if on_flag not in get_args(OnFlag):
        raise InputError(f"on_flag {on_flag!r}; expected one of {', '.join(get_args(OnFlag))}")
    if on_flag == "steer" and NAME not in opener.detectors:
        raise InputError(
            f"on_flag 'steer' takes out what {NAME} finds, and the bundle has "
            f"{', '.join(opener.detectors)}; calibrate it with --base and --tuned"
        )
    StopText(stop)
    return Settings(
        max_new_tokens=max_new_tokens,
        on_flag=on_flag,
        sampler=sampler,
        stop=tuple(stop),
        end_token_ids=frozenset(rules.end_token_ids or _end_token(rules, opener)),
    )


def guarded(opener: Opener, judge: Judge, asked: Request, settings: Settings) -> Iterator[Event]:
    """The events of one answer; see ``Generation.events``.

    The judge counts one verdict: the first that was flagged, or the last.
    """
    steering = None
    if settings.on_flag == "steer":
        watch: Any = opener.detectors[NAME]
        assert isinstance(watch, WeightWatch)
        steering = Steering(watch, opener.blocks)
    quiet = replace(judge, count=_not_counted)

    def open_stream(basis: Array | None) -> Stream:
        return Stream(opener, asked, quiet, want_logits=True, steering=basis)

    deciding: Verdict | None = None
    try:
        for event in Generation(open_stream, settings, steering).events():
            if deciding is None or not deciding.flagged:
                deciding = event.verdict
            yield event
    finally:
        if deciding is not None:
            judge.count(deciding)


def _not_counted(_: Verdict) -> None:
    """The parts of an answer are no texts of their own."""


def _end_token(rules: TextRules, opener: Opener) -> tuple[int, ...]:
    """Of a bundle that does not say how answers end: its tokenizer's end of sequence."""
    name = rules.special_tokens.get("eos_token")
    found = None if name is None else opener.reader.tokenizer.token_to_id(name)
    return () if found is None else (found,)
