# SPDX-License-Identifier: Apache-2.0
"""Every wrong input gets an error that names the argument, what came and what was expected.

`python tests/python/test_bad_input.py` prints the table.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

import deqcore
from deqcore import (
    GMRES,
    Anderson,
    BiCGSTAB,
    ConvergenceError,
    Direct,
    JacobianFree,
    Neumann,
    Phantom,
    Picard,
    Status,
    Warm,
    adjoint,
    fixed_point,
    linear_solve,
    tangent,
)
from deqcore.maps import Dense


class Case(NamedTuple):
    id: str
    call: Callable[[], Any]
    error: type[BaseException]
    message: str  # regular expression


class Tensor:
    """What a tensor of another library looks like from outside."""

    shape = (3, 4)
    ndim = 2
    dtype = "float32"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("converted silently")

    __dlpack__ = __array__


class OnDevice(Tensor):
    """An array on a CUDA device."""

    __cuda_array_interface__: ClassVar[dict[str, Any]] = {
        "shape": (3, 4),
        "typestr": "<f4",
        "data": (0, False),
        "version": 3,
    }


Tensor.__module__ = OnDevice.__module__ = "torch"

z = np.zeros((3, 4))
z32 = z.astype(np.float32)
x = np.ones((3, 4))
one_nan, one_inf = z.copy(), z.copy()
one_nan[2, 1], one_inf[0, 3] = np.nan, -np.inf
W = 0.5 * np.eye(4)
layer = Dense(W)
layer32 = Dense(W.astype(np.float32))


def half(z: Any, *args: Any) -> Any:
    return z * z.dtype.type(0.5)


def solve(z0: Any = z, f: Any = half, **options: Any) -> Any:
    return fixed_point(f, z0, **options)


def native(z0: Any = z, f: Any = layer, row_args: Any = (x,), **options: Any) -> Any:
    return fixed_point(f, z0, row_args=row_args, **options)


def back(z: Any = z, g: Any = x, vjp: Any = lambda z, v, *args: v * v.dtype.type(0.5), **options: Any) -> Any:
    return adjoint(vjp, z, g, **options)


def along(z: Any = z, dz: Any = x, jvp: Any = lambda z, v, *args: v * v.dtype.type(0.5), **options: Any) -> Any:
    return tangent(jvp, z, dz, **options)


def linear(b: Any = x, matvec: Any = half, **options: Any) -> Any:
    return linear_solve(matvec, b, **options)


SOLVES: dict[str, Callable[..., Any]] = {"": solve, ", backward": back, ", tangent": along, ", linear": linear}
CALLED = {"": "fixed_point", ", backward": "adjoint", ", tangent": "tangent", ", linear": "linear_solve"}


def states() -> list[Case]:
    """Wrong starting points, each also as the points and right sides of the linear solves."""
    wrong: list[tuple[str, Any, type[Exception], str]] = [
        ("of int64", z.astype(np.int64), TypeError, r"array of shape \(3, 4\) and dtype int64 .*float32 or float64"),
        ("of bool", z.astype(bool), TypeError, r"dtype bool .*float32 or float64"),
        ("of complex128", z.astype(complex), TypeError, r"dtype complex128 .*float32 or float64"),
        ("of float16", z.astype(np.float16), TypeError, r"dtype float16 .*float32 or float64"),
        ("of longdouble", z.astype(np.longdouble), TypeError, r"dtype (float128|float96) .*float32 or float64"),
        ("of object", z.astype(object), TypeError, r"dtype object .*float32 or float64"),
        ("of the other byte order", z.astype(">f8"), TypeError, r"dtype >f8 .*float32 or float64"),
        ("a list", z.tolist(), TypeError, r"list given; expected a NumPy array \(np\.asarray"),
        ("a number", 0.0, TypeError, r"float given; expected a NumPy array"),
        ("a NumPy scalar", np.float64(1), TypeError, r"numpy\.float64 given; expected a NumPy array"),
        ("None", None, TypeError, r"NoneType given; expected a NumPy array"),
        ("a masked array", np.ma.zeros((3, 4)), TypeError, r"[Mm]asked.* given; expected a .*NumPy array"),
        ("a tensor of another library", Tensor(), TypeError, r"torch\.Tensor given; expected a NumPy array"),
        (
            "on a CUDA device",
            OnDevice(),
            TypeError,
            r"torch\.OnDevice of shape .* on a CUDA device given; expected",
        ),
        ("0-d", np.array(1.0), ValueError, r"shape \(\) .*expected at least one axis"),
        ("of 0 rows", np.zeros((0, 4)), ValueError, r"shape \(0, 4\) .*at least one row"),
        ("of width 0", np.zeros((3, 0)), ValueError, r"shape \(3, 0\) .*width of at least 1"),
        ("with NaN", one_nan, ValueError, r"nan at index \(2, 1\); expected finite numbers"),
        ("with infinity", one_inf, ValueError, r"-inf at index \(0, 3\); expected finite numbers"),
    ]
    cases = []
    for words, value, error, message in wrong:
        cases.append(Case(f"z0 {words}", lambda v=value: solve(v), error, rf"^z0: .*{message}"))
        cases.append(Case(f"z {words}", lambda v=value: back(z=v), error, rf"^z: .*{message}"))
        cases.append(Case(f"z of tangent {words}", lambda v=value: along(z=v), error, rf"^z: .*{message}"))
        cases.append(Case(f"b {words}", lambda v=value: linear(b=v), error, rf"^b: .*{message}"))
    for what, function in (("g", back), ("u0", back), ("dz", along), ("t0", along), ("x0", linear)):
        for words, value, error, message in (
            ("of the other dtype", z32, TypeError, r"dtype float32 given; expected dtype float64"),
            ("of another shape", x[:, :3], ValueError, r"shape \(3, 3\) .*expected shape \(3, 4\)"),
            ("with another number of rows", x[:2], ValueError, r"shape \(2, 4\) .*expected shape \(3, 4\)"),
            ("a list", z.tolist(), TypeError, r"list given; expected a NumPy array"),
            ("on a CUDA device", OnDevice(), TypeError, r"torch\.OnDevice .*on a CUDA device given"),
            ("with NaN", one_nan, ValueError, r"nan at index \(2, 1\)"),
        ):
            cases.append(
                Case(
                    f"{what} {words}",
                    lambda k=what, v=value, function=function: function(**{k: v}),
                    error,
                    rf"^{what}: .*{message}",
                )
            )
    return cases


def answers() -> list[Case]:
    """Maps that answer with something else."""
    wrong: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
        ("None", lambda z: None, TypeError, r"returned None; expected an array of shape \(3, 4\) and dtype float64"),
        ("a list", lambda z: z.tolist(), TypeError, r"returned list; expected a NumPy array of shape \(3, 4\)"),
        ("a number", lambda z: 1.0, TypeError, r"returned float; expected a NumPy array"),
        ("a tuple", lambda z: (z / 2,), TypeError, r"returned tuple; expected a NumPy array"),
        ("a tensor", lambda z: Tensor(), TypeError, r"returned torch\.Tensor; expected a NumPy array"),
        ("a device array", lambda z: OnDevice(), TypeError, r"returned torch\.OnDevice .*on a CUDA device; expected"),
        ("a masked array", lambda z: np.ma.array(z / 2), TypeError, r"returned .*[Mm]asked.*; expected a"),
        ("a row less", lambda z: z[1:] / 2, ValueError, r"returned array of shape \(2, 4\).*expected shape \(3, 4\)"),
        ("a column more", lambda z: np.ones((3, 5)), ValueError, r"shape \(3, 5\).*expected shape \(3, 4\)"),
        ("the transpose", lambda z: z.T / 2, ValueError, r"shape \(4, 3\).*expected shape \(3, 4\)"),
        ("one axis", lambda z: z.ravel() / 2, ValueError, r"shape \(12,\).*expected shape \(3, 4\)"),
        ("one axis more", lambda z: z[None] / 2, ValueError, r"shape \(1, 3, 4\).*expected shape \(3, 4\)"),
        ("one row to broadcast", lambda z: z[:1] / 2, ValueError, r"shape \(1, 4\).*expected shape \(3, 4\)"),
        ("0-d", lambda z: np.array(1.0), ValueError, r"shape \(\).*expected shape \(3, 4\)"),
        ("float32 for float64", lambda z: z.astype(np.float32), TypeError, r"dtype float32; expected dtype float64"),
        ("integers", lambda z: z.astype(int), TypeError, r"dtype int64; expected dtype float64"),
        ("complex", lambda z: z + 0j, TypeError, r"dtype complex128; expected dtype float64"),
        ("objects", lambda z: z.astype(object), TypeError, r"dtype object; expected dtype float64"),
        ("the other byte order", lambda z: z.astype(">f8"), TypeError, r"dtype >f8; expected dtype float64"),
    ]
    cases = []
    for words, f, error, message in wrong:
        cases.append(Case(f"f returning {words}", lambda f=f: solve(f=f), error, rf"^f .*{message}"))
        later = [0]

        def at_the_third_call(z: Any, f: Any = f, calls: list[int] = later) -> Any:
            calls[0] += 1
            return f(z) if calls[0] % 3 == 0 else z * 0.9 + 1 + np.sin(z)

        cases.append(
            Case(f"f returning {words}, later", lambda f=at_the_third_call: solve(f=f), error, rf"^f .*{message}")
        )
        for what, call in (
            ("vjp", lambda f=f: back(vjp=lambda z, v: f(v))),
            ("jvp", lambda f=f: along(jvp=lambda z, v: f(v))),
            ("matvec", lambda f=f: linear(matvec=f)),
            ("preconditioner", lambda f=f: linear(preconditioner=f)),
            ("f", lambda f=f: back(f=f, method=Phantom(2))),
        ):
            phantom = " for Phantom" if what == "f" else ""
            cases.append(Case(f"{what}{phantom} returning {words}", call, error, rf"^{what} .*{message}"))
    cases.append(
        Case(
            "f returning float64 for float32",
            lambda: solve(z32, lambda z: z.astype(float)),
            TypeError,
            r"^f returned array of shape \(3, 4\) and dtype float64; expected dtype float32",
        )
    )
    return cases


def options() -> list[Case]:
    """Wrong options of every solve."""
    both: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("rtol negative", {"rtol": -1e-3}, ValueError, r"rtol: -0\.001 given; expected a finite number of at least"),
        ("rtol 0", {"rtol": 0}, ValueError, r"rtol: 0 given; expected a finite number of at least"),
        ("rtol NaN", {"rtol": math.nan}, ValueError, r"rtol: nan given; expected a finite number"),
        ("rtol infinite", {"rtol": math.inf}, ValueError, r"rtol: inf given; expected a finite number"),
        ("rtol below 4 eps", {"rtol": 5e-16}, ValueError, r"rtol: 5e-16 given; .*8\.88\d*e-16 \(4 eps of the dtype\)"),
        ("rtol a string", {"rtol": "1e-3"}, TypeError, r"rtol: '1e-3' given; expected a real number"),
        ("rtol complex", {"rtol": 1e-3 + 0j}, TypeError, r"rtol: .* given; expected a real number"),
        ("rtol True", {"rtol": True}, TypeError, r"rtol: True given; expected a real number"),
        ("atol negative", {"atol": -1.0}, ValueError, r"atol: -1 given; expected a finite number >= 0"),
        ("atol NaN", {"atol": math.nan}, ValueError, r"atol: nan given; expected a finite number"),
        ("atol infinite", {"atol": math.inf}, ValueError, r"atol: inf given; expected a finite number"),
        ("atol None", {"atol": None}, TypeError, r"atol: None given; expected a real number"),
        ("max_steps 0", {"max_steps": 0}, ValueError, r"max_steps: 0 given; expected 1 to"),
        ("max_steps negative", {"max_steps": -5}, ValueError, r"max_steps: -5 given; expected 1 to"),
        ("max_steps huge", {"max_steps": 2**31}, ValueError, r"max_steps: 2147483648 given; expected 1 to 2147483647"),
        ("max_steps 2.5", {"max_steps": 2.5}, TypeError, r"max_steps: 2\.5 given; expected an integer"),
        ("max_steps True", {"max_steps": True}, TypeError, r"max_steps: True given; expected an integer"),
        ("max_steps None", {"max_steps": None}, TypeError, r"max_steps: None given; expected an integer"),
        ("norm 3", {"norm": 3}, ValueError, r"norm: 3 given; expected 2, math\.inf"),
        ("norm True", {"norm": True}, ValueError, r"norm: True given; expected 2, math\.inf"),
        ("norm 'max'", {"norm": "max"}, ValueError, r"norm: 'max' given; expected 2, math\.inf"),
        ("norm an array", {"norm": np.ones(2)}, ValueError, r"norm: array.* given; expected 2, math\.inf"),
        ("retire 'x'", {"retire": "x"}, ValueError, r"retire: 'x' given; expected None, True, False or 'halve'"),
        ("retire 1", {"retire": 1}, ValueError, r"retire: 1 given; expected None, True, False or 'halve'"),
        ("retire an array", {"retire": np.ones(2)}, ValueError, r"retire: array.* given; expected None, True"),
        ("look_every 0", {"look_every": 0}, ValueError, r"look_every: 0 given; expected 1 to"),
        ("look_every 1.5", {"look_every": 1.5}, TypeError, r"look_every: 1\.5 given; expected an integer"),
        ("threads 0", {"threads": 0}, ValueError, r"threads: 0 given; expected at least 1 and below 2\^31, or None"),
        ("threads -1", {"threads": -1}, ValueError, r"threads: -1 given; expected at least 1 and below 2\^31, or None"),
        ("threads 2.0", {"threads": 2.0}, TypeError, r"threads: 2\.0 given; expected an integer"),
        ("threads huge", {"threads": 2**40}, ValueError, r"threads: 1099511627776 given; expected"),
        ("on_failure 'x'", {"on_failure": "x"}, ValueError, r"on_failure: 'x' given; expected 'raise', 'warn' or"),
        ("on_failure None", {"on_failure": None}, ValueError, r"on_failure: None given; expected 'raise', 'warn' or"),
        ("on_failure an array", {"on_failure": z}, ValueError, r"on_failure: .* given; expected 'raise', 'warn' or"),
        ("callback a number", {"callback": 5}, TypeError, r"callback: 5 given; expected a callable"),
        ("method unknown", {"method": "xyz"}, ValueError, r"method: 'xyz' given; expected one of '\w+', '\w+'.*, or a"),
        ("method a class", {"method": GMRES}, TypeError, r"method: <class .*given; .*deqcore\.(Anderson|GMRES)\(\)"),
        ("method a number", {"method": 6}, TypeError, r"method: 6 given; expected a method such as"),
        ("method a list", {"method": [6]}, TypeError, r"method: \[?6\]? given; expected a method such as"),
        ("args a list", {"args": [1]}, TypeError, r"args: list given; expected a tuple"),
        ("args an array", {"args": x}, TypeError, r"args: array of shape .* given; expected a tuple"),
        ("row_args an array", {"row_args": x}, TypeError, r"row_args: array of shape .* given; expected a tuple"),
        ("row_args a list", {"row_args": [x]}, TypeError, r"row_args: list given; expected a tuple"),
        ("row_args None", {"row_args": None}, TypeError, r"row_args: NoneType given; expected a tuple"),
        ("row_args of another length", {"row_args": (x[:2],)}, ValueError, r"row_args\[0\]: .*\(2, 4\).*expected 3 "),
        ("row_args, the second", {"row_args": (x, x[:1])}, ValueError, r"row_args\[1\]: .*\(1, 4\).*expected 3 rows"),
        ("row_args of a list", {"row_args": ([1, 2, 3],)}, TypeError, r"row_args\[0\]: list given; expected a NumPy"),
        ("row_args of a number", {"row_args": (1.0,)}, TypeError, r"row_args\[0\]: float given; expected a NumPy"),
        ("row_args 0-d", {"row_args": (np.array(1.0),)}, ValueError, r"row_args\[0\]: .*\(\).*expected 3 rows"),
        ("row_args on a device", {"row_args": (OnDevice(),)}, TypeError, r"row_args\[0\]: torch\.OnDevice .*on a CUDA"),
    ]  # fmt: skip
    cases = []
    for words, given, error, message in both:
        for name, function in SOLVES.items():
            if words == "max_steps None" and name == "":
                continue  # there, by method
            cases.append(Case(words + name, lambda o=given, run=function: run(**o), error, rf"^{message}"))
    tight = {"rtol": 4e-7}
    cases += [
        Case("rtol below 4 eps of float32", lambda: solve(z32, **tight), ValueError, r"^rtol: 4e-07 .*4\.7\d*e-07"),
        Case("f a number", lambda: solve(f=3), TypeError, r"^f: 3 given; expected a callable or a map"),
        Case("f None", lambda: solve(f=None), TypeError, r"^f: None given; expected a callable or a map"),
        Case("f an array", lambda: solve(f=W), TypeError, r"^f: .* given; expected a callable or a map"),
        Case("vjp None", lambda: back(vjp=None), TypeError, r"^map_or_vjp: None given; expected vjp\(z, v, \.\.\.\)"),
        Case("scale 0", lambda: solve(scale=0), ValueError, r"^scale: 0 given; expected finite numbers > 0"),
        Case("scale negative", lambda: solve(scale=-1.0), ValueError, r"^scale: -1\.0 given; expected finite"),
        Case("scale NaN", lambda: solve(scale=math.nan), ValueError, r"^scale: nan given; expected finite numbers"),
        Case("scale a string", lambda: solve(scale="x"), TypeError, r"^scale: str given; expected a number, or an"),
        Case("scale True", lambda: solve(scale=True), TypeError, r"^scale: bool given; expected a number"),
        Case("scale complex", lambda: solve(scale=1j), TypeError, r"^scale: complex given; expected a number"),
        Case("scale of another length", lambda: solve(scale=np.ones(2)), ValueError,
             r"^scale: .*\(2,\).* given; expected a number, or an array of shape \(3,\)"),
        Case("scale with one 0", lambda: solve(scale=np.array([1.0, 0, 1])), ValueError, r"^scale: .*expected finite"),
    ]  # fmt: skip
    for words, given, hint in (
        ("tol", {"tol": 1}, "'rtol'"),
        ("maxiter", {"maxiter": 1}, "'max_steps'"),
        ("max_iter", {"max_iter": 1}, "'max_steps'"),
        ("f_tol", {"f_tol": 1}, "'rtol'"),
        ("solver", {"solver": 1}, "'method'"),
        ("throw", {"throw": 1}, "'on_failure'"),
        ("max_step", {"max_step": 1}, "'max_steps'"),
        ("rowargs", {"rowargs": 1}, "'row_args'"),
        ("onfailure", {"onfailure": 1}, "'on_failure'"),
        ("nonsense", {"qqq": 1}, r"its options are args, row_args, .*on_failure"),
    ):
        expected = rf"\(\) has no option '{next(iter(given))}'; (did you mean )?{hint}"
        for name, function in SOLVES.items():
            called = CALLED[name] + expected
            cases.append(Case(f"option {words}{name}", lambda o=given, run=function: run(**o), TypeError, f"^{called}"))
    for words, given, hint in (
        ("m", {"m": 5}, r"'history'|Anderson\(history"),
        ("history", {"history": 5}, r"Anderson\(history"),
        ("beta", {"beta": 0.5}, r"Anderson\(beta|Picard\(beta"),
        ("storage", {"storage": "bfloat16"}, r"Anderson\(storage"),
    ):  # options of a method, given to the solve
        expected = rf"\(\) has no option '{words}'; .*({hint})"
        cases.append(
            Case(f"option {words} of a method", lambda o=given: solve(**o), TypeError, rf"^fixed_point{expected}")
        )
    return cases


def methods() -> list[Case]:
    """Wrong options of the methods."""
    return [
        Case("history 0", lambda: Anderson(history=0), ValueError, r"^history: 0 given; expected 1 to 32"),
        Case("history 33", lambda: Anderson(history=33), ValueError, r"^history: 33 given; expected 1 to 32"),
        Case("history -1", lambda: Anderson(history=-1), ValueError, r"^history: -1 given; expected 1 to 32"),
        Case("history huge", lambda: Anderson(history=2**70), ValueError, r"^history: 1180591620717411303424 given"),
        Case("history 2.5", lambda: Anderson(history=2.5), TypeError, r"^history: 2\.5 given; expected an integer"),
        Case("history True", lambda: Anderson(history=True), TypeError, r"^history: True given; expected an integer"),
        Case("history '6'", lambda: Anderson(history="6"), TypeError, r"^history: '6' given; expected an integer"),
        Case("beta 0", lambda: Picard(beta=0), ValueError, r"^beta: 0 given; expected a number in \(0, 2\)"),
        Case("beta 2", lambda: Anderson(beta=2), ValueError, r"^beta: 2 given; expected a number in \(0, 2\)"),
        Case("beta NaN", lambda: Anderson(beta=math.nan), ValueError, r"^beta: nan given; expected a number in"),
        Case("beta '1'", lambda: Picard(beta="1"), TypeError, r"^beta: '1' given; expected a real number"),
        Case("ridge negative", lambda: Anderson(ridge=-1e-3), ValueError, r"^ridge: -0\.001 given; expected a finite"),
        Case("ridge NaN", lambda: Anderson(ridge=math.nan), ValueError, r"^ridge: nan given; expected a finite"),
        Case(
            "storage", lambda: Anderson(storage="float16"), ValueError, r"^storage: 'float16' given; expected 'full' or"
        ),
        Case("storage 16", lambda: Anderson(storage=16), ValueError, r"^storage: 16 given; expected 'full' or"),
        Case("growth 1", lambda: Anderson(growth=1), ValueError, r"^growth: 1 given; expected a number above 1"),
        Case("growth NaN", lambda: Anderson(growth=math.nan), ValueError, r"^growth: nan given; expected a number"),
        Case("option m", lambda: Anderson(m=5), TypeError, r"^Anderson\(\) has no option 'm'; did you mean 'history'"),
        Case("option histroy", lambda: Anderson(histroy=5), TypeError, r"^Anderson\(\) has no option .*'history'"),
        Case("option damping", lambda: Picard(damping=5), TypeError, r"^Picard\(\) has no option .*'beta'"),
        Case("Method itself", lambda: deqcore.Method(), TypeError, r"^Method: give one of the methods"),
        Case("set_num_threads -1", lambda: deqcore.set_num_threads(-1), ValueError, r"^threads: -1 given; expected"),
        Case("set_num_threads 2.5", lambda: deqcore.set_num_threads(2.5), TypeError, r"threads.*2\.5|threads.*float"),
        Case("scratch_bytes of 0 rows", lambda: deqcore.scratch_bytes(0, 4), ValueError, r"^rows: 0 given; expected"),
        Case("scratch_bytes of width 0", lambda: deqcore.scratch_bytes(4, 0), ValueError, r"^width: 0 given; expected"),
        Case("scratch_bytes of 2.5 rows", lambda: deqcore.scratch_bytes(2.5, 4), TypeError, r"^rows: 2\.5 given"),
        Case(
            "scratch_bytes of int32",
            lambda: deqcore.scratch_bytes(4, 4, "int32"),
            TypeError,
            r"^dtype: 'int32' given; expected float32 or float64",
        ),
        Case(
            "scratch_bytes of nonsense",
            lambda: deqcore.scratch_bytes(4, 4, "foo"),
            TypeError,
            r"^dtype: 'foo' given; expected float32 or float64",
        ),
        Case(
            "scratch_bytes beyond memory",
            lambda: deqcore.scratch_bytes(2**31 - 1, 2**40),
            ValueError,
            r"^memory: more bytes needed than can be counted",
        ),
        Case(
            "scratch_bytes of an absurd width",
            lambda: deqcore.scratch_bytes(1, 2**60),
            ValueError,
            r"^width: 1152921504606846976 given; expected 1 to",
        ),
        Case("set_num_threads 1025", lambda: deqcore.set_num_threads(1025), ValueError, r"^threads: 1025 .* to 1024"),
        Case("rtol beyond float64", lambda: solve(rtol=10**400), ValueError, r"^rtol: a number beyond the range"),
        Case("trace 'yes'", lambda: solve(trace="yes"), TypeError, r"^trace: 'yes' given; expected True or False"),
        Case(
            "trace beyond memory",
            lambda: solve(trace=True, max_steps=2**31 - 1, z0=np.zeros((10**6, 1)), method="picard"),
            MemoryError,
            r"^trace: 2147483647 steps \(max_steps\) of 1000000 rows need",
        ),
        Case("pass_rows 1", lambda: solve(pass_rows=1), TypeError, r"^pass_rows: 1 given; expected True or False"),
        Case("pass_rows of adjoint", lambda: back(pass_rows="no"), TypeError, r"^pass_rows: 'no' given; expected True"),
        Case("ragged scale", lambda: solve(scale=[[1], [1, 2], [3]]), TypeError, r"^scale: list given; expected a num"),
        Case("a subclass of Dense", lambda: type("Mine", (Dense,), {}), TypeError, r"^Dense: cannot be subclassed"),
    ]


def native_maps() -> list[Case]:
    """The dense map, its solves and its products."""
    other = np.ones((3, 5))
    cases = [
        Case("W not square", lambda: Dense(np.ones((3, 4))), ValueError, r"^W: .*\(3, 4\).*expected a square matrix"),
        Case("W of one axis", lambda: Dense(np.ones(4)), ValueError, r"^W: .*\(4,\).*expected a square matrix"),
        Case("W empty", lambda: Dense(np.ones((0, 0))), ValueError, r"^W: .*\(0, 0\).*at least"),
        Case("W of int64", lambda: Dense(np.eye(3, dtype=int)), TypeError, r"^W: .*int64.*float32 or float64"),
        Case("W a list", lambda: Dense([[0.5]]), TypeError, r"^W: list given; expected a NumPy array"),
        Case("W on a device", lambda: Dense(OnDevice()), TypeError, r"^W: torch\.OnDevice .*on a CUDA device given"),
        Case("W with NaN", lambda: Dense(np.diag([1, np.nan])), ValueError, r"^W: nan at index \(1, 1\)"),
        Case("activation 'tan'", lambda: Dense(W, "tan"), ValueError, r"^activation: 'tan' given; .*relu, tanh"),
        Case("activation None", lambda: Dense(W, None), TypeError, r"^activation: None given; expected one of"),
        Case("activation np.tanh", lambda: Dense(W, np.tanh), TypeError, r"^activation: .*tanh.* given; expected one"),
        Case("update of another width", lambda: layer.update(np.eye(5)), ValueError, r"^W: .*5.*expected.*4"),
        Case("update of another dtype", lambda: layer.update(np.eye(4, dtype=np.float32)), TypeError,
             r"^W: .*float32 given; expected dtype float64"),
        Case("update with NaN", lambda: layer.update(W * np.nan), ValueError, r"^W: nan at index \(0, 0\)"),
    ]  # fmt: skip
    shared: list[tuple[str, Any, Any, type[Exception], str]] = [
        ("injection of another width", z, other, ValueError, r"injection: .*\(3, 5\).*expected shape \(3, 4\)"),
        ("injection with other rows", z, x[:2], ValueError, r"injection: .*\(2, 4\).*expected shape \(3, 4\)"),
        ("injection of float32", z, z32, TypeError, r"injection: .*float32 given; expected dtype float64"),
        ("injection of int", z, np.ones((3, 4), int), TypeError, r"injection: .*int64 given; expected dtype float64"),
        ("injection a list", z, x.tolist(), TypeError, r"injection: list given; expected a NumPy array"),
        ("injection 0-d", z, np.array(1.0), ValueError, r"injection: .*\(\).*expected shape \(3, 4\)"),
        ("injection empty", z, np.ones((0, 4)), ValueError, r"injection: .*\(0, 4\).*expected shape \(3, 4\)"),
        ("injection with NaN", z, one_nan, ValueError, r"injection: nan at index \(2, 1\)"),
        ("injection on a device", z, OnDevice(), TypeError, r"injection: torch\.OnDevice .*on a CUDA device given"),
        ("state of another width", other, x, ValueError, r"STATE: .*\(3, 5\).*expected rows of width 4"),
        ("state of another dtype", z32, x, TypeError, r"STATE: .*float32.*expected.*float64"),
    ]
    for words, state, injection, error, text in shared:
        message, start = text.replace("STATE", "z"), text.replace("STATE", "z0")
        cases += [
            Case(f"solve: {words}", lambda s=state, c=injection: native(s, row_args=(c,)), error, rf"^{start}"),
            Case(f"solve by dialogue: {words}",
                 lambda s=state, c=injection: native(s, row_args=(c,), callback=print), error, rf"^{start}"),
            Case(f"adjoint: {words}",
                 lambda s=state, c=injection: back(s, s, layer, row_args=(c,)), error, rf"^{message}"),
            Case(f"tangent: {words}",
                 lambda s=state, c=injection: along(s, s, layer, row_args=(c,)), error, rf"^{message}"),
            Case(f"value: {words}", lambda s=state, c=injection: layer(s, c), error, rf"^{message}"),
            Case(f"jvp: {words}", lambda s=state, c=injection: layer.jvp(s, s, c), error, rf"^{message}"),
            Case(f"vjp: {words}", lambda s=state, c=injection: layer.vjp(s, s, c), error, rf"^{message}"),
            Case(f"parameter_gradients: {words}",
                 lambda s=state, c=injection: layer.parameter_gradients(s, c, s), error, rf"^{message}"),
        ]  # fmt: skip
    one = Dense(np.array([[0.5]]))
    cases += [
        Case("injection 0-d for width 1", lambda: one(np.zeros((3, 1)), np.array(1.0)), ValueError,
             r"^injection: .*\(\).*expected shape"),
        Case("no injection", lambda: native(row_args=()), TypeError, r"^row_args: .*expected \(injection,\)"),
        Case("two injections", lambda: native(row_args=(x, x)), TypeError, r"^row_args: .*expected \(injection,\)"),
        Case("injection not in a tuple", lambda: native(row_args=x), TypeError, r"^row_args: array.*expected a tuple"),
        Case("args for a native map", lambda: native(args=(x,)), TypeError, r"^args, pass_rows: a native map takes"),
        Case("pass_rows for a native map", lambda: native(pass_rows=True), TypeError, r"^args, pass_rows: a native"),
        Case("native: rtol NaN", lambda: native(rtol=math.nan), ValueError, r"^rtol: nan given"),
        Case("native: scale 0", lambda: native(scale=0), ValueError, r"^scale: 0 given"),
        Case("native: max_steps 0", lambda: native(max_steps=0), ValueError, r"^max_steps: 0 given"),
        Case("native: threads huge", lambda: native(threads=2**40), ValueError, r"^threads: 1099511627776 given"),
        Case("native: unknown option", lambda: native(tol=1), TypeError, r"^fixed_point\(\) has no option 'tol'"),
        Case("jvp: v of another shape", lambda: layer.jvp(z, x[:2], x), ValueError, r"^v: .*\(2, 4\).*\(3, 4\)"),
        Case("vjp: v of float32", lambda: layer.vjp(z, z32, x), TypeError, r"^v: .*float32.*float64"),
        Case("vjp: v with NaN", lambda: layer.vjp(z, one_nan, x), ValueError, r"^v: nan at index"),
        Case("parameter_gradients: u of another shape", lambda: layer.parameter_gradients(z, x, x[:2]), ValueError,
             r"^u: .*\(2, 4\).*\(3, 4\)"),
        Case("parameter_gradients: u a list", lambda: layer.parameter_gradients(z, x, x.tolist()), TypeError,
             r"^u: list given; expected a NumPy array"),
    ]  # fmt: skip
    return cases


def linearised() -> list[Case]:
    """What only the linear solves take, and the methods that only some functions take."""
    handle, by_ids = Warm(np.ones((3, 4))), Warm(np.ones((3, 4)), np.arange(3))
    ids = np.arange(3)
    cases = [
        Case("jvp None", lambda: along(jvp=None), TypeError, r"^map_or_jvp: None given; expected jvp\(z, v, \.\.\.\)"),
        Case("jvp an array", lambda: along(jvp=W), TypeError, r"^map_or_jvp: .* given; expected jvp"),
        Case("matvec None", lambda: linear(matvec=None), TypeError, r"^matvec: None given; expected a callable"),
        Case("matvec an array", lambda: linear(matvec=W), TypeError, r"^matvec: .* given; expected a callable"),
        Case("preconditioner 1", lambda: linear(preconditioner=1), TypeError, r"^preconditioner: 1 given; expected a"),
        Case("preconditioner for Direct", lambda: linear(preconditioner=half, method=Direct()), ValueError,
             r"^preconditioner: Direct takes none"),
        Case("f for GMRES", lambda: back(f=half), ValueError, r"^f: given with method GMRES.*only Phantom\(\) unrolls"),
        Case("f for Neumann", lambda: back(f=half, method=Neumann(3)), ValueError, r"^f: given with method Neumann\("),
        Case("f of Phantom a number", lambda: back(f=3, method=Phantom(3)), TypeError, r"^f: 3 given; expected the"),
        Case("Phantom without f", lambda: back(method=Phantom(3)), ValueError, r"^f: None given; Phantom\(\) unrolls"),
        Case("estimate_error 1", lambda: back(estimate_error=1), TypeError, r"^estimate_error: 1 given; expected True"),
        Case("estimate_error None", lambda: along(estimate_error=None), TypeError, r"^estimate_error: None given"),
        Case("u0 and warm", lambda: back(u0=x, warm=handle), ValueError, r"^u0, warm: both given; expected one"),
        Case("t0 and warm", lambda: along(t0=x, warm=handle), ValueError, r"^t0, warm: both given; expected one"),
        Case("tangent with f", lambda: along(f=half), TypeError, r"^tangent\(\) has no option 'f'"),
        Case("linear_solve with u0", lambda: linear(u0=x), TypeError, r"^linear_solve\(\) has no option 'u0'.*'x0'"),
        Case("linear_solve with M", lambda: linear(M=half), TypeError, r"^linear_solve\(\) .*'M'; .*'preconditioner'"),
        Case("linear_solve with precond", lambda: linear(precond=half), TypeError, r".*did you mean 'preconditioner'"),
        Case("linear_solve with warm", lambda: linear(warm=handle), TypeError, r"^linear_solve\(\) has no .*'warm'"),
        Case("restart of GMRES", lambda: back(restart=5), TypeError, r"^adjoint\(\) .*deqcore\.GMRES\(restart="),
        Case("max_width of Direct", lambda: linear(max_width=5), TypeError, r".*method=deqcore\.Direct\(max_width="),
        Case("Direct too narrow", lambda: back(method=Direct(max_width=3)), ValueError, r"^width: 4 given; .* 3 "),
        Case("Direct, few steps", lambda: along(method=Direct(), max_steps=4), ValueError, r"^max_steps: 4 given; D"),
    ]  # fmt: skip
    for words, value, error, message in (
        ("0", 0, ValueError, r"0\.0 given; expected a number > 0"),
        ("negative", -0.1, ValueError, r"-0\.1 given; expected a number > 0"),
        ("NaN", math.nan, ValueError, r"nan given; expected a number > 0"),
        ("a string", "0.1", TypeError, r"'0\.1' given; expected a real number"),
        ("True", True, TypeError, r"True given; expected a real number"),
        ("an array", np.ones(3), TypeError, r"array.* given; expected a real number"),
    ):
        for name, function in ((", backward", back), (", tangent", along)):
            cases.append(
                Case(f"max_error {words}{name}", lambda v=value, run=function: run(max_error=v), error,
                     rf"^max_error: {message}")
            )  # fmt: skip
    for words, given, error, message in (
        ("warm a dict", {"warm": {}}, TypeError, r"warm: dict given; expected the \.warm of a solution"),
        ("warm an array", {"warm": x}, TypeError, r"warm: array of shape .* given; expected the \.warm"),
        ("warm of a list", {"warm": Warm([1.0])}, TypeError, r"warm: a handle on list given; expected a NumPy array"),
        ("warm on a device", {"warm": Warm(OnDevice())}, TypeError, r"warm: a handle on torch\.OnDevice .* given"),
        ("warm of float32", {"warm": Warm(z32)}, ValueError, r"warm: .*float32 given; .*dtype float64"),
        ("warm of another width", {"warm": Warm(x[:, :3])}, ValueError, r"warm: .*\(3, 3\).*expected shape \(3, 4\)"),
        ("warm of other rows", {"warm": Warm(x[:2])}, ValueError, r"warm: .*\(2, 4\).*expected shape \(3, 4\), or ids"),
        ("warm of one axis", {"warm": Warm(x[0])}, ValueError, r"warm: .*\(4,\).*expected shape \(3, 4\)"),
        ("warm with ids, ids", {"warm": Warm(x[:, :3], ids), "ids": ids}, ValueError, r"warm: .*rows of shape \(4,\)"),
        ("warm with ids alone", {"warm": by_ids}, ValueError, r"warm: the handle has ids and this solve has none"),
        ("ids alone", {"warm": handle, "ids": ids}, ValueError, r"warm: this solve has ids and the handle has none"),
        ("warm with few ids", {"warm": Warm(x, ids[:2]), "ids": ids}, ValueError, r"warm\.ids: .*shape \(3,\)"),
        ("warm with ids twice", {"warm": Warm(x, ids * 0), "ids": ids}, ValueError, r"warm\.ids: 2 repeated; expected"),
        ("warm with float ids", {"warm": Warm(x, ids / 2), "ids": ids}, TypeError, r"warm\.ids: .*an array of int"),
        ("ids of floats", {"ids": ids / 2}, TypeError, r"ids: .*float64 given; expected an array of integers"),
        ("ids of bool", {"ids": ids > 0}, TypeError, r"ids: .*bool given; expected an array of integers"),
        ("ids of strings", {"ids": ["a", "b", "c"]}, TypeError, r"ids: list given; expected an array of integers"),
        ("ids a number", {"ids": 5}, ValueError, r"ids: .*\(\).* given; expected shape \(3,\), one per row"),
        ("ids of another length", {"ids": ids[:2]}, ValueError, r"ids: .*\(2,\).* given; expected shape \(3,\)"),
        ("ids of two axes", {"ids": ids[:, None]}, ValueError, r"ids: .*\(3, 1\).* given; expected shape \(3,\)"),
        ("ids repeated", {"ids": [7, 1, 7]}, ValueError, r"ids: 1 repeated; expected a different one for each row"),
        ("keep True", {"keep": True}, ValueError, r"keep: True given; expected None or 'state'"),
        ("keep 'history'", {"keep": "history"}, ValueError, r"keep: 'history' given; expected None or 'state'"),
        ("keep an array", {"keep": x}, ValueError, r"keep: array.* given; expected None or 'state'"),
        ("wamr", {"wamr": handle}, TypeError, r"(adjoint|tangent)\(\) has no option 'wamr'; did you mean 'warm'"),
        ("max_eror", {"max_eror": 1}, TypeError, r"(adjoint|tangent)\(\) has no option .*did you mean 'max_error'"),
        ("estimate", {"estimate": True}, TypeError, r"(adjoint|tangent)\(\) has no .*did you mean 'estimate_error'"),
    ):  # fmt: skip
        for name, function in ((", backward", back), (", tangent", along)):
            cases.append(Case(f"{words}{name}", lambda o=given, run=function: run(**o), error, rf"^{message}"))
    for method, wrong in (
        (GMRES(), {"": solve}),
        (BiCGSTAB(), {"": solve}),
        (Direct(), {"": solve}),
        (Picard(), {", linear": linear}),
        (Anderson(), {", linear": linear}),
        (JacobianFree(), {"": solve, ", tangent": along, ", linear": linear}),
        (Neumann(3), {"": solve, ", tangent": along, ", linear": linear}),
        (Phantom(3), {"": solve, ", tangent": along, ", linear": linear}),
    ):
        kind = type(method).__name__
        for name, function in wrong.items():
            cases += [
                Case(f"method {kind}{name}", lambda m=method, run=function: run(method=m), ValueError,
                     rf"^method: {kind}\(.*\) given; {CALLED[name]}\(\) takes one of '"),
                Case(f"method {method.name!r}{name}", lambda m=method, run=function: run(method=m.name), ValueError,
                     rf"^method: '{method.name}' given; expected one of '"),
            ]  # fmt: skip
    for kind, options in (
        (GMRES, [("restart", 0, "1 to 500"), ("restart", 501, "1 to 500"), ("restart", 2.5, "an integer"),
                 ("restart", True, "an integer"), ("restart", None, "an integer")]),
        (Direct, [("max_width", 0, "1 to 4096"), ("max_width", 4097, "1 to 4096"), ("max_width", "9", "an integer")]),
        *((kind, [("k", 0, "1 to 10000"), ("k", 10001, "1 to 10000"), ("k", 1.5, "an integer"), ("k", False, "an int"),
                  ("tau", 0, r"a number in \(0, 2\)"), ("tau", 2, r"a number in \(0, 2\)"),
                  ("tau", math.nan, r"a number in \(0, 2\)"), ("tau", "1", "a real number")])
          for kind in (Neumann, Phantom)),
    ):  # fmt: skip
        for option, value, expected in options:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            whole = option == "tau" or isinstance(value, int)
            error = ValueError if number and whole else TypeError
            cases.append(
                Case(f"{kind.__name__}({option}={value!r})", lambda k=kind, o=option, v=value: k(**{o: v}), error,
                     rf"^{option}: .* given; expected {expected}")
            )  # fmt: skip
    for words, call, hint in (
        ("GMRES(restrat)", lambda: GMRES(restrat=3), r"GMRES\(\) has no option 'restrat'; did you mean 'restart'"),
        ("BiCGSTAB(restart)", lambda: BiCGSTAB(restart=3), r"BiCGSTAB\(\) has no option 'restart'"),
        ("Direct(width)", lambda: Direct(width=3), r"Direct\(\) has no option 'width'; did you mean 'max_width'"),
        ("JacobianFree(k)", lambda: JacobianFree(k=3), r"JacobianFree\(\) has no option 'k'"),
        ("Neumann(terms)", lambda: Neumann(terms=3), r"Neumann\(\) has no option 'terms'; its options are k, tau"),
        ("Phantom(taus)", lambda: Phantom(taus=1), r"Phantom\(\) has no option 'taus'; did you mean 'tau'"),
    ):
        cases.append(Case(f"option of {words}", call, TypeError, f"^{hint}"))
    return cases


CASES = states() + answers() + options() + methods() + native_maps() + linearised()


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_the_error_names_the_argument_and_what_was_expected(case):
    with pytest.raises(case.error, match="(?s)" + case.message) as caught:
        case.call()
    assert type(caught.value) is case.error


def test_no_two_cases_have_one_name():
    assert len({case.id for case in CASES}) == len(CASES)


class TestExceptions:
    def test_raised_in_a_map_come_out_unchanged_and_the_next_solve_works(self):
        A = np.array([[0.5, 0.2, 0, 0.1], [0.3, 0.1, 0.4, 0], [0, 0.6, 0.2, 0.1], [0.1, 0, 0.3, 0.4]])
        for error in (RuntimeError("mine"), StopIteration(3), KeyboardInterrupt(), SystemExit(3), GeneratorExit()):
            for fails_at in (1, 4):
                calls = [0]

                def f(z, *args, error=error, fails_at=fails_at, calls=calls):
                    calls[0] += 1
                    if calls[0] == fails_at:
                        raise error
                    return np.cos(z)

                def product(*points, f=f):
                    f(points[-1])
                    return points[-1] @ A

                calls_of = [
                    lambda f=f: solve(f=f),
                    lambda f=f: back(vjp=lambda z, v: v @ A, f=f, method=Phantom(6)),
                    lambda p=product: linear(matvec=p),
                    lambda p=product: linear(matvec=lambda v: v @ A, preconditioner=p),
                ]
                for method in ("gmres", "bicgstab", "direct", "anderson", "picard", Neumann(6), Phantom(6)):
                    unrolls = {"f": np.cos} if isinstance(method, Phantom) else {}
                    calls_of.append(lambda p=product, m=method, o=unrolls: back(vjp=p, method=m, **o))
                calls_of += [
                    lambda p=product, m=method: along(jvp=p, method=m)
                    for method in ("gmres", "bicgstab", "direct", "anderson", "picard")
                ]
                for call in calls_of:
                    calls[0] = 0
                    with pytest.raises(type(error)) as caught:
                        call()
                    assert caught.value is error
                    assert solve(f=np.cos).success
                    assert fixed_point(layer, z, row_args=(x,)).success

    def test_in_a_map_keep_their_traceback(self):
        def f(z):
            raise ZeroDivisionError("in the map")

        with pytest.raises(ZeroDivisionError) as caught:
            solve(f=f)
        assert caught.traceback[-1].name == "f"

    def test_one_map_can_be_solved_again_after_a_refused_answer(self):
        answers = [None]

        def f(z):
            return answers.pop() if answers else np.cos(z)

        with pytest.raises(TypeError):
            solve(f=f)
        assert solve(f=f).success


class TestAllowed:
    def test_read_only_strided_and_fortran_starts(self):
        read_only = np.zeros((3, 4))
        read_only.flags.writeable = False
        for start in (read_only, np.zeros((6, 8))[::2, ::2], np.zeros((3, 4), order="F"), np.zeros((3, 4))[::-1]):
            assert solve(start, np.cos).success
            assert native(start).success
            right = np.array(start) + 1
            right.flags.writeable = False
            assert back(start, np.asfortranarray(right), u0=start).success
            assert along(start, right, layer, row_args=(x,), t0=start).success
            assert linear(right, x0=start).success
            assert back(start, right, warm=Warm(start)).success
            assert (back(start, right, f=np.cos, method=Phantom(3)).status == Status.approximate).all()

    def test_one_row_of_nan_in_an_answer_is_a_status(self):
        solution = solve(f=lambda z: np.where(np.arange(3)[:, None] == 1, np.nan, np.cos(z)), on_failure="return")
        assert solution.status.tolist() == [0, Status.not_finite, 0]

    def test_numbers_of_numpy_as_options(self):
        solution = solve(
            rtol=np.float32(1e-3), atol=np.float64(1e-3), max_steps=np.int16(50), look_every=np.uint8(2),
            threads=np.int64(1), method=Anderson(history=np.int64(3), beta=np.float32(1)),
        )  # fmt: skip
        assert solution.success
        assert back(
            max_error=np.float32(0.1), ids=np.array([1, 2, 3], np.uint8), method=GMRES(restart=np.int8(3))
        ).success
        assert along(estimate_error=np.True_, ids=[5, 6, 7], method=Direct(max_width=np.int64(4))).success
        assert (back(method=Neumann(np.int64(3), np.float32(0.5))).status == Status.approximate).all()


@contextmanager
def interrupted(after: float, times: int = 1, handler: Any = signal.default_int_handler):
    """SIGINT for this process; -> the moments at which it was sent. Only from the main thread."""
    before = signal.signal(signal.SIGINT, handler)
    sent: list[float] = []
    over = threading.Event()

    def send():
        for _ in range(times):
            if over.wait(after):
                return
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


class TestCtrlC:
    width, rows = 64, 40

    def endless(self):
        """A rotation: every iterate has the norm of the first, and nothing ever ends."""
        Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((self.width, self.width)))
        return Dense(Q, "identity"), np.random.default_rng(1).standard_normal((self.rows, self.width))

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
    def test_ends_a_long_native_solve_at_once(self, threads, backward):
        rotation, start = self.endless()
        endless = {"method": "picard", "rtol": 1e-14, "max_steps": 2**31 - 1, "threads": threads}
        zero = (np.zeros(self.width),)
        sideways = 1e-3 * start  # u = J' u + g goes round a large circle for ever

        def solve_for_ever():
            if backward:
                return adjoint(rotation, start, sideways, u0=start, row_args=zero, **endless)
            return fixed_point(rotation, start, row_args=zero, **endless)

        before = rotation(start, *zero)
        with pytest.raises(KeyboardInterrupt), interrupted(after=0.2) as sent:
            solve_for_ever()
        assert time.monotonic() - sent[0] < 1.5
        # the map is as it was
        np.testing.assert_array_equal(rotation(start, *zero), before)
        assert fixed_point(rotation, 0 * start, row_args=zero).success

    def test_in_a_native_solve_raises_what_the_handler_raises(self):
        rotation, start = self.endless()

        class Mine(Exception):
            pass

        def handler(number, frame):
            raise Mine

        options = {"method": "picard", "rtol": 1e-14, "max_steps": 2**31 - 1}
        with pytest.raises(Mine), interrupted(after=0.1, handler=handler):
            fixed_point(rotation, start, row_args=(np.zeros(self.width),), **options)

    def test_is_heard_by_a_thread_that_a_fork_made_the_main_one(self):
        script = """
import os, signal, threading, time, warnings, numpy as np, deqcore
warnings.simplefilter("ignore")  # that a process with threads forks
rotation = deqcore.maps.Dense(np.array([[0.0, -1.0], [1.0, 0.0]]), "identity")
def endless():
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    options = {"method": "picard", "rtol": 1e-14, "max_steps": 2**31 - 1, "threads": 1}
    try:
        deqcore.fixed_point(rotation, np.ones((1, 2)), row_args=(np.zeros(2),), **options)
    except KeyboardInterrupt:
        os._exit(7)
threading.Thread(target=endless).start()
time.sleep(50)
"""
        assert subprocess.run([sys.executable, "-c", script], timeout=40).returncode == 7

    def test_in_the_dialogue_comes_out(self):
        rotation, start = self.endless()
        options = {"method": "picard", "rtol": 1e-14, "max_steps": 2**31 - 1}
        with pytest.raises(KeyboardInterrupt), interrupted(after=0.1) as sent:
            fixed_point(lambda z: rotation(z, np.zeros(self.width)), start, **options)
        assert time.monotonic() - sent[0] < 1.5
        assert solve(f=np.cos).success

    def test_that_a_handler_swallows_lets_the_solve_go_on(self):
        rotation, start = self.endless()
        caught = []
        with interrupted(after=0.05, times=3, handler=lambda number, frame: caught.append(number)):
            solution = fixed_point(
                rotation, start, row_args=(np.zeros(self.width),), method="picard", rtol=1e-14, max_steps=30_000,
                on_failure="return", threads=1,
            )  # fmt: skip
        assert (solution.status == Status.out_of_steps).all()
        assert caught


class TestSolvesInSolves:
    def test_a_map_may_solve_inside_with_the_same_native_map(self):
        def outer(z):
            inner = fixed_point(layer, np.zeros_like(z), row_args=(z.copy(),), rtol=1e-13)
            return 0.5 * inner.value + 1

        solution = solve(f=outer)
        assert solution.success
        np.testing.assert_allclose(outer(solution.value), solution.value, atol=1e-6)

    def test_an_error_in_the_inner_solve_comes_out_of_the_outer(self):
        def outer(z):
            return fixed_point(lambda y: y + 1, np.zeros_like(z), max_steps=3).value

        with pytest.raises(ConvergenceError, match="3 of 3 rows did not converge: 3 out_of_steps") as caught:
            solve(f=outer)
        assert caught.value.solution.steps.tolist() == [3, 3, 3]

    def test_a_callback_may_solve(self):
        solution = solve(f=np.cos, callback=lambda progress: fixed_point(np.cos, np.ones(2)))
        assert solution.success

    def test_three_deep(self):
        def level(depth):
            if depth == 0:
                return np.cos
            return lambda z: np.cos(fixed_point(level(depth - 1), np.array(z)).value * 0.1 + z)

        assert solve(f=level(2)).success

    def test_two_threads_at_once_with_callables_and_natives(self):
        wrong = []
        expected = native().value, solve(f=np.cos).value

        def work():
            for _ in range(30):
                if native().value.tobytes() != expected[0].tobytes():
                    wrong.append("native")
                if solve(f=np.cos).value.tobytes() != expected[1].tobytes():
                    wrong.append("callable")

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def pickled(anything: Any) -> Any:
    return pickle.loads(pickle.dumps(anything))


class TestPickling:
    def same(self, a, b):
        for field in a.__dataclass_fields__:
            left, right = getattr(a, field), getattr(b, field)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right)
                assert not np.shares_memory(left, right)
            else:
                assert left == right

    @pytest.mark.parametrize("how", [pickled, copy.deepcopy], ids=["pickle", "deepcopy"])
    def test_solutions_errors_methods_and_statuses_survive(self, how):
        solution = solve(f=np.cos, trace=True)
        self.same(solution, how(solution))
        assert repr(how(solution)) == repr(solution)
        with pytest.raises(ConvergenceError) as caught:
            solve(f=lambda z: z + 1, max_steps=3)
        error = how(caught.value)
        assert type(error) is ConvergenceError
        assert str(error) == str(caught.value)
        self.same(error.solution, caught.value.solution)
        for method in (Picard(), Picard(beta=0.5), Anderson(history=3, ridge=0, growth=math.inf)):
            assert how(method) == method
            assert hash(how(method)) == hash(method)
            assert solve(f=np.cos, method=how(method)).success
        for status in Status:
            assert how(status) is status
        assert how(solution.tolerances) == solution.tolerances

    def test_every_protocol(self):
        solution = solve(f=np.cos)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            self.same(solution, pickle.loads(pickle.dumps(solution, protocol)))


def table() -> None:
    """Print each case with the error it gives."""
    right = 0
    for case in CASES:
        try:
            case.call()
            outcome = "NO ERROR"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {' '.join(str(error).split())}"
            try:
                test_the_error_names_the_argument_and_what_was_expected(case)
                right += 1
            except BaseException:
                outcome = f"WRONG, {outcome}"
        print(f"{case.id:44.44}  {outcome}")
    print(f"{right} of {len(CASES)} give the error they should")


if __name__ == "__main__":
    table()
