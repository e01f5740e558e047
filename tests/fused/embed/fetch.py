"""Download the dependencies of the tests in C, C++ and Node to ``.cache/embed``.

onnxruntime-node comes from npm, ONNX Runtime's C and C++ headers from Debian's libonnxruntime-dev
(1.21; Debian 13 and later). Programs compiled with them run on the library of the newer onnxruntime
package, which serves every older interface. Neither package is installed into the system.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / ".cache" / "embed"
MODULES, INCLUDE = FOLDER / "node_modules", FOLDER / "include"
_NODE_PACKAGE = "onnxruntime-node@1.30"
_DEBIAN_PACKAGE, _SUITE = "libonnxruntime-dev", "trixie"


def bring_node() -> None:
    """Download the Node binding with the CPU provider it contains; no install script is run."""
    if (MODULES / "onnxruntime-node").is_dir():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(FOLDER))
    subprocess.run(["npm", "install", *quiet, _NODE_PACKAGE], check=True)


def bring_headers() -> None:
    """Download the package's headers with apt from a suite that has them, and unpack them."""
    if (INCLUDE / "onnxruntime_c_api.h").is_file():
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _sources(folder)
        apt = ["apt-get", "-q", *_options(folder)]
        subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*apt, "download", _DEBIAN_PACKAGE], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        package = next(folder.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")], check=True)
        shutil.copytree(folder / "unpacked/usr/include/onnxruntime", INCLUDE, dirs_exist_ok=True)


def _sources(folder: Path) -> None:
    """Write apt sources: this machine's Debian mirror with another suite."""
    for part in ("sources.list.d", "preferences.d", "apt.conf.d"):
        (folder / "etc" / part).mkdir(parents=True)
    for settings in Path("/etc/apt/apt.conf.d").glob("*"):
        shutil.copy(settings, folder / "etc/apt.conf.d")
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    lines = Path("/etc/apt/sources.list.d/debian.sources").read_text(encoding="utf-8").splitlines()
    mirror = next(line for line in lines if line.startswith("URIs:"))
    key = next((line for line in lines if line.startswith("Signed-By:")), "")
    text = f"Types: deb\n{mirror}\nSuites: {_SUITE}\nComponents: main\n{key}\n"
    (folder / "etc/sources.list.d/other.sources").write_text(text, encoding="utf-8")


def _options(folder: Path) -> list[str]:
    settings = {
        "Dir::Etc": folder / "etc",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::trustedparts": "/etc/apt/trusted.gpg.d",
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
