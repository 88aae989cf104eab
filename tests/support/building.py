# SPDX-License-Identifier: Apache-2.0
"""CMake from Python tests: the programs of this environment first, output shown where a step fails."""

from __future__ import annotations

import fcntl
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
    """A Release build with Ninja; one process at a time in a folder."""
    cmake, ninja = program("cmake"), program("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release"]
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(cmake, "-S", source, "-B", build, *generator, *options)
        run(cmake, "--build", build, "--target", target)


def cpp_tests(target: str = "all") -> Path:
    """The C++ tests and benchmarks, which several test files use; -> the folder of their build."""
    build = ROOT / "build" / "cpp-tests"
    options = ["-DDEQCORE_TESTS=ON", "-DDEQCORE_BENCHMARKS=ON", "-DDEQCORE_CUDA=OFF", "-DDEQCORE_WARNINGS_AS_ERRORS=ON"]
    configure_and_build(ROOT, build, *options, target=target)
    return build
