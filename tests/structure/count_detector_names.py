"""Counts the production files that name a detector outside its own files.

python -m tests.structure.count_detector_names [ROOT]
"""

import sys
from pathlib import Path

from tests.structure.detector_names import FOLDERS, ROOT, files, names_in_code, names_in_text


def main(root: Path) -> None:
    """Print the counts by folder, and the files whose code names a detector."""
    found = list(files(root))
    code = [path.relative_to(root).as_posix() for path in found if names_in_code(path)]
    text = [path.relative_to(root).as_posix() for path in found if names_in_text(path)]
    for folder in FOLDERS:
        counts = [sum(name.startswith(f"{folder}/") for name in names) for names in (code, text)]
        print(f"{folder:12} {counts[0]:3} in code, {counts[1]:3} in all")
    print(f"{'total':12} {len(code):3} in code, {len(text):3} in all")
    print(*(f"  {name}" for name in code), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
