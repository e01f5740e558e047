"""Streams fork, roll back, close, stay small, and are independent."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from layerguard.runtime import BundleError, Guard, InputError
from layerguard.runtime.streaming.stream import Mark, Stream
from tests import tiny_decoder
from tests.runtime.streaming.cases import same

PROMPT = "the garden was quiet"


def test_one_prompt_and_several_answers(guard: Guard) -> None:
    """A push to a fork does not change the original."""
    stream = guard.stream(prompt=PROMPT)
    stream.push(" before the")
    forks = {answer: stream.fork() for answer in (" rain", " boats came", "re\n\n\n 雨")}
    stream.push(" hills")
    for answer, fork in forks.items():
        verdict = fork.push(answer)
        same(verdict, guard.check(prompt=PROMPT, response=f" before the{answer}"))
        same(fork.fork().push("!"), guard.check(prompt=PROMPT, response=f" before the{answer}!"))
    same(stream.push("."), guard.check(prompt=PROMPT, response=" before the hills."))
    stream.close()
    fork = forks[" rain"]
    same(fork.push("s"), guard.check(prompt=PROMPT, response=" before the rains"))


def test_going_back(guard: Guard) -> None:
    """A rollback restores the verdict at once, and later pushes continue from there."""
    stream = guard.stream(prompt=PROMPT)
    stream.push("small boats")
    mark = stream.mark()
    before = stream.verdict
    for answer in (" lay still near the river", " came", ""):
        stream.push(answer)
        assert stream.rollback(mark) is before is stream.verdict
        same(
            stream.push(answer + "x"), guard.check(prompt=PROMPT, response=f"small boats{answer}x")
        )
        stream.rollback(mark)
    ahead = stream.fork()
    later = ahead.push(" and rain")
    there = ahead.mark()
    assert stream.rollback(there) is later
    same(stream.push("s"), guard.check(prompt=PROMPT, response="small boats and rains"))


def test_going_back_into_a_character(guard: Guard) -> None:
    """A rollback restores the bytes of an incomplete character."""
    stream = guard.stream(prompt=PROMPT)
    data = "雨".encode()
    assert stream.push(data[:2]).unread_tokens == 1
    mark = stream.mark()
    stream.push(data[2:])
    stream.rollback(mark)
    assert stream.verdict.unread_tokens == 1
    same(stream.push(data[2:]), guard.check(prompt=PROMPT, response="雨"))


def test_a_mark_of_another_stream(guard: Guard) -> None:
    """A mark of another stream is refused."""
    mark = guard.stream(prompt=PROMPT).mark()
    with pytest.raises(InputError, match="a mark of another stream"):
        guard.stream(prompt=PROMPT).rollback(mark)


def calls(stream: Stream, mark: Mark) -> list[Any]:
    """All methods of a stream."""
    return [
        lambda: stream.push("x"),
        stream.finish,
        stream.mark,
        lambda: stream.rollback(mark),
        stream.fork,
        stream.__enter__,
    ]


def test_a_closed_stream(guard: Guard) -> None:
    """Every call is refused; the last verdict stays and the caches are freed."""
    with guard.stream(prompt=PROMPT) as stream:
        verdict = stream.push(" boats")
        mark = stream.mark()
        assert stream.nbytes > 0
    for call in calls(stream, mark):
        with pytest.raises(InputError, match="the stream is closed; open another one"):
            call()
    stream.close()
    assert stream.verdict is verdict
    assert stream.nbytes == 0


def test_the_monitor_counts_a_stream_once(guard: Guard) -> None:
    """The verdict is counted at the end, whatever was pushed."""
    before = guard.monitor.n
    with guard.stream(prompt=PROMPT) as stream:
        for chunk in " before the rain":
            stream.push(chunk)
        assert guard.monitor.n == before
    stream.close()
    assert guard.monitor.n == before + 1


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (3, "chunk: found int; expected a str, bytes, or a list of token ids"),
        (None, "chunk: found NoneType"),
        ([1.5], "chunk: found list"),
        ([[1]], "chunk: found list"),
        ([10**6], "token ids: found 1000000 to 1000000; expected 0 to"),
        ([-1, 3], "token ids: found -1 to 3"),
        ("\ud800", "a lone surrogate"),
    ],
)
def test_chunks_that_are_none(guard: Guard, chunk: Any, words: str) -> None:
    """Invalid chunks are refused, and the stream is unchanged."""
    with guard.stream(prompt=PROMPT) as stream:
        with pytest.raises(InputError, match=words):
            stream.push(chunk)
        same(stream.push(" ok"), guard.check(prompt=PROMPT, response=" ok"))


def test_kinds_of_chunks_do_not_mix(guard: Guard) -> None:
    """Text after ids, ids after text, and text within a character are refused."""
    with guard.stream(prompt=PROMPT) as stream:
        stream.push([40, 41])
        with pytest.raises(InputError, match="found text after token ids"):
            stream.push("x")
    with guard.stream(prompt=PROMPT, response="a") as stream, pytest.raises(InputError) as error:
        stream.push([40])
    assert "found token ids after text" in str(error.value)
    with guard.stream(prompt=PROMPT) as stream:
        stream.push("雨".encode()[:1])
        with pytest.raises(InputError, match="expected the remaining bytes of that character"):
            stream.push("x")


@pytest.mark.parametrize("stride", [0, -1, 2.5, None])
def test_a_stride_that_is_none(guard: Guard, stride: Any) -> None:
    """An invalid stride is refused."""
    with pytest.raises(InputError, match="expected a whole number of tokens, at least 1"):
        guard.stream(prompt=PROMPT, stride=stride)


def test_finishing_within_a_character(guard: Guard) -> None:
    """Bytes of an incomplete character become U+FFFD."""
    with guard.stream(prompt=PROMPT) as stream:
        stream.push("雨".encode()[:2])
        verdict = stream.finish()
        assert verdict.unread_tokens == 0
        same(verdict, guard.check(prompt=PROMPT, response="\ufffd"))


def test_invalid_bytes_are_replaced(guard: Guard) -> None:
    """Invalid UTF-8 is decoded as with errors='replace'."""
    with guard.stream(prompt=PROMPT) as stream:
        verdict = stream.push(b"a\xff\xfe b")
    same(verdict, guard.check(prompt=PROMPT, response=b"a\xff\xfe b".decode(errors="replace")))


def test_memory_is_bounded_by_the_window(guard: Guard) -> None:
    """Caches hold at most one window, for any length and any number of forks."""
    window = guard.bundle.manifest.text.max_tokens
    with guard.stream(prompt=PROMPT, stride=500) as stream:
        largest = 0
        for _ in range(120):
            stream.push(" the garden was quiet before the rain")
            largest = max(largest, stream.nbytes)
        assert stream.rescoring is not None
        one = guard.streams.resources.decode_graph.new_cache()
        place = sum(np.prod(b.shape[1::2]) * b.itemsize for b in one.feeds.values())
        assert largest <= 2 * (window * 9 / 8 + 64) * place
        assert stream.fork().nbytes == stream.nbytes


def test_streams_in_many_threads(guard: Guard) -> None:
    """Streams of one guard do not disturb each other."""
    answers = [f" boats lay {n} still near the river {n} and low hills" for n in range(6)]

    def written(answer: str) -> float:
        with guard.stream(prompt=PROMPT) as stream:
            for start in range(0, len(answer), 3):
                stream.push(answer[start : start + 3])
            return stream.verdict.readings["siren"].score

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(written, answers * 2))
    assert found == [written(answer) for answer in answers] * 2


def test_a_graph_that_fails_closes_the_stream(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views may be inconsistent after an error, so the stream is closed."""
    stream = guard.stream(prompt=PROMPT)

    def fail(*_: object, **__: object) -> None:
        raise BundleError("decode.onnx", ["it fails"])

    monkeypatch.setattr(guard.streams.resources.decode_graph, "advance", fail)
    with pytest.raises(BundleError):
        stream.push(" x")
    with pytest.raises(InputError, match="the stream is closed"):
        stream.push(" y")


def test_states_that_are_not_finite_flag(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with non-finite states gives a flagged, invalid verdict from then on."""
    stream = guard.stream(prompt=PROMPT)
    decode_graph = guard.streams.resources.decode_graph
    advance = decode_graph.advance

    def broken(*arguments: Any, **options: Any) -> Any:
        step = advance(*arguments, **options)
        step.states[1][:] = np.nan
        return step

    with monkeypatch.context() as patch:
        patch.setattr(decode_graph, "advance", broken)
        verdict = stream.push(" x")
        assert verdict.flagged
        assert verdict.status == "invalid"
    verdict = stream.push(" and boats")
    assert verdict.readings["siren"].status == verdict.readings["weightwatch"].status == "invalid"


def test_a_decode_graph_that_changed_after_loading_is_refused(tmp_path: Path) -> None:
    """It is opened on first use and must equal the verified one."""
    bundle = tiny_decoder.make_bundle(tmp_path / "bundle")
    guard = Guard.load(bundle, threads=1)
    graph = bundle / "decode.onnx"
    guard.stream(prompt=PROMPT).close()
    late = Guard.load(bundle, threads=1)
    model = onnx.load(str(graph))
    model.doc_string = "another"
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="changed after it was loaded"):
        late.stream(prompt=PROMPT)
