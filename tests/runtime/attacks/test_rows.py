"""Rows of JSONL that are malformed: each is named, and the others still run."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Guard
from layerguard.runtime.cli import main
from layerguard.runtime.rows.jsonl import read_rows
from tests.tiny import make_bundle

_GOOD = b'{"id": "good", "text": "the garden"}'

_ROWS: dict[str, tuple[bytes, str]] = {
    "words": (b"this is no JSON", "not JSON (Expecting value, column 1); expected an object"),
    "half": (b'{"text": "the', "not JSON (Invalid control character"),
    "single-quotes": (b"{'text': 'the'}", "not JSON"),
    "two-objects": (b'{"text": "a"} {"text": "b"}', "not JSON (Extra data, column 15)"),
    "trailing-comma": (b'{"text": "a"},', "not JSON (Extra data"),
    "list": (b'["the garden"]', "found list; expected a JSON object"),
    "text": (b'"the garden"', "found str; expected a JSON object"),
    "number": (b"7", "found int; expected a JSON object"),
    "null": (b"null", "found NoneType; expected a JSON object"),
    "true": (b"true", "found bool; expected a JSON object"),
    "NaN": (b"NaN", "found float; expected a JSON object"),
    "not-utf-8": (b'{"text": "\xff"}', "not UTF-8 at byte 10"),
    "utf-16": ('{"text": "a"}'.encode("utf-16-le"), "not JSON"),
    "latin-1": ('{"text": "é"}'.encode("latin-1"), "not UTF-8 at byte 10"),
    "zero-bytes": (bytes(20), "not JSON"),
    "control-character": (b'{"text": "a\x01"}', "not JSON (Invalid control character"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "endless-number": (b'{"text": "a", "label": ' + b"9" * 5_000 + b"}", "4300 digits"),
    "empty-object": (b"{}", "found nothing; expected exactly one of text, prompt, messages"),
    "no-text": (b'{"id": "7", "label": 0}', "found nothing; expected exactly one"),
    "other-key": (b'{"txt": "the garden"}', "found nothing; expected exactly one"),
    "null-text": (b'{"text": null}', "found nothing; expected exactly one"),
    "number-for-text": (b'{"text": 7}', "text: found int; expected a str"),
    "list-for-text": (b'{"text": ["a"]}', "text: found list; expected a str"),
    "half-a-pair": (b'{"text": "\\ud800"}', "text: found '\\ud800', a lone surrogate"),
    "half-a-pair-in-the-id": (b'{"id": "\\udc00", "text": "a"}', "id: found '\\udc00'"),
    "half-a-pair-in-the-domain": (b'{"domain": "\\udc00", "text": "a"}', "domain: found"),
    "a-key-twice": (b'{"text": "a", "text": "b"}', "the key 'text' appears twice in one object"),
    "a-key-twice-inside": (
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        "the key 'content' appears twice in one object",
    ),
    "too-long": (b'{"text": "' + b"a" * (9 << 20) + b'"}', "found more than 8388608 bytes"),
    "text-and-prompt": (b'{"text": "a", "prompt": "b"}', "found text and prompt"),
    "text-prompt-and-response": (
        b'{"text": "a", "prompt": "b", "response": "c"}',
        "found text and prompt",
    ),
    "response-alone": (b'{"response": "a"}', "found only response"),
    "messages-are-text": (b'{"messages": "hello"}', "messages: found str; expected a list"),
    "messages-are-texts": (b'{"messages": ["hello"]}', "messages[0]: found str"),
    "messages-are-empty": (b'{"messages": []}', "messages: found an empty list"),
    "no-role": (b'{"messages": [{"content": "a"}]}', "a role of type NoneType"),
    "content-is-a-number": (
        b'{"messages": [{"role": "user", "content": 7}]}',
        "content is int; expected a str",
    ),
    "tools-are-a-number": (
        b'{"messages": [{"role": "user", "content": "a"}], "tools": 7}',
        "tools: found int",
    ),
    "label-is-two": (b'{"text": "a", "label": 2}', "label: found 2; expected 0 (clean) or 1"),
    "label-is-a-word": (b'{"text": "a", "label": "harmful"}', "label: found 'harmful'"),
    "label-is-a-half": (b'{"text": "a", "label": 0.5}', "label: found 0.5"),
    "label-is-a-list": (b'{"text": "a", "label": [1]}', "label: found [1]"),
    "label-is-NaN": (b'{"text": "a", "label": NaN}', "label: found nan"),
}


@pytest.mark.parametrize("case", _ROWS)
def test_malformed_rows_are_named_and_the_others_run(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """File, line, what was found and expected on stderr; the good rows on stdout; exit 2."""
    line, word = _ROWS[case]
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"\n".join([_GOOD, line, _GOOD]) + b"\n")
    assert main(["score", str(sound), "--input", str(rows), "--json"]) == 2
    out, err = capsys.readouterr()
    assert [json.loads(item)["id"] for item in out.splitlines()] == ["good", "good"]
    assert f"{rows}:2: " in err
    assert word in err
    assert len(err.splitlines()) == 1


def test_a_file_of_faults_alone_lists_the_first(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no row is good, the error is the file's, with some of its rows' faults."""
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"\n".join(line for line, _ in list(_ROWS.values())[:9]))
    assert main(["score", str(sound), "--input", str(rows)]) == 2
    err = capsys.readouterr().err
    assert "found no usable row; expected one JSON object per line" in err
    assert err.count(f"{rows}:") == 1 + 5


_FILES = {
    "missing": "No such file or directory",
    "folder": "Is a directory",
    "empty": "found no usable row",
    "blank-lines": "found no usable row",
    "a-picture": "not UTF-8 at byte 0",
}


@pytest.mark.parametrize("case", _FILES)
def test_what_is_no_file_of_rows_is_named(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """A path that leads to no rows is refused by its name."""
    rows = tmp_path / "rows.jsonl"
    if case == "folder":
        rows.mkdir()
    elif case != "missing":
        rows.write_bytes({"empty": b"", "blank-lines": b"\n \n\t\n"}.get(case, b"\x89PNG\r\n\x1a"))
    assert main(["score", str(sound), "--input", str(rows)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(rows) in err
    assert _FILES[case] in err


_ODD_BUT_GOOD: dict[str, bytes] = {
    "carriage-returns": b'{"text": "a"}\r\n{"text": "the"}\r\n',
    "blank-lines": b'\n\n{"text": "a"}\n   \n{"text": "the"}\n\n',
    "no-last-newline": b'{"text": "a"}\n{"text": "the"}',
    "trailing-spaces": b'{"text": "a"}   \n  {"text": "the"}\t\n',
    "numbers-as-ids": b'{"id": 1, "text": "a"}\n{"id": null, "text": "the"}\n',
    "text-with-response": b'{"text": "a", "response": "b"}\n{"prompt": "the", "response": ""}\n',
    "labels": b'{"text": "a", "label": 1.0}\n{"text": "the", "label": null}\n',
    "unknown-keys": b'{"text": "a", "colour": [1, {}]}\n{"text": "the", "NaN": NaN}\n',
    "line-separator-inside": '{"text": "a\u2028b"}\n{"text": "the\u0085"}\n'.encode(),
}


@pytest.mark.parametrize("case", _ODD_BUT_GOOD)
def test_odd_rows_are_read(tmp_path: Path, case: str) -> None:
    """What is odd and unmistakable is read."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_ODD_BUT_GOOD[case])
    rows = read_rows([path])
    assert len(rows.good) == 2
    assert not rows.faults
    assert all(row.id not in ("", "None") for row in rows.good)


def test_a_chat_that_the_template_refuses_stops_only_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that is well-formed and refused later is named by its line; the others run."""
    source = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}a"
    bundle = make_bundle(tmp_path / "bundle", template="chat", chat_template=source)
    turn = {"role": "user", "content": "a"}
    values: list[dict[str, Any]] = [{"messages": [turn] * count} for count in (1, 2, 1, 3, 1)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, values)))
    assert main(["score", str(bundle), "--input", str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    ids = [json.loads(item)["id"] for item in out.splitlines()]
    assert ids == ["rows-1", "rows-3", "rows-5"]
    assert f"{path}:2: " in err
    assert f"{path}:4: " in err
    assert err.count("one turn only") == 2


def test_rows_may_come_through_a_pipe(guard: Guard, tmp_path: Path) -> None:
    """A pipe with a writer is a file of rows too, as the shell's <(...) gives it."""
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(_GOOD,))
    writer.start()
    (row,) = read_rows([pipe]).good
    writer.join()
    assert guard.check_requests([row.request])[0].status == "ok"
