"""Compare a tuned model with its base: which layers changed most, and what excites the change.

BASE is a folder with config.json and safetensors, or a GGUF file. TUNED is the tuned model in the
same form, or the folder of a LoRA adapter. The command reads only the matrices that write into the
residual stream: the outputs of attention (o_proj) and of the feed-forward part (down_proj), under
the names of every supported architecture.

With --bundle, exported from the tuned model, and --corpus, the command shows the texts that most
excite the strongest directions of the change, at both ends. They often show what tuning added.

With --harmless, each matrix is shown beside the range of its changes in fine-tunes of the same base
that are known to be harmless; those that changed by more are named.

The exit code is 1 if a matrix changed by more than --max-change. A bad row is reported with its
line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser
from pathlib import Path

from layerguard.calibration.defaults import RANKS
from layerguard.runtime.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("base", type=Path, metavar="BASE", help="folder of the model before tuning")
    add("tuned", type=Path, metavar="TUNED", help="folder of the tuned model, or of its adapter")
    add("--bundle", type=Path, metavar="BUNDLE", help="bundle of the tuned model, for --corpus")
    add("--corpus", type=Path, nargs="+", default=[], metavar="ROWS", help="texts to search")
    add(
        "--harmless",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="harmless fine-tunes of BASE, for comparison: each in the form of TUNED",
    )
    add(
        "--ranks",
        type=int,
        default=RANKS,
        metavar="N",
        help=f"number of singular values of each matrix (default: {RANKS})",
    )
    add(
        "--shown",
        type=int,
        default=10,
        metavar="N",
        help="matrices in the table, most changed first (default: 10); --json and --html show all",
    )
    add(
        "--directions",
        type=int,
        default=5,
        metavar="N",
        help="number of directions to search texts for, strongest first (default: 5)",
    )
    add(
        "--texts",
        type=int,
        default=5,
        metavar="N",
        help="number of texts at each end of a direction (default: 5)",
    )
    add(
        "--max-change",
        type=float,
        metavar="SHARE",
        help="exit with code 1 if the relative change of a matrix is above this share",
    )
    add("--html", type=Path, metavar="OUT.html", help="also write an HTML page with plots")
    options.add_json(parser)
    options.add_session(parser)
