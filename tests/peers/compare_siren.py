"""Compare ``layerguard import-siren`` with llm-siren itself; ``--write`` renews the golden file.

    python -m tests.peers.compare_siren [--write]

Makes an environment with llm-siren, small random backbones and heads of every kind, and asks both
runtimes the same: pairs, stream prefixes, chat markers, long texts, tools, alone and as a batch, on
whole graphs and on graphs without the blocks that a head does not need. Exit code 1 where a score
differs by more than 1e-5.
"""

import json
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from layerguard.runtime.cli import main as layerguard
from tests.peers.environment import ROOT, python_with
from tests.peers.siren_heads import EARLY, write_heads
from tests.peers.siren_models import make_backbone
from tests.peers.siren_peer import (
    GOLDEN,
    REQUIREMENT,
    Answers,
    largest_difference,
    our_answers,
    peer_answers,
)
from tests.peers.siren_shapes import BACKBONES, LAYERS
from tests.tolerances import GOLDEN as TOLERANCE

_TRAINED = ROOT.parent / "shared" / "models" / "base"
_TRAINED_LAYERS, _TRAINED_WIDTH, _TRAINED_TOKENS = 8, 192, 301


def main() -> int:
    """Compare and print one line a head."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {GOLDEN.name}")
    arguments = parser.parse_args()
    python = python_with(REQUIREMENT)
    golden: dict[str, Answers] = {}
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for kind in BACKBONES:
            base = make_backbone(work / kind, kind)
            heads = write_heads(work / "heads" / kind, str(base))
            golden[kind] = peer_answers(python, heads)
            worst = max(worst, _compare(base, heads, golden[kind], work, LAYERS))
        if _TRAINED.is_dir():
            heads = write_heads(
                work / "heads" / "base", str(_TRAINED), layers=_TRAINED_LAYERS,
                width=_TRAINED_WIDTH, agent_tokens=_TRAINED_TOKENS,
            )  # fmt: skip
            answers = peer_answers(python, heads)
            worst = max(worst, _compare(_TRAINED, heads, answers, work, _TRAINED_LAYERS))
        else:
            print("no ../shared/models/base beside this checkout: not compared on a trained model")
    print(f"largest difference {worst:.2g}; allowed {TOLERANCE:g}")
    if arguments.write:
        GOLDEN.parent.mkdir(exist_ok=True)
        content = {"peer": REQUIREMENT, "answers": golden}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        GOLDEN.write_text(f"{text}\n", encoding="utf-8")
        print(f"wrote {GOLDEN.relative_to(ROOT)}")
    return int(not worst <= TOLERANCE)


def _compare(base: Path, heads: dict[str, Path], theirs: Answers, work: Path, layers: int) -> float:
    """The largest difference over all heads of a backbone."""
    whole, lower = work / f"{base.name}-whole", work / f"{base.name}-lower"
    _run("export", base, "--out", whole, "--mlp", "--decode", "no")
    _run("export", base, "--out", lower, "--layers", layers // 2, "--decode", "no")
    trials = [(name, name, whole, ()) for name in heads]
    trials += [(name, name, lower, ()) for name in EARLY]
    trials.append(("agent_last", "agent_last_whole", whole, ("--last-layer", "hf")))
    worst = 0.0
    for head, answer, bundle, options in trials:
        _run("import-siren", heads[head], bundle, *options)
        difference = largest_difference(our_answers(bundle, head), theirs[answer])
        print(f"{bundle.name:<14} {answer:<18} {difference:.2e}")
        worst = max(worst, difference)
    return worst


def _run(*arguments: object) -> None:
    if layerguard(list(map(str, arguments))) != 0:
        raise SystemExit(f"layerguard {' '.join(map(str, arguments))} failed")


if __name__ == "__main__":
    sys.exit(main())
