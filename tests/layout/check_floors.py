# SPDX-License-Identifier: Apache-2.0
"""Who may include whom. Each folder of cpp/deqcore is a floor; code includes its own folder and lower floors only.

python tests/layout/check_floors.py [ROOT]     prints every violation; exit status 1 if there is one
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Folders of one floor may not include each other.
FLOORS = [
    {"base"},
    {"device"},
    {"kernels"},
    {"fixed_point", "linear"},
    {"adjoint", "newton"},
    {"continuation"},
    {"solve"},
    {"maps"},
]
HEIGHT = {folder: height for height, floor in enumerate(FLOORS) for folder in floor}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
CUDA_HEADER = re.compile(r"^(cuda|cub/|thrust/|cooperative_groups|nv)")
DEVICE_ONLY = {".cu", ".cuh"}
CPP = {".hpp", ".cpp", ".h", ".cu", ".cuh", ".in"}


def folder_of(path: str) -> str:
    """The floor of ``deqcore/<folder>/...``; the front door stands above all."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else "deqcore.hpp"


def backend_of(path: str) -> str | None:
    """``cpu`` or ``cuda`` for a file of kernels/cpu or kernels/cuda."""
    parts = path.split("/")
    return parts[2] if parts[1:2] == ["kernels"] and len(parts) > 3 else None


def includes(file: Path) -> Iterator[str]:
    """What a file includes, as written."""
    for _, name in INCLUDE.findall(file.read_text()):
        yield name


def check_cpp(root: Path) -> Iterator[str]:
    """The floors of the C++ core."""
    base = root / "cpp"
    for file in sorted((base / "deqcore").rglob("*")):
        if file.suffix not in CPP:
            continue
        here = file.relative_to(base).as_posix()
        folder = folder_of(here)
        if folder != "deqcore.hpp" and folder not in HEIGHT:
            yield f"{here}: the folder {folder} has no floor in tests/layout/check_floors.py"
            continue
        for name in includes(file):
            if not name.startswith("deqcore/"):
                if CUDA_HEADER.match(name) and file.suffix not in DEVICE_ONLY:
                    yield f"{here}: includes the CUDA header {name}; only .cu and .cuh files may"
                continue
            if name.endswith(".cuh") and file.suffix not in DEVICE_ONLY:
                yield f"{here}: includes {name}; only .cu and .cuh files may include a .cuh"
            there = folder_of(name)
            if folder == "deqcore.hpp":
                continue
            if there == "deqcore.hpp":
                yield f"{here}: includes the front door {name}"
            elif there not in HEIGHT:
                yield f"{here}: includes {name}, a folder without a floor"
            elif there != folder and HEIGHT[there] >= HEIGHT[folder]:
                yield f"{here}: includes {name}; {there} is not below {folder}"
            backend = backend_of(name)
            kit = name == "deqcore/kernels/cuda/launch.cuh" and folder == "maps" and file.suffix in DEVICE_ONLY
            if backend and backend_of(here) != backend and not kit:
                yield f"{here}: includes {name}; a backend's folder is its own"


def installed_headers(root: Path) -> set[str]:
    """The public headers, as the file set in cpp/CMakeLists.txt lists them."""
    text = (root / "cpp" / "CMakeLists.txt").read_text()
    listed = text[text.index("FILE_SET headers") :]
    listed = listed[: listed.index(")")]
    return set(re.findall(r"(deqcore/[\w./]+\.hpp)", listed))


def check_faces(root: Path) -> Iterator[str]:
    """The bindings and the C interface stand on installed headers alone."""
    public = installed_headers(root)
    for folder in (root / "python" / "bindings", root / "cpp" / "capi"):
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            if file.suffix not in CPP:
                continue
            for name in includes(file):
                if name.startswith("deqcore/") and name not in public:
                    yield f"{file.relative_to(root).as_posix()}: includes {name}, which is not installed"


def check_python(root: Path) -> Iterator[str]:
    """The core module is imported by the private modules and maps; no array library but NumPy at module level."""
    package = root / "python" / "deqcore"
    for file in sorted(package.rglob("*.py")):
        here = file.relative_to(root).as_posix()
        inside = file.relative_to(package)
        private = any(part.startswith("_") for part in inside.parts) or inside.name == "maps.py"
        text = file.read_text()
        if not private and re.search(
            r"^\s*(from \.+(_core)? import .*\b_core\b|from \.+_core import)", text, re.MULTILINE
        ):
            yield f"{here}: imports _core; only private modules and maps.py may"
        if inside.name != "torch.py":
            for name in re.findall(r"^(?:import|from) (torch|cupy)\b", text, re.MULTILINE):
                yield f"{here}: imports {name} at module level"


def violations(root: Path) -> list[str]:
    """Every breach of the rules below ``root``."""
    return [*check_cpp(root), *check_faces(root), *check_python(root)]


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    found = violations(root)
    for line in found:
        print(line)
    if not found:
        print("floors: every include goes down")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
