"""Starts a guarded answer: checks the arguments at once, runs the model as events are consumed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

from layerguard.runtime.bundle.manifest import TextRules
from layerguard.runtime.detectors import REGISTRY, SteeringDetector
from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.event import Event, OnFlag
from layerguard.runtime.generation.loop import Generation, Settings
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.generation.steering import Steering
from layerguard.runtime.generation.stop import StopText
from layerguard.runtime.streaming.stream import GuardCallbacks, Stream
from layerguard.runtime.streaming.view_factory import ViewFactory
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Array, Verdict


def checked_settings(
    rules: TextRules,
    factory: ViewFactory,
    *,
    max_new_tokens: int,
    on_flag: OnFlag,
    sampler: Sampler,
    stop: Sequence[str],
) -> Settings:
    """Validated settings.

    Raises:
        InputError: a setting is outside its range, or needs a detector that the bundle lacks.
    """
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens!r}; expected a whole number, at least 1")
    if on_flag not in get_args(OnFlag):
        raise InputError(f"on_flag {on_flag!r}; expected one of {', '.join(get_args(OnFlag))}")
    if on_flag == "steer" and _steering_detector(factory) is None:
        able = [name for name, kind in REGISTRY.items() if kind.tap.pooling == "extremes"]
        raise InputError(
            f"on_flag 'steer' needs {' or '.join(able)}; the bundle has "
            f"{', '.join(factory.detectors)}: calibrate it with --base and --tuned"
        )
    StopText(stop)
    return Settings(
        max_new_tokens=max_new_tokens,
        on_flag=on_flag,
        sampler=sampler,
        stop=tuple(stop),
        end_token_ids=frozenset(rules.end_token_ids or _end_token(rules, factory)),
    )


def guarded_events(
    factory: ViewFactory, callbacks: GuardCallbacks, request: Request, settings: Settings
) -> Iterator[Event]:
    """The events of one answer; see ``Generation.events``.

    The guard counts one verdict: the first flagged verdict, or the last one if none is flagged.
    """
    steering = None
    detector = _steering_detector(factory)
    if settings.on_flag == "steer" and detector is not None:
        steering = Steering(detector, factory.blocks)
    without_count = replace(callbacks, count=_ignore)

    def open_stream(basis: Array | None) -> Stream:
        return Stream(factory, request, without_count, want_logits=True, steering=basis)

    deciding: Verdict | None = None
    try:
        for event in Generation(open_stream, settings, steering).events():
            if deciding is None or not deciding.flagged:
                deciding = event.verdict
            yield event
    finally:
        if deciding is not None:
            callbacks.count(deciding)


def _steering_detector(factory: ViewFactory) -> SteeringDetector | None:
    """The detector whose directions steering can remove; None if the bundle has none."""
    able = (item for item in factory.detectors.values() if isinstance(item, SteeringDetector))
    return next(able, None)


def _ignore(_: Verdict) -> None:
    """Count nothing: a partial answer is not a text of its own."""


def _end_token(rules: TextRules, factory: ViewFactory) -> tuple[int, ...]:
    """The tokenizer's end-of-sequence token, for a bundle that names no end tokens."""
    name = rules.special_tokens.get("eos_token")
    token = None if name is None else factory.reader.tokenizer.token_to_id(name)
    return () if token is None else (token,)
