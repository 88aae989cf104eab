# SPDX-License-Identifier: Apache-2.0
"""KINSOL of SUNDIALS 6 by its shared library: KIN_FP, plain or with Anderson's window, the map in float32 NumPy.

Its state is float64 and the batch is one vector, tested by a scaled norm. casadi's KINSOL offers no fixed-point
strategy.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..contest import Contestant
from ..problems import STEPS, Problem
from .ours import in_numpy

INSTALL = "apt-get install libsundials-kinsol6"
FIXED_POINT = 3  # KIN_FP
ORTHOGONALISE = {"MGS": 0, "ICWY": 1, "CGS2": 2, "DCGS2": 3}
FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@lru_cache(maxsize=1)
def library() -> Any:
    """The libraries with the signatures that are needed, or None."""
    name = ctypes.util.find_library("sundials_kinsol")
    if name is None or ".so.6" not in name:  # SUNContext and the signatures below are those of 6
        return None
    kinsol = ctypes.CDLL(name)
    pointer, number, count = ctypes.c_void_p, ctypes.c_double, ctypes.c_long
    kinsol.SUNContext_Create.argtypes = [pointer, ctypes.POINTER(pointer)]
    kinsol.N_VMake_Serial.argtypes, kinsol.N_VMake_Serial.restype = [ctypes.c_int64, pointer, pointer], pointer
    kinsol.N_VGetArrayPointer_Serial.argtypes, kinsol.N_VGetArrayPointer_Serial.restype = [pointer], pointer
    kinsol.KINCreate.argtypes, kinsol.KINCreate.restype = [pointer], pointer
    kinsol.KINInit.argtypes = [pointer, FUNCTION, pointer]
    kinsol.KINSol.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer]
    for setter, kind in (
        ("KINSetMAA", count), ("KINSetOrthAA", ctypes.c_int), ("KINSetNumMaxIters", count),
        ("KINSetFuncNormTol", number), ("KINSetPrintLevel", ctypes.c_int),
    ):  # fmt: skip
        getattr(kinsol, setter).argtypes = [pointer, kind]
    kinsol.KINSetErrHandlerFn.argtypes = [pointer, pointer, pointer]
    return kinsol


def missing() -> bool:
    return library() is None


class Solver:
    """One KINSOL memory for a problem: what it allocates is made once, as a C program would."""

    def __init__(self, problem: Problem, history: int, orthogonalise: int) -> None:
        k = self.kinsol = library()
        shape, count = problem.x.shape, problem.x.size
        f = in_numpy(problem)
        self.state, self.ones = np.zeros(shape), np.ones(shape)
        views: dict[int, np.ndarray] = {}

        def view(vector: int) -> np.ndarray:
            address = k.N_VGetArrayPointer_Serial(vector)
            if address not in views:
                views[address] = np.ctypeslib.as_array((ctypes.c_double * count).from_address(address)).reshape(shape)
            return views[address]

        def evaluate(z: int, image: int, _: Any) -> int:
            view(image)[...] = f(view(z).astype(np.float32), problem.x)
            return 0

        self.function = FUNCTION(evaluate)
        self.quiet = ctypes.CFUNCTYPE(
            None, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p
        )(lambda *_: None)
        context = ctypes.c_void_p()
        k.SUNContext_Create(None, ctypes.byref(context))
        self.vector, self.scales = (k.N_VMake_Serial(count, a.ctypes.data, context) for a in (self.state, self.ones))
        self.memory = k.KINCreate(context)
        k.KINSetErrHandlerFn(self.memory, ctypes.cast(self.quiet, ctypes.c_void_p), None)
        k.KINSetMAA(self.memory, history)
        k.KINSetOrthAA(self.memory, orthogonalise)
        if k.KINInit(self.memory, self.function, self.vector) != 0:
            raise RuntimeError("KINInit failed")
        k.KINSetNumMaxIters(self.memory, STEPS)

    def __call__(self, tolerance: float) -> np.ndarray:
        self.kinsol.KINSetFuncNormTol(self.memory, tolerance)
        self.state[...] = 0
        self.kinsol.KINSol(self.memory, self.vector, FIXED_POINT, self.scales, self.scales)
        return self.state


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    # its norm is the largest element's or the Euclidean one, by version: the tolerances tried see to the rest
    scale = float(np.abs(problem.x).max()) * 0.25
    history = 0 if method == "picard" else 6  # its default is plain iteration: the history is ours
    settings = [("MGS", 1), ("MGS", 2)] if method == "picard" else [("MGS", 1), ("ICWY", 1), ("DCGS2", 1), ("MGS", 2)]
    for at, (name, blas) in enumerate(settings):
        solver = Solver(problem, history, ORTHOGONALISE[name])
        setting = f"BLAS {blas}" if history == 0 else f"history 6, {name}; BLAS {blas}"
        yield Contestant("KINSOL", setting, partial(_scaled, solver, scale), default=at == 0, blas=blas)


def _scaled(solver: Solver, scale: float, tolerance: float) -> np.ndarray:
    return solver(tolerance * scale)
