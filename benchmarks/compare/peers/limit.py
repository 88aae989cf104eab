# SPDX-License-Identifier: Apache-2.0
"""A limit program given by --limit FOLDER: a folder with limit.c and run_limit.py, which is run and not part of this.

It is a rough upper bound on speed (no safeguard, no best iterate, sums in float32) written for AVX-512. On a machine
without, it is compiled with each such operation as two of AVX2 and tiles of three rows, which fit 16 registers: its
panels are then too wide for the cache at width 1024, so there it bounds less.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..contest import Contestant
from ..problems import RTOL, STEPS, Problem

HERE = Path(__file__).resolve().parent
INSTALL = "--limit FOLDER names it"
_module: Any = None


def load(folder: Path | None) -> str:
    """Compile it; -> what is to be said about it."""
    global _module
    if folder is None:
        return "not given"
    spec = importlib.util.spec_from_file_location("run_limit", folder / "run_limit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said = "AVX-512"
    if "avx512f" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        said = "in halves, on AVX2"
        built = _in_halves((folder / "limit.c").read_text(encoding="utf-8"))
        module.build = lambda: built
    _module = module
    return said


def missing() -> bool:
    return _module is None


def _in_halves(source: str) -> Any:
    header = f'#include "{HERE / "avx512_in_halves.h"}"'
    source = source.replace("#include <immintrin.h>", header).replace("#define MR 14", "#define MR 3")
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder) / "limit.c", Path(folder) / "limit.so"
        text.write_text(source, encoding="utf-8")
        flags = ["-O3", "-march=native", "-ffast-math", "-fPIC", "-shared", "-w", "-fopenmp"]
        subprocess.run(["gcc", *flags, str(text), "-o", str(out), "-lm"], check=True)
        return ctypes.CDLL(str(out))


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    # one thread too: on a machine with other work, waiting threads of OpenMP can take a hundred times the solve
    for threads in dict.fromkeys((problem.threads, 1)):
        limit = _module.Limit(threads)

        def solve(tolerance: float, limit: Any, runs: dict[float, Any]) -> Any:
            if tolerance not in runs:
                runs[tolerance] = limit.solver(
                    problem.W, problem.x, method, tolerance, act=problem.activation, max_steps=STEPS
                )
            return runs[tolerance]()

        yield Contestant(
            "limit program", f"threads {threads}", partial(solve, limit=limit, runs={}), per_row=True, always=True,
            value=lambda answer: answer[0],
        )  # fmt: skip


def trainers(problem: Problem) -> Iterator[Contestant]:
    def step(tolerance: float, limit: Any) -> Any:
        return limit.training_step(problem.W, problem.x, tolerance, problem.activation, max_steps=STEPS)()

    # its last product is NumPy's, whose threads spin beside OpenMP's
    for threads, blas in dict.fromkeys(((problem.threads, 1), (problem.threads, problem.threads), (1, 1))):
        run = partial(step, limit=_module.Limit(threads))
        yield Contestant(
            "limit program", f"threads {threads}; BLAS {blas}", run, per_row=True, always=True, blas=blas,
            value=lambda answer: (None, answer[0]),
        )  # fmt: skip


def from_cpp(library: Any, problem: Problem, method: str, history: int, z: Any, times: int) -> Callable[[], Any]:
    """Its solve, repeated by a loop in ``library``, into ``z``; W packed beforehand."""
    limit = _module.Limit(problem.threads)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.compare_limit_run.argtypes = [
        pointer, number, number, number, number, ctypes.c_double, number, number, pointer, pointer, pointer, pointer,
        pointer, ctypes.c_int64,
    ]  # fmt: skip
    library.compare_limit_run.restype = None
    packed = limit.lib.limit_pack(pointer(problem.W.ctypes.data), problem.width, problem.threads)
    steps = np.zeros(problem.rows, np.int32)
    function = ctypes.cast(limit.lib.limit_solve, pointer)

    def run() -> None:
        library.compare_limit_run(
            function, int(method == "anderson"), problem.rows, problem.width, problem.threads, RTOL, STEPS, history,
            problem.W.ctypes.data, problem.x.ctypes.data, packed, z.ctypes.data, steps.ctypes.data, times,
        )  # fmt: skip

    return run
