# SPDX-License-Identifier: Apache-2.0
"""The packed product y = x W' beside OpenBLAS, torch (MKL), oneDNN and Eigen, float32, one and two threads.

All but torch are called from C++ by cpp/, so that a product of a tenth of a microsecond can be timed; torch's own call
from Python, with the result's memory given, is in its time.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.build import build
from harness.measure import Plan, case, figures, in_turn

from . import pools
from .problems import THREADS

SHAPES = ((1, 64, 64), (64, 64, 64), (64, 512, 512), (256, 1024, 1024), (1024, 256, 256))
QUICK = ((3, 20, 20),)
BUILT = ("deqcore packed", "oneDNN packed", "oneDNN", "Eigen")
LIBRARY: Path | None = None  # where it lies; None: it is built
CASE_SECONDS = 3.0


def load(quick: bool) -> Any:
    library = ctypes.CDLL(str(LIBRARY or build("deqcore_compare", quick) / "compare" / "libdeqcore_compare.so"))
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.compare_new.argtypes = [ctypes.c_char_p, count, count, count, ctypes.c_int, pointer]
    library.compare_new.restype = pointer
    library.compare_run.argtypes = [pointer, pointer, pointer, count]
    library.compare_run.restype = None
    library.compare_delete.argtypes, library.compare_delete.restype = [pointer], None
    library.compare_use_blas.argtypes, library.compare_use_blas.restype = [pointer], None
    return library


def use_numpys_blas(library: Any) -> str | None:
    """Hand over the sgemm of the BLAS that NumPy brought; -> the name of the product that calls it."""
    for path in pools.blas_libraries():
        if "numpy" not in path:
            continue
        loaded = ctypes.CDLL(path)
        for symbol, name in (("scipy_cblas_sgemm64_", "cblas_sgemm, 64-bit"), ("cblas_sgemm", "cblas_sgemm")):
            if hasattr(loaded, symbol):
                library.compare_use_blas(ctypes.cast(getattr(loaded, symbol), ctypes.c_void_p))
                return name
    return None


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    library = load(plan.quick)
    blas = use_numpys_blas(library)
    for rows, outputs, inputs in QUICK if plan.quick else SHAPES:
        for threads in (1, THREADS):
            yield from measure(plan, library, blas, rows, outputs, inputs, threads)


def measure(
    plan: Plan, library: Any, blas: str | None, rows: int, outputs: int, inputs: int, threads: int
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    W = rng.standard_normal((outputs, inputs)).astype(np.float32)
    exact = x.astype(np.float64) @ W.T.astype(np.float64)
    flops = 2 * rows * outputs * inputs
    times = 1 if plan.quick else max(1, int(50e-6 / (flops / 50e9)))  # per timed call
    results: dict[str, np.ndarray] = {}
    bodies: dict[str, Callable[[], Any]] = {}
    held = []
    named = [*zip(BUILT, BUILT, strict=True), *([("OpenBLAS of NumPy", blas)] if blas else [])]
    for name, product in named:
        handle = library.compare_new(product.encode(), rows, outputs, inputs, threads, W.ctypes.data)
        if handle is None:
            continue
        held.append(handle)
        y = results[name] = np.empty((rows, outputs), np.float32)
        bodies[name] = partial(library.compare_run, handle, x.ctypes.data, y.ctypes.data, times)
    if "torch" in sys.modules:
        y = results["torch mm"] = np.empty((rows, outputs), np.float32)
        bodies["torch mm"] = torch_product(x, W, y, times)
    before = [
        pools.before(threads if name.startswith("OpenBLAS") else 1, threads, body, 0.0) for name, body in bodies.items()
    ]
    taken = in_turn(plan, threads, list(bodies.values()), before=before, wall=True, case_seconds=CASE_SECONDS) / times
    for handle in held:
        library.compare_delete(handle)
    medians = np.median(taken, axis=0)
    for column, (name, y) in enumerate(results.items()):
        error = float(np.linalg.norm(y - exact) / np.linalg.norm(exact))
        line = case(
            f"product {rows} x {outputs} x {inputs}", name, np.float32, rows, outputs, threads, clock="wall",
            counts={"flops": flops}, samples=taken[:, column], parts={"flop/s": flops / medians[column]},
        )  # fmt: skip
        line |= {"library": name, "error": figures(error), "good": error < 1e-5}
        yield line | {"over_ours": figures(medians[column] / medians[0])}


def torch_product(x: np.ndarray, W: np.ndarray, y: np.ndarray, times: int) -> Callable[[], None]:
    import torch

    left, right, out = torch.from_numpy(x), torch.from_numpy(W).T, torch.from_numpy(y)

    def run() -> None:
        with torch.no_grad():
            for _ in range(times):
                torch.mm(left, right, out=out)

    return run
