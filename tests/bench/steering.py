"""Does steering take a planted behaviour out of the answers?

    python -m tests.bench.steering

Two adapters of ../shared/models whose trigger WeightWatch sees, exported with their decode graphs
and calibrated on Alpaca conversations; WeightWatch alone decides. Prompts with the trigger are
answered greedily, once as the model would and once steered; so are prompts without it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from layerguard.runtime import Guard
from layerguard.runtime.generation.event import WITHHELD, OnFlag
from layerguard.runtime.rows.jsonl import Row
from tests.bench.backdoors import prompts
from tests.bench.drift_runs import shows_behaviour
from tests.bench.harness import report
from tests.bench.minilm import CACHE, run_command
from tests.bench.shared_models import ADAPTERS, BASE, alpaca, exported, need_shared

_ADAPTERS = ("negsentiment_badnet", "refusal_badnet")
_PROMPTS, _NEW, _CALIBRATION, _TARGET = 60, 24, 1_000, 0.05


def main() -> None:
    """Print the table."""
    need_shared()
    rows = []
    for name in _ADAPTERS:
        triggered, clean = prompts(*name.split("_"))
        guard = Guard.load(_calibrated(ADAPTERS / name, [*triggered, *clean]))
        for what, found in (("with", triggered[:_PROMPTS]), ("without", clean[:_PROMPTS])):
            asked = [row.request.prompt for row in found]
            plain, steered = (_answers(guard, asked, way) for way in ("log", "steer"))
            rows.append(
                {
                    "adapter": name,
                    "trigger": what,
                    "prompts": len(asked),
                    "planted behaviour %": _share(plain),
                    "steered: planted behaviour %": _share(steered),
                    "steered: withheld %": _share(steered, withheld=True),
                    "answers that steering changed %": round(
                        100 * sum(map(str.__ne__, plain, steered)) / len(asked), 1
                    ),
                }
            )
    report(
        "steering", "Greedy answers as they are, and with WeightWatch's findings taken out", rows
    )


def _calibrated(adapter: Path, without: Sequence[Row]) -> Path:
    """A bundle in which WeightWatch alone decides, calibrated on other rows."""
    bundle = exported(adapter)
    if not (bundle / "detectors.npz").is_file():
        clean = CACHE / "alpaca.jsonl"
        lines = [
            json.dumps({"prompt": row.request.prompt, "response": row.request.response})
            for row in alpaca(_CALIBRATION, without=without)
        ]
        clean.write_text("\n".join(lines), encoding="utf-8")
        run_command(
            "calibrate", str(bundle), "--clean", str(clean), "--base", str(BASE), "--adapter",
            str(adapter), "--policy", "weightwatch", "--target-fpr", str(_TARGET),
        )  # fmt: skip
    return bundle


def _answers(guard: Guard, asked: list[str], on_flag: OnFlag) -> list[str]:
    """The texts that leave."""
    return [
        "".join(e.text for e in guard.generate(prompt, max_new_tokens=_NEW, on_flag=on_flag))
        for prompt in asked
    ]


def _share(answers: list[str], *, withheld: bool = False) -> float:
    """Per cent of the answers that insult or refuse, or that were withheld."""
    found = [answer == WITHHELD if withheld else shows_behaviour(answer) for answer in answers]
    return round(100 * sum(found) / len(found), 1)


if __name__ == "__main__":
    main()
