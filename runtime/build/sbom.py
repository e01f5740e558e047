"""Write the wheel's bill of materials: CycloneDX JSON, for ``dist-info/sboms`` (PEP 770).

    python -P runtime/build/sbom.py pyproject.toml layerguard.cdx.json

Run by CMake when the package is built; not part of the installed package. The wheel contains our
code and the compiled code that cffi generates. Requirements are listed without versions, since the
installer chooses them. The same sources give the same bytes.
"""

import json
import re
import sys
import tomllib
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

_GENERATED = "The C code that cffi generates around the core; compiled into the extension module."
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def bill(project: dict[str, Any], cffi: str) -> dict[str, Any]:
    """The bill of materials for the ``project`` table of a pyproject.toml.

    Format: https://cyclonedx.org/docs/1.6/json/
    """
    ours = f"pkg:pypi/{project['name']}@{project['version']}"
    compiled = {
        "type": "library",
        "bom-ref": f"pkg:pypi/cffi@{cffi}#generated",
        "name": "cffi",
        "version": cffi,
        "description": _GENERATED,
        "licenses": [{"license": {"id": "MIT"}}],
        "purl": f"pkg:pypi/cffi@{cffi}",
    }
    required = [_required(requirement) for requirement in sorted(project["dependencies"])]
    refs = [str(component["bom-ref"]) for component in (compiled, *required)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, '+'.join([ours, *refs]))}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "library",
                "bom-ref": ours,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": ours,
            },
        },
        "components": [compiled, *required],
        "dependencies": [
            {"ref": ours, "dependsOn": refs},
            *({"ref": ref} for ref in refs),
        ],
    }


def _required(requirement: str) -> dict[str, Any]:
    """The component of a required package, whose version the installer chooses."""
    found = _NAME.match(requirement)
    assert found, requirement
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{found[0].lower()}",
        "name": found[0],
        "scope": "required",
        "purl": f"pkg:pypi/{found[0].lower()}",
        "properties": [{"name": "layerguard:requirement", "value": requirement}],
    }


if __name__ == "__main__":
    table = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    text = json.dumps(bill(table, version("cffi")), indent=1)
    Path(sys.argv[2]).write_text(f"{text}\n", encoding="utf-8")
