"""Arguments of every command in any order, and ``-`` for standard input."""

import io
import json
import random
import sys
from argparse import Action
from itertools import count, pairwise
from pathlib import Path

import pytest

from layerguard.runtime.cli import COMMANDS, command_parser, main
from layerguard.runtime.cli.arguments import Parser
from tests.tiny_decoder import make_bundle

_ORDERS = 60
_NUMBERS = ("int", "float", "_seed", "_count", "layers_argument")
"""Names of the types that take a 3."""


def _parser(name: str) -> Parser:
    return command_parser(name)


def _values(parser: Parser, folder: Path) -> dict[str, tuple[Action, tuple[str, ...]]]:
    """A valid value for each argument; folders get different names."""
    found = {}
    numbers = count()
    for action in parser._actions:
        if action.dest == "help" or action.nargs == 0:
            found[action.dest] = (action, ())
            continue
        words = []
        for _ in range(2 if action.nargs == "+" else 1):
            if action.choices:
                word = str(next(iter(action.choices)))
            elif getattr(action.type, "__name__", "") in _NUMBERS:
                word = "3"
            else:
                (folder / f"{next(numbers)}").mkdir()
                word = str(folder / f"{next(numbers) - 1}")
            words.append(word)
        found[action.dest] = (action, tuple(words))
    del found["help"]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_any_order_of_arguments_is_understood(name: str, tmp_path: Path) -> None:
    """Options may stand before, between and behind the positional arguments.

    An option that takes several values ends at the next option or at ``--``; orders in which it
    would swallow an argument are left out.
    """
    parser = _parser(name)
    values = _values(parser, tmp_path)
    operands = [w for action, words in values.values() if not action.option_strings for w in words]
    options = [
        (action.option_strings[-1], *words)
        for action, words in values.values()
        if action.option_strings
    ]
    greedy = {
        a.option_strings[-1] for a, _ in values.values() if a.option_strings and a.nargs == "+"
    }
    draw = random.Random(name)
    first, tried = None, 0
    for _ in range(_ORDERS):
        draw.shuffle(options)
        places = sorted(draw.sample(range(len(options) + len(operands)), len(operands)))
        typed: list[tuple[str, ...]] = list(options)
        for place, operand in zip(places, operands, strict=True):
            typed.insert(place, (operand,))
        if any(a[0] in greedy and not b[0].startswith("-") for a, b in pairwise(typed)):
            continue
        found = vars(parser.parse([word for words in typed for word in words]))
        first = found if first is None else first
        assert found == first, typed
        tried += 1
    assert tried > 5
    assert first is not None
    assert set(values) == set(first)
    for action, words in values.values():
        value = first[action.dest]
        read = value if isinstance(value, list) else [value]
        assert [str(item) for item in read] == [str(_typed(action, word)) for word in words or "?"]


def _typed(action: Action, word: str) -> object:
    if action.nargs == 0:
        return action.const
    return action.type(word) if callable(action.type) else word


@pytest.mark.parametrize("before", [[], ["--json"], ["--threads", "1"]])
@pytest.mark.parametrize("text", ["-5", "--json", "-x y", "--"])
def test_behind_two_dashes_everything_is_text(before: list[str], text: str) -> None:
    """After ``--``, texts and bundles may look like options."""
    for arguments in (["B", *before, "--", text], [*before, "--", "B", text]):
        found = _parser("generate").parse(arguments)
        if text != "--":  # which argparse takes for itself
            assert found.prompt == text
        assert str(found.bundle) == "B"


def test_what_is_unknown_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The error includes the usage of the whole command."""
    for arguments in (["B", "--bogus", "hi"], ["--bogus", "B"], ["B", "hi", "--bogus"]):
        with pytest.raises(SystemExit, match="2"):
            main(["score", *arguments])
        err = capsys.readouterr().err
        assert "usage: layerguard score [-h] [--input ROWS]" in err
        assert "BUNDLE [TEXT]" in err
        assert "unrecognized arguments: --bogus" in err


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that can score and generate."""
    return make_bundle(tmp_path_factory.mktemp("decoder") / "bundle")


def _piped(monkeypatch: pytest.MonkeyPatch, data: bytes, encoding: str = "utf-8") -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding=encoding))


_TEXT = "der stille Garten, später"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (_TEXT.encode(), "utf-8"),
        (f"{_TEXT}\n".encode(), "utf-8"),
        (f"{_TEXT}\r\n".encode(), "utf-8"),
        (f"\ufeff{_TEXT}\n".encode(), "utf-8"),
        (_TEXT.encode(), "ascii"),
        (_TEXT.encode(), "latin-1"),
    ],
    ids=["bare", "line", "CRLF", "byte-order mark", "in ASCII", "in Latin-1"],
)
def test_a_dash_reads_the_text_from_standard_input(
    decoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    encoding: str,
) -> None:
    """The text is that of an argument, in UTF-8 whatever the locale, without its last line end."""
    for command, key in (("score", "readings"), ("generate", "verdict")):
        short = ["--max-new-tokens", "2", "--on-flag", "log"] if command == "generate" else []
        said = []
        for text in (_TEXT, "-"):
            _piped(monkeypatch, data, encoding)
            assert main([command, str(decoder), "--json", *short, text]) in (0, 1)
            line = json.loads(capsys.readouterr().out.splitlines()[0])
            found = line[key]
            said.append(found.get("readings", found))
        assert said[0] == said[1]


def test_a_dash_reads_rows_from_standard_input(
    decoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--input -`` reads rows; a bad row is named by its line."""
    _piped(monkeypatch, b'\xef\xbb\xbf{"text": "a"}\n\nno\n{"id": "x", "text": "b"}\n')
    assert main(["score", "--input", "-", "--json", str(decoder)]) == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["stdin-1", "x"]
    assert err.startswith("layerguard score: standard input:3: not JSON")


def test_closed_standard_input_is_named(
    decoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says that standard input is closed."""
    monkeypatch.setattr(sys, "stdin", None)
    for arguments in (["-"], [], ["--input", "-"]):
        assert main(["score", str(decoder), *arguments]) == 2
        assert "standard input is closed" in capsys.readouterr().err
    assert main(["score", str(decoder), "a"]) in (0, 1)
