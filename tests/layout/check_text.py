# SPDX-License-Identifier: Apache-2.0
"""Every text file ends in one newline, has no blanks at the end of a line, and every source names its licence.

python tests/layout/check_text.py             checks the files under version control
python tests/layout/check_text.py --fix FILE  mends line ends of these files
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {".cmake", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".in", ".py", ".pyi", ".sh"}
LICENCE = "SPDX-License-Identifier: Apache-2.0"


def mended(text: str) -> str:
    """The same text with clean line ends."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(lines).rstrip("\n") + "\n" if text.strip() else ""


def tracked() -> list[Path]:
    """Every file under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check line ends and licence lines.")
    parser.add_argument("--fix", action="store_true", help="mend line ends")
    parser.add_argument("files", nargs="*", type=Path, help="default: all files under version control")
    options = parser.parse_args()
    wrong = []
    for file in options.files or tracked():
        try:
            text = file.read_bytes().decode()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        if text != mended(text):
            if options.fix:
                file.write_bytes(mended(text).encode())
            wrong.append(f"{file}: line ends")
        if (file.suffix in SOURCES or file.name == "CMakeLists.txt") and LICENCE not in text[:300]:
            wrong.append(f"{file}: no line '{LICENCE}'")
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
