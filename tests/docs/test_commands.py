"""Every shell command of README and documentation is one that the program takes."""

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, Block, blocks, commands, inline_commands, lines
from tests.docs.parsing import faults, unknown_words

SHELL = [block for page in PAGES for block in blocks(page, "sh")]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_parses(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the parser of the command; of other programs, targets, modules and extras exist."""
    monkeypatch.chdir(tmp_path)
    for line in lines(block.text):
        for words in commands(line):
            assert faults(words, tmp_path) == [], line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_running_text_exist(page: Path) -> None:
    """With the options that are named."""
    for command in inline_commands(page):
        assert unknown_words(command) == [], command


@pytest.mark.parametrize(
    "line",
    [
        "layerguard calibrat guard/",
        "layerguard calibrate guard/ --cleen clean.jsonl",
        "layerguard score",
        "layerguard export model/",
        "layerguard drift fit base/",
        "echo text | layerguard scored guard/ -",
        "make nothing-of-this-name",
        "python -m tests.bench.bench_nothing",
        "pip install 'layerguard[cpu,wings]'",
        "lazerguard score guard/",
    ],
)
def test_a_wrong_command_is_found(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt command, option, module, target, extra or program, and a missing argument."""
    monkeypatch.chdir(tmp_path)
    assert any(faults(words, tmp_path) for words in commands(line))


def test_a_wrong_option_in_running_text_is_found() -> None:
    """A command without such an option, and no such command."""
    assert unknown_words("layerguard eval --trian")
    assert unknown_words("layerguard evaluate")
    assert not unknown_words("layerguard eval --train")


def test_shell_lines_are_split_as_a_shell_splits_them() -> None:
    """Continuations, comments, pipes, redirections and quotes."""
    (line,) = lines('# a comment\nlayerguard trace b/ \\\n  --json > t.jsonl  # "why"\n')
    assert list(commands(line)) == [["layerguard", "trace", "b/", "--json"]]
    assert list(commands("echo 'a | b' | cat && ls")) == [["echo", "a | b"], ["cat"], ["ls"]]
