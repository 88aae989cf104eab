# SPDX-License-Identifier: Apache-2.0
"""Build what is measured in C++."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import machine

ROOT = Path(__file__).resolve().parents[2]


def build(target: str, quick: bool) -> Path:
    """Build one target, with the cmake and ninja of this environment if it has them; -> its folder of benchmarks."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    cmake = shutil.which("cmake", path=path)
    if cmake is None:
        raise SystemExit(f"{target} needs cmake: pip install 'deqcore[test]', or name a built one")
    # a quick run shows that everything runs, and its times say nothing: compiling is what it would wait for
    folder = ROOT / "build" / ("benchmarks-quick" if quick else "benchmarks")
    options = ["-DDEQCORE_BENCHMARKS=ON", "-DDEQCORE_TESTS=OFF", "-DDEQCORE_INSTALL=OFF", "-DDEQCORE_CUDA=OFF"]
    options += ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"] if quick else ["-DCMAKE_BUILD_TYPE=Release"]
    if shutil.which("ninja", path=path) and not (folder / "CMakeCache.txt").exists():
        options += ["-G", "Ninja"]
    configure = [cmake, "-S", ROOT, "-B", folder, *options]
    for command in (configure, [cmake, "--build", folder, "--target", target, "--parallel", machine.cores()]):
        words, env = [str(word) for word in command], {**os.environ, "PATH": path}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise SystemExit(f"{target} could not be built:\n{done.stdout}{done.stderr}")
    return folder / "benchmarks"
