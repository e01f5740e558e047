"""The bill of materials names what the package is made of and what it needs."""

import json
import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_requirement_stands_in_it() -> None:
    """Each once, beside the code that is compiled in; every reference leads somewhere."""
    bill = runpy.run_path(str(ROOT / "runtime" / "build" / "sbom.py"))["bill"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = bill(project, "2.0.0")
    assert json.dumps(found) == json.dumps(bill(project, "2.0.0"))
    required = [c["properties"][0]["value"] for c in found["components"] if "properties" in c]
    assert required == sorted(project["dependencies"])
    compiled = [c["purl"] for c in found["components"] if "properties" not in c]
    assert compiled == ["pkg:pypi/cffi@2.0.0"]
    refs = [c["bom-ref"] for c in (found["metadata"]["component"], *found["components"])]
    assert sorted(refs) == sorted(entry["ref"] for entry in found["dependencies"])
    assert len(set(refs)) == len(refs)


def test_another_version_is_another_bill() -> None:
    """The serial number says what the bill is of."""
    bill = runpy.run_path(str(ROOT / "runtime" / "build" / "sbom.py"))["bill"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    other = {**project, "version": "9.9"}
    assert bill(project, "2.0.0")["serialNumber"] != bill(other, "2.0.0")["serialNumber"]
