"""What does a token of a stream cost, and what of a whole stream, against reading it anew?

A random Llama of 46 million weights in float32. Token 2,000 against token 20, with SIREN alone and
with SIREN, LCF and WeightWatch; a stream in chunks against one pass over the whole text; then the
next token of a text of 512 against ``Guard.check`` of that text, and against llm-siren's
``score_streaming``, which reads each prefix anew, with the same head on the same model in PyTorch.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from layerguard.runtime import Guard
from tests.bench.harness import measure, report
from tests.bench.streams import full_bundle, head_folder, pieces, siren_bundle
from tests.peers.environment import python_with
from tests.peers.siren_peer import REQUIREMENT

_EARLY, _LATE, _PREFIX, _WHOLE = 20, 2000, 512, 1024
_CHUNKS = (32, 128)
_SAME = 1e-5
_GOAL_FLAT, _GOAL_CHUNKS, _GOAL_ANEW = 1.2, 1.3, 20
"""Of token 2,000 / token 20; of all chunks / one pass; of a prefix read anew / one token."""


def main() -> None:
    guards = {"SIREN": Guard.load(siren_bundle()), "all three": Guard.load(full_bundle())}
    rows: list[dict[str, Any]] = []
    for name, guard in guards.items():
        rows += [_flat(name, guard), *_in_chunks(name, guard), _against_check(name, guard)]
    rows.append(_against_llm_siren(guards["SIREN"]))
    rows += _tokenising(guards["SIREN"])
    report("stream", "The cost of a token of a stream (46 million weights, float32)", rows)


def pushing(guard: Guard, position: int) -> Callable[[], object]:
    """Pushes the next token of a stream of so many; after a hundred it goes back to the first."""
    stream = guard.stream(prompt="", response="".join(pieces(position)))
    mark = stream.mark()
    ahead = cycle([*pieces(position + 100)[position:], None])

    def push() -> object:
        piece = next(ahead)
        return stream.push(piece) if piece is not None else stream.rollback(mark)

    return push


def _flat(name: str, guard: Guard) -> dict[str, Any]:
    early, late = pushing(guard, _EARLY), pushing(guard, _LATE)
    seconds = measure({"early": early, "late": late}, rounds=60)
    return {
        "what": f"{name}: token {_LATE} / token {_EARLY}",
        "stream ms": seconds["late"] * 1e3,
        "other ms": seconds["early"] * 1e3,
        "ratio": seconds["late"] / seconds["early"],
        "goal": f"<= {_GOAL_FLAT}",
    }


def _in_chunks(name: str, guard: Guard) -> Iterator[dict[str, Any]]:
    whole = "".join(pieces(_WHOLE))

    def streamed(size: int) -> Callable[[], object]:
        chunks = ["".join(pieces(_WHOLE)[i : i + size]) for i in range(0, _WHOLE, size)]

        def stream() -> object:
            with guard.stream(prompt="") as found:
                for chunk in chunks:
                    found.push(chunk)
            return found

        return stream

    contenders: dict[str, Callable[[], object]] = {
        "one pass": lambda: guard.check(prompt="", response=whole),
        **{str(size): streamed(size) for size in _CHUNKS},
    }
    seconds = measure(contenders, rounds=5)
    for size in _CHUNKS:
        yield {
            "what": f"{name}: {_WHOLE} tokens in chunks of {size} / one pass",
            "stream ms": seconds[str(size)] * 1e3,
            "other ms": seconds["one pass"] * 1e3,
            "ratio": seconds[str(size)] / seconds["one pass"],
            "goal": f"<= {_GOAL_CHUNKS}",
        }


def _against_check(name: str, guard: Guard) -> dict[str, Any]:
    prefix = "".join(pieces(_PREFIX))
    both = {
        "stream": pushing(guard, _PREFIX),
        "check": lambda: guard.check(prompt="", response=prefix),
    }
    seconds = measure(both, rounds=15)
    return {
        "what": f"{name}: check of {_PREFIX} tokens / the next token",
        "stream ms": seconds["stream"] * 1e3,
        "other ms": seconds["check"] * 1e3,
        "ratio": seconds["check"] / seconds["stream"],
        "goal": f">= {_GOAL_ANEW}",
    }


def _against_llm_siren(guard: Guard) -> dict[str, Any]:
    """Rounds of both in turn, each in a process of its own that waits while the other works."""
    prefix = "".join(pieces(_PREFIX))
    script = Path(__file__).with_name("llm_siren_prefix.py")
    push = pushing(guard, _PREFIX)
    command = [str(python_with(REQUIREMENT)), str(script), str(head_folder())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:

        def ask() -> float:
            assert peer.stdin is not None
            assert peer.stdout is not None
            peer.stdin.write(json.dumps(prefix) + "\n")
            peer.stdin.flush()
            return float(json.loads(peer.stdout.readline()))

        theirs, ours = ask(), guard.check(prompt="", response=prefix).readings["siren"].score
        if abs(theirs - ours) > _SAME:
            raise SystemExit(f"llm-siren scores {theirs}, we score {ours}: not the same head")
        seconds = measure({"stream": push, "llm-siren": ask}, rounds=15)
        peer.communicate()
    return {
        "what": f"SIREN: {REQUIREMENT} on the prefix of {_PREFIX} tokens / the next token",
        "stream ms": seconds["stream"] * 1e3,
        "other ms": seconds["llm-siren"] * 1e3,
        "ratio": seconds["llm-siren"] / seconds["stream"],
        "goal": f">= {_GOAL_ANEW}",
    }


def _tokenising(guard: Guard) -> Iterator[dict[str, Any]]:
    """How much of a push is laying out and tokenising its text."""
    for position in (_EARLY, _LATE):
        stream = guard.stream(prompt="", response="".join(pieces(position)))
        verdicts = [stream.push(piece) for piece in pieces(position + 50)[position:]]
        times = sorted(verdict.timings_ms["tokenize"] for verdict in verdicts)
        yield {
            "what": f"SIREN: tokenising at token {position}",
            "stream ms": times[len(times) // 2],
        }


if __name__ == "__main__":
    main()
