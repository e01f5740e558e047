"""Put a calibrated bundle's detectors and decision into one ONNX graph, fused.onnx.

Any ONNX Runtime binding runs it without LayerGuard code. Inputs are token ids and mask; outputs are
a score and a p-value for each detector, and `flagged`. The graph uses only standard operators and
shares the bundle's weights.data. Thresholds are optional inputs. A score that is not finite is
flagged. If the bundle has a decode graph, fused_decode.onnx is written too; it reads a text in
chunks.

Before anything is written, graph and runtime read the same texts, one by one and in batches. No
score may differ by more than 1e-5 of 1 + |score| (2e-3 for a float16 model), and no verdict may
differ. Commands that change the detectors (calibrate, recalibrate, import-siren) remove the fused
graphs: fuse again.
"""

from argparse import ArgumentParser
from pathlib import Path

from layerguard.runtime.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    parser.add_argument(
        "--texts",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="rows to prove the graph on (default: texts of several lengths and scripts)",
    )
    options.add_session(parser)
