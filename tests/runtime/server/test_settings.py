"""The settings: file, variables, flags, and all faults at once."""

from collections import Counter
from pathlib import Path

import pytest

from layerguard.runtime import InputError
from layerguard.runtime.cli import main
from layerguard.runtime.cli.serve import named_bundles
from layerguard.runtime.server.config import CONTRACT_NAMES, Config
from layerguard.runtime.server.contracts import CONTRACTS
from layerguard.runtime.server.extproc.processor import CONTRACT as EXTPROC
from layerguard.runtime.server.settings import read_config, settings

_FILE = """
[bundles]
main = "guard/"
[http]
port = 9000
[scheduler]
deadline_s = 2
[guard]
detector_modes = {first = "shadow"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of settings."""
    path = tmp_path / "guard.toml"
    path.write_text(_FILE, encoding="utf-8")
    return path


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(file: Path) -> None:
    """And what nobody sets has its default."""
    environment = {"LAYERGUARD_PORT": "9001", "LAYERGUARD_WORKERS": "3"}
    config = read_config(file, {"port": "9002"}, {}, environment)
    assert config.http.port == 9002
    assert read_config(file, {}, {}, environment).http.port == 9001
    assert read_config(file, {}, {}, {}).http.port == 9000
    assert config.scheduler.workers == 3
    assert config.scheduler.deadline_s == 2
    assert config.bundles == {"main": "guard/"}
    assert config.streams == Config().streams


def test_bundles_of_the_command_line_replace_those_of_the_file(file: Path) -> None:
    """They are not mixed."""
    assert read_config(file, {}, {"other": "x"}, {}).bundles == {"other": "x"}


def test_modes_are_read_from_flags_and_files_alike(file: Path) -> None:
    """``name=mode,name=mode`` is the text of a table."""
    config = read_config(file, {"route_modes": "native=shadow,oip-v2=off"}, {}, {})
    assert config.guard.route_modes == {"native": "shadow", "oip-v2": "off"}
    assert config.guard.detector_modes == {"first": "shadow"}


def test_categories_are_texts(file: Path) -> None:
    """Given ones replace the default; another type is a fault."""
    assert read_config(None, {}, {"main": "b"}, {}).contracts.categories == {"illicit": "guard"}
    given = read_config(file, {"categories": "hate=first"}, {"main": "b"}, {})
    assert given.contracts.categories == {"hate": "first"}
    file.write_text("[contracts.categories]\nhate = 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected names with texts"):
        read_config(file, {}, {"main": "b"}, {})


def test_all_faults_are_listed_at_once(file: Path) -> None:
    """With where they stand, what was found and what was expected."""
    file.write_text(
        "[htp]\nport = 1\n[http]\nprt = 1\nport = 70000\nhost = 3\n[guard]\ndevice = 'gpu'\n"
        "on_unfamiliar = 'no'\nthreads = true\n[streams]\nstreams = 0\nstream_idle_s = nan\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        read_config(file, {"workers": "two", "route_modes": "a=b"}, {}, {"LAYERGUARD_MODE": "on"})
    message = str(caught.value)
    for fault in (
        "htp: no such section; did you mean 'http'?",
        "http.prt: no such setting; did you mean 'port'?",
        "http.port: found 70000; expected a whole number from 0 to 65535",
        "http.host: found 3; expected a text",
        "guard.device: found 'gpu'; expected 'cpu' or 'cuda'",
        "guard.on_unfamiliar: found 'no'; expected 'allow' or 'flag' or 'ask' or ''",
        "guard.threads: found True; expected a whole number, at least 0",
        "streams.streams: found 0; expected a whole number, at least 1",
        "streams.stream_idle_s: found nan; expected a number, at least 0.1",
        "--workers: found 'two'; expected a whole number, at least 1",
        "--route-modes: found {'a': 'b'}; expected names with enforce, shadow, off",
        "LAYERGUARD_MODE: found 'on'; expected 'enforce' or 'shadow' or 'off'",
        "bundles: found none; expected a folder or NAME=FOLDER",
    ):
        assert f"\n  - {fault}" in message
    assert message.count("\n") == 13


@pytest.mark.parametrize("content", [b"[http", b"\xff", b"http = 1\n[bundles]\na = 1\n"])
def test_a_file_that_is_no_settings_is_refused(file: Path, content: bytes) -> None:
    """With its name or its faults."""
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"not TOML|expected a section \[http\]"):
        read_config(file, {}, {}, {})


def test_the_mode_of_a_contract_that_does_not_exist_is_a_fault(file: Path) -> None:
    """A misspelt one would leave the contract in another mode."""
    assert {contract.name for contract in CONTRACTS} | {EXTPROC} == set(CONTRACT_NAMES)
    with pytest.raises(InputError, match="found 'litelm'; did you mean 'litellm'") as caught:
        read_config(file, {"route_modes": "litelm=off,native=off,xyz=off"}, {}, {})
    assert "found 'xyz'; expected one of native, native-streams" in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"tls_key": "key.pem"}, "http.tls_key: found 'key.pem' without tls_certificate"),
        ({"audit_file": "log"}, "audit.audit_file: found 'log' without audit_key_file"),
        ({"audit_chain": "on"}, "audit.audit_chain: found 'on' without audit_file"),
    ],
)
def test_a_setting_without_the_one_it_needs_is_a_fault(flags: dict[str, str], fault: str) -> None:
    """It would do nothing; switched off or empty, it needs none."""
    with pytest.raises(InputError, match=fault):
        read_config(None, flags, {"main": "b"}, {})
    whole = {"tls_key": "k", "tls_certificate": "c", "audit_file": "f", "audit_key_file": "k"}
    assert read_config(None, whole | {"audit_chain": "on"}, {"main": "b"}, {})
    off = {"tls_key": "", "audit_file": "", "audit_chain": "off", "audit_key_file": "k"}
    assert read_config(None, off, {"main": "b"}, {})


def test_no_two_sections_use_the_same_name() -> None:
    """Flags and variables have no section."""
    names = Counter(setting.name for setting in settings())
    assert max(names.values()) == 1
    assert not {"config", "check_config", "bundles"} & names.keys()


def test_every_default_is_within_its_own_bounds() -> None:
    """A default that is given as a flag is accepted."""
    plain = {s.name: str(s.default) for s in settings() if not isinstance(s.default, dict)}
    assert read_config(None, plain, {"a": "b"}, {}) == Config({"a": "b"})


def test_check_config_serves_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says whether the settings are usable."""
    assert main(["serve", "--config", str(file), "--check-config"]) == 0
    assert capsys.readouterr().out == "the settings are usable; bundles: main\n"
    assert main(["serve", "--config", str(file), "--check-config", "--port", "x"]) == 2
    assert "--port: found 'x'" in capsys.readouterr().err


def test_help_lists_the_words_that_a_setting_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    """And not the empty one, which its sentence explains."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    for flag in ("--mode {enforce,shadow,off}", "--on-unread {flag,allow,refuse}", "--port VALUE"):
        assert flag in shown


def test_a_bundle_has_the_name_of_its_folder_or_its_own(tmp_path: Path) -> None:
    """Two of the same name are refused."""
    folder = str(tmp_path / "guard")
    assert named_bundles([folder, "other=x=y"]) == {"guard": folder, "other": "x=y"}
    with pytest.raises(InputError, match="two bundles named 'guard'"):
        named_bundles([folder, "guard=x"])
