"""Does a stream's verdict equal the check's, on every prefix of 50 texts of a trained model?

    python -m tests.bench.stream_equals_check [TEXTS]

Answers in four alphabets and with emoji, chunked at random bytes; LCF, SIREN and WeightWatch on the
small trained model of ../shared. Stops at the first score that differs by more than 1e-5.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.harness import REPOSITORY
from tests.runtime.streaming.written import compare, dialogues, trained_guard


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    shared = REPOSITORY.parent / "shared"
    if not shared.is_dir():
        raise SystemExit("no ../shared beside this checkout: there is no trained model to ask")
    with TemporaryDirectory() as folder:
        guard = trained_guard(shared, Path(folder))
        pushes = [
            compare(guard, *texts, seed) for seed, texts in enumerate(dialogues(shared, count))
        ]
    print(f"{sum(pushes)} prefixes of {len(pushes)} texts: stream and check agree within 1e-5")


if __name__ == "__main__":
    main()
