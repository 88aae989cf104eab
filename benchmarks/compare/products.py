# SPDX-License-Identifier: Apache-2.0
"""The packed product y = x W' beside OpenBLAS, MKL, torch, oneDNN and Eigen, float32, one and two threads.

All but torch are called from C++ by cpp/, so that a product of a tenth of a microsecond can be timed; torch's own call
from Python, with the result's memory given, is in its time.
"""

from __future__ import annotations

import ctypes
import os
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
SYMBOLS = (
    ("scipy_cblas_sgemm64_", "cblas_sgemm, 64-bit"),
    ("scipy_cblas_sgemm", "cblas_sgemm"),
    ("cblas_sgemm", "cblas_sgemm"),
)
BUILT = ("deqcore packed", "oneDNN packed", "oneDNN", "Eigen")
LIBRARY: Path | None = None  # where it lies; None: it is built
CASE_SECONDS = 2.0


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


Blas = tuple[str, str, ctypes.c_void_p]  # a library, the product of cpp/ that calls it, and its sgemm


def blas_libraries() -> list[Blas]:
    """OpenBLAS, of its own wheel or NumPy's, and MKL where its wheel is installed."""
    paths = [("OpenBLAS", path) for path in openblas_wheel()]
    mkl = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    if mkl:
        os.environ["MKL_THREADING_LAYER"] = "GNU"
        paths.append(("MKL", str(mkl[0])))
    loaded = [(name, ctypes.CDLL(path)) for name, path in paths]
    pools.find_again()
    if not any(name == "OpenBLAS" for name, _ in loaded):
        loaded += [("OpenBLAS", ctypes.CDLL(path)) for path in pools.blas_libraries() if "numpy" in path]
    found = []
    for name, library in loaded:
        for symbol, product in SYMBOLS:
            if hasattr(library, symbol):
                found.append((name, product, ctypes.cast(getattr(library, symbol), ctypes.c_void_p)))
                break
    return found


def openblas_wheel() -> list[str]:
    """The library of the wheel scipy-openblas32, if it is installed."""
    try:
        import scipy_openblas32
    except ImportError:
        return []
    return [str(path) for path in Path(scipy_openblas32.get_lib_dir()).glob("*.so")]


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    library, blas = load(plan.quick), blas_libraries()
    if not plan.quick:
        print(f"products: BLAS {pools.described()}")
    for rows, outputs, inputs in QUICK if plan.quick else SHAPES:
        for threads in (1, THREADS):
            yield from measure(plan, library, blas, rows, outputs, inputs, threads)


def measure(
    plan: Plan, library: Any, blas: list[Blas], rows: int, outputs: int, inputs: int, threads: int
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
    for name, product, sgemm in [*((name, name, None) for name in BUILT), *blas]:
        if sgemm is not None:
            library.compare_use_blas(sgemm)
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
        pools.before(threads if name in ("OpenBLAS", "MKL") else 1, threads, body, 0.0) for name, body in bodies.items()
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
