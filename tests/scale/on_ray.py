"""Runs ``layerguard.scale.ray`` on a real Ray cluster of this machine: the tests, then the jobs.

    python -m tests.scale.on_ray

Ray is installed into an environment of its own, under ``.cache``. The jobs run on all-MiniLM-L6-v2
and print how far their numbers are from those of one process. Exit code 1: a test failed or did not
run, or a number differs by more than 1e-6.
"""

import subprocess
import sys

from tests.bench.minilm import exported
from tests.peers.environment import ROOT, python_with

_RAY = "ray[serve,data]==2.60.0"


def main() -> int:
    """Run both; 1 if one of them fails."""
    python = str(python_with(_RAY))
    options = ["-q", "-rs", "-W", "default", "-p", "no:cacheprovider"]
    tests = subprocess.run([python, "-m", "pytest", *options, "tests/scale"], cwd=ROOT, check=False)
    jobs = [python, "-m", "tests.scale.minilm", str(exported())]
    compared = subprocess.run(jobs, cwd=ROOT, check=False)
    return int(tests.returncode != 0 or compared.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
