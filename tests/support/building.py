# SPDX-License-Identifier: Apache-2.0
"""CMake from Python tests: the programs of this environment first, output shown where a step fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BESIDE_PYTHON = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def program(name: str) -> str:
    """The path of cmake, ctest or ninja: of the environment that runs the tests, or of the system."""
    found = shutil.which(name, path=_BESIDE_PYTHON)
    assert found, f"{name} is missing: pip install '.[test]' brings it"
    return found


def run(*command: str | Path, timeout: float = 1500) -> str:
    """Run a command; its whole output is the message if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PATH": _BESIDE_PYTHON},
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def configure_and_build(source: Path, build: Path, *options: str, target: str = "all") -> None:
    """A Release build with Ninja."""
    cmake, ninja = program("cmake"), program("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release"]
    run(cmake, "-S", source, "-B", build, *generator, *options)
    run(cmake, "--build", build, "--target", target)
