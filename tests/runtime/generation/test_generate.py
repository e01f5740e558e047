"""Guarded answers: the model's own text, a verdict at every step, and what is released when."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.event import WITHHELD, Event
from layerguard.runtime.types import Array
from tests import tiny, tiny_decoder
from tests.runtime.streaming.cases import same

PROMPT = "the garden was quiet"
NEW = 12
Params = dict[str, dict[str, Array]]


def load(folder: Path, params: Params | None = None, **options: int) -> Guard:
    """A guard on the toy decoder."""
    return Guard.load(tiny_decoder.make_bundle(folder, params, **options), threads=1)


def with_threshold(detector: str, threshold: float) -> Params:
    """All detectors; only one of them has a threshold that can be exceeded."""
    params = tiny_decoder.make_all_params()
    for name, mine in params.items():
        mine["threshold"] = np.array(threshold if name == detector else 1e6)
    return params


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard that flags nothing."""
    return load(tmp_path_factory.mktemp("calm") / "bundle", with_threshold("", 0))


def answer(events: list[Event]) -> str:
    """All released text."""
    return "".join(event.text for event in events)


def made(events: list[Event]) -> list[int]:
    """The generated tokens."""
    return [event.token_id for event in events if event.token_id is not None]


def test_greedy_tokens_are_those_of_the_bare_loop(guard: Guard) -> None:
    """Guarding does not change the model's tokens."""
    events = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    decode_graph = guard.streams.resources.decode_graph
    prompt = guard.stream(prompt=PROMPT).conversation
    assert prompt is not None
    cache, ids, expected = decode_graph.new_cache(), list(prompt.sequence.ids), []
    for _ in range(NEW):
        logits = decode_graph.advance(ids, cache, want_logits=True).logits
        assert logits is not None
        ids = [int(logits.argmax())]
        expected += ids
    assert made(events) == expected
    assert [event.kind for event in events] == ["prompt", *["token"] * NEW, "end"]
    assert events[-1].finish == "length"


def test_every_verdict_is_that_of_what_was_read(guard: Guard) -> None:
    """After each token, the verdict equals that of a stream with the same ids."""
    events = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    same(events[0].verdict, guard.check(prompt=PROMPT))
    for count, event in enumerate(events[1:-1], 1):
        with guard.stream(prompt=PROMPT) as stream:
            same(event.verdict, stream.push(made(events)[:count]))


def test_abstaining_shows_a_sound_answer_at_its_end(guard: Guard) -> None:
    """The text equals that of ``log``, but is released only at the end."""
    logged = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    events = list(guard.generate(PROMPT, max_new_tokens=NEW))
    assert answer(events) == answer(logged) == events[-1].text
    assert len(answer(events)) > 0
    assert any(event.text for event in logged[1:-1])


def test_a_flagged_prompt_is_not_answered(tmp_path: Path) -> None:
    """If LCF flags the prompt, no token is generated."""
    guard = load(tmp_path / "bundle", with_threshold("lcf", 0.0))
    events = list(guard.generate(PROMPT, max_new_tokens=NEW))
    assert [event.kind for event in events] == ["prompt", "end"]
    assert (answer(events), events[-1].finish) == (WITHHELD, "withheld")
    assert events[0].verdict.readings["lcf"].flagged


def test_nothing_of_an_answer_that_is_flagged_later_leaves(guard: Guard, tmp_path: Path) -> None:
    """If SIREN flags a later token, the earlier text is withheld as well."""
    scores = [
        event.verdict.readings["siren"].score
        for event in guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log")
    ]
    assert max(scores) > scores[0]
    strict = load(tmp_path / "bundle", with_threshold("siren", (scores[0] + max(scores)) / 2))
    events = list(strict.generate(PROMPT, max_new_tokens=NEW))
    assert len(made(events)) > 0
    assert (answer(events), events[-1].finish) == (WITHHELD, "withheld")
    logged = list(strict.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    assert len(made(logged)) == NEW
    assert any(event.verdict.flagged for event in logged)


def narrow(at: float) -> Params:
    """WeightWatch with a narrow range for the user's first direction; other ranges are wide."""
    params = with_threshold("weightwatch", 0.0)
    watch = params["weightwatch"]
    watch["low"][:], watch["high"][:] = -2, 2
    watch["low"][:, 0], watch["high"][:, 0] = -at, at
    return params


def test_steering_takes_out_what_is_found(tmp_path: Path) -> None:
    """The direction is removed from the states, and the answer continues."""
    guard = load(tmp_path / "bundle", narrow(1e-3))
    events = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="steer"))
    assert events[0].verdict.flagged
    assert len(events[0].steered) == 1
    assert events[-1].finish == "length"
    assert len(made(events)) == NEW
    assert all(event.verdict.readings["weightwatch"].score <= 1e-4 for event in events[1:])
    plain = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    assert made(plain) != made(events)
    assert all(event.verdict.flagged for event in plain)


def test_steering_cannot_mend_another_detector(tmp_path: Path) -> None:
    """A text that LCF flags is withheld."""
    params = narrow(1e-3)
    params["lcf"]["threshold"] = np.array(0.0)
    guard = load(tmp_path / "bundle", params)
    events = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="steer"))
    assert (made(events), events[-1].finish) == ([], "withheld")


def test_steering_does_not_show_the_token_that_another_detector_flags(
    guard: Guard, tmp_path: Path
) -> None:
    """Earlier text was released; the flagged token is not, and the answer ends."""
    calm = list(guard.generate("small boats", max_new_tokens=NEW, on_flag="log"))
    prompt, first, second, *_ = [event.verdict.readings["siren"].score for event in calm]
    assert prompt < first < second
    assert calm[1].text
    assert calm[2].text
    strict = load(tmp_path / "bundle", with_threshold("siren", (first + second) / 2))
    found = list(strict.generate("small boats", max_new_tokens=NEW, on_flag="steer"))
    assert [event.kind for event in found] == ["prompt", "token", "token", "end"]
    assert made(found) == made(calm)[:2]
    assert [event.verdict.flagged for event in found] == [False, False, True, True]
    assert [event.text for event in found] == ["", calm[1].text, "", WITHHELD]
    assert found[-1].finish == "withheld"


def test_steering_needs_weightwatch(tmp_path: Path) -> None:
    """Without WeightWatch there is no direction to remove."""
    params = with_threshold("", 0)
    del params["weightwatch"]
    guard = load(tmp_path / "bundle", params)
    with pytest.raises(InputError, match="weightwatch"):
        guard.generate(PROMPT, on_flag="steer")


def test_stop_strings_end_the_answer(guard: Guard) -> None:
    """The answer ends before the stop string."""
    whole = answer(list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log")))
    stop = whole[len(whole) // 2 :][:2]
    events = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log", stop=[stop]))
    assert events[-1].finish == "stop"
    assert answer(events) == whole[: whole.index(stop)]


def test_the_models_own_end_is_no_part_of_the_answer(guard: Guard, tmp_path: Path) -> None:
    """An end token ends the answer, and is neither shown nor checked."""
    tokens = made(list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log")))
    last = next(i for i in range(1, NEW) if tokens[i] not in tokens[:i])
    guard = load(tmp_path / "bundle", with_threshold("", 0))
    rules = replace(guard.bundle.manifest.text, end_token_ids=(tokens[last],))
    object.__setattr__(guard.bundle.manifest, "text", rules)
    events = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    assert made(events) == tokens[:last]
    assert events[-1].finish == "end"


def test_an_answer_ends_with_the_window(tmp_path: Path) -> None:
    """No token is generated that cannot be checked."""
    guard = load(tmp_path / "bundle", with_threshold("", 0), max_tokens=40)
    events = list(guard.generate(PROMPT, max_new_tokens=500, on_flag="log"))
    assert events[-1].finish == "length"
    assert 0 < len(made(events)) < 40
    with pytest.raises(InputError, match="window"):
        list(guard.generate(PROMPT * 10))


def test_seeded_answers_repeat(guard: Guard) -> None:
    """The same seed gives the same answer; without a seed answers differ."""
    runs = [
        made(list(guard.generate(PROMPT, max_new_tokens=NEW, temperature=1.5, seed=seed)))
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_an_answer_counts_once(guard: Guard) -> None:
    """The monitor counts one text, even if the caller stops early."""
    before = guard.monitor.n
    list(guard.generate(PROMPT, max_new_tokens=NEW))
    events = guard.generate(PROMPT, max_new_tokens=NEW)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert guard.monitor.n == before + 2


def test_an_answer_counts_as_flagged_where_any_of_it_was(guard: Guard, tmp_path: Path) -> None:
    """The first flagged verdict counts, even if steering removed its cause later."""
    steered = load(tmp_path / "steered", narrow(1e-3))
    events = list(steered.generate(PROMPT, max_new_tokens=NEW, on_flag="steer"))
    assert (events[0].verdict.flagged, events[-1].verdict.flagged) == (True, False)
    assert (steered.monitor.n, steered.monitor.flagged) == (1, 1)
    calm = list(guard.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    scores = [event.verdict.readings["siren"].score for event in calm]
    logged = load(tmp_path / "logged", with_threshold("siren", (scores[0] + max(scores)) / 2))
    events = list(logged.generate(PROMPT, max_new_tokens=NEW, on_flag="log"))
    assert not events[0].verdict.flagged
    assert (logged.monitor.n, logged.monitor.flagged) == (1, 1)


def test_an_encoder_generates_nothing(tmp_path: Path) -> None:
    """The error gives the reason."""
    encoder = Guard.load(tiny.make_bundle(tmp_path / "bundle"), threads=1)
    with pytest.raises(InputError, match="encoder"):
        list(encoder.generate(PROMPT))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"on_flag": "shrug"}, "on_flag"),
        ({"top_p": 2.0}, "top_p"),
        ({"stop": [""]}, "stop"),
        ({"messages": [{"role": "user", "content": "x"}]}, "exactly one"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    guard: Guard, wrong: dict[str, object], named: str
) -> None:
    """They are refused before the model runs."""
    with pytest.raises(InputError, match=named):
        guard.generate(PROMPT, **wrong)  # type: ignore[arg-type]
