"""Reads the settings of the server: a TOML file, variables and flags.

Every setting of ``config`` stands in one section of the file and is also a flag, ``--batch-rows``,
and an environment variable, ``LAYERGUARD_BATCH_ROWS``. A flag wins over a variable, and a variable
over the file. All faults are listed at once.
"""

import dataclasses
import difflib
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.config import (
    AuditConfig,
    Config,
    ContractConfig,
    GuardConfig,
    HttpConfig,
    Rule,
    SchedulerConfig,
    StreamConfig,
    TraceConfig,
)

PREFIX = "LAYERGUARD_"
"""Of the environment variables."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: where it stands, its type and default, and what it means."""

    section: str
    name: str
    kind: Any
    default: Any
    rule: Rule

    @property
    def flag(self) -> str:
        """Its flag."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def choices(self) -> list[str]:
        """The words that it may be; empty if it is a number, a table or any text."""
        if isinstance(self.default, dict):
            return []
        parts = [part for one in (self.kind, *get_args(self.kind)) for part in get_args(one)]
        return list(dict.fromkeys(part for part in parts if isinstance(part, str)))


_SECTIONS: Mapping[str, Any] = {
    "http": HttpConfig,
    "guard": GuardConfig,
    "audit": AuditConfig,
    "traces": TraceConfig,
    "scheduler": SchedulerConfig,
    "streams": StreamConfig,
    "contracts": ContractConfig,
}


def settings() -> Iterator[Setting]:
    """All settings but the bundles, in the order of the file."""
    for section, kind in _SECTIONS.items():
        hints = get_type_hints(kind, include_extras=True)
        for one in dataclasses.fields(kind):
            made = one.default_factory
            default = one.default if made is dataclasses.MISSING else made()
            own, rule = get_args(hints[one.name])
            yield Setting(section, one.name, own, default, rule)


def read_config(
    path: Path | None,
    flags: Mapping[str, str],
    bundles: Mapping[str, str],
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """The settings of a file, changed by variables, and these by flags.

    Args:
        path: the TOML file, or None.
        flags: texts by name of the setting.
        bundles: bundles of the command line; if there are any, they replace those of the file.
        environment: the variables.

    Raises:
        InputError: the file cannot be read, or settings are wrong; the message lists every fault.
    """
    faults: list[str] = []
    table = _table(path)
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for setting in settings():
        section = table.get(setting.section, {})
        given: list[tuple[str, Any]] = []
        if isinstance(section, dict) and setting.name in section:
            given.append((f"{setting.section}.{setting.name}", section[setting.name]))
        if setting.variable in environment:
            given.append((setting.variable, _parsed(setting, environment[setting.variable])))
        if setting.name in flags:
            given.append((setting.flag, _parsed(setting, flags[setting.name])))
        for where, value in given:  # the last one wins; all are checked
            fault = _fault(setting, value)
            if fault:
                faults.append(f"{where}: {fault}")
            values[setting.section][setting.name] = value
    named = bundles or table.get("bundles", {})
    faults += _unknown(table) + _bundle_faults(named)
    faults += _shadow_faults(values["guard"].get("shadow"), named)
    faults += _alone_faults(values)
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise InputError(f"the settings are not usable:{listed}")
    return Config(named, **{name: kind(**values[name]) for name, kind in _SECTIONS.items()})


def _table(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not TOML ({error}); expected a file of settings") from error


def _parsed(setting: Setting, text: str) -> Any:
    """The value of a flag or variable; the text itself if it cannot be one."""
    if isinstance(setting.default, dict):
        pairs = [part.partition("=") for part in text.split(",") if part]
        return {name: value for name, _, value in pairs}
    try:
        return setting.kind(text) if setting.kind in (int, float) else text
    except ValueError:
        return text


def _fault(setting: Setting, value: Any) -> str:
    """What is wrong with a value; empty if nothing is."""
    kind = setting.kind
    if isinstance(setting.default, dict):
        words = get_args(get_args(kind)[1])
        if not isinstance(value, dict) or not all(
            one in words if words else isinstance(one, str) for one in value.values()
        ):
            return f"found {value!r}; expected names with {', '.join(words) or 'texts'}"
        known = list(setting.rule.names)
        strange = [name for name in value if known and name not in known]
        return "; ".join(f"found {name!r}{_hint(name, known)}" for name in strange)
    if kind in (int, float):
        wrong = isinstance(value, bool) or not isinstance(value, (int, kind))
        if wrong or not math.isfinite(value) or not _within(setting, value):
            return f"found {value!r}; expected {_expected(setting)}"
        return ""
    if setting.choices and value not in setting.choices:
        return f"found {value!r}; expected {' or '.join(map(repr, setting.choices))}"
    return "" if isinstance(value, str) else f"found {value!r}; expected a text"


def _within(setting: Setting, value: float) -> bool:
    low = setting.rule.least is None or value >= setting.rule.least
    return low and (setting.rule.most is None or value <= setting.rule.most)


def _expected(setting: Setting) -> str:
    what = "a whole number" if setting.kind is int else "a number"
    if setting.rule.most is not None:
        return f"{what} from {setting.rule.least:g} to {setting.rule.most:g}"
    return what if setting.rule.least is None else f"{what}, at least {setting.rule.least:g}"


def _unknown(table: Mapping[str, Any]) -> list[str]:
    """Sections and settings that do not exist."""
    known: dict[str, list[str]] = {section: [] for section in _SECTIONS}
    for setting in settings():
        known[setting.section].append(setting.name)
    faults = []
    for section, content in table.items():
        if section == "bundles":
            continue
        if section not in known:
            faults.append(f"{section}: no such section{_hint(section, [*known, 'bundles'])}")
        elif not isinstance(content, dict):
            faults.append(f"{section}: found {content!r}; expected a section [{section}]")
        else:
            faults += [
                f"{section}.{name}: no such setting{_hint(name, known[section])}"
                for name in content
                if name not in known[section]
            ]
    return faults


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(known)}"


def _bundle_faults(named: Any) -> list[str]:
    if not isinstance(named, Mapping) or not named:
        return ["bundles: found none; expected a folder or NAME=FOLDER, or a section [bundles]"]
    return [
        f"bundles.{name}: found {where!r}; expected a folder or the name of an installed bundle"
        for name, where in named.items()
        if not isinstance(where, str) or not where or not name
    ]


def _alone_faults(values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Settings that need another one, which is not set."""
    pairs = (
        ("http", "tls_key", "tls_certificate", "a certificate"),
        ("audit", "audit_file", "audit_key_file", "a file with the key of its HMACs"),
        ("audit", "audit_chain", "audit_file", "a file for the log"),
    )
    return [
        f"{section}.{name}: found {values[section][name]!r} without {needed}; expected {what}"
        for section, name, needed, what in pairs
        if values[section].get(name, "off") not in ("", "off") and not values[section].get(needed)
    ]


def _shadow_faults(shadow: Any, named: Any) -> list[str]:
    """Candidates that are not served, or that would be compared with themselves."""
    if not isinstance(shadow, Mapping) or not isinstance(named, Mapping):
        return []
    return [
        f"guard.shadow: found {served!r} with {candidate!r}; expected two of {', '.join(named)}"
        for served, candidate in shadow.items()
        if served == candidate or served not in named or candidate not in named
    ]
