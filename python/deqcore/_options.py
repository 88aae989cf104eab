# SPDX-License-Identifier: Apache-2.0
"""Options shared by the solvers, and the errors for those that are wrong."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, NoReturn

import numpy as np

from . import _core

# What the same thing is called elsewhere (torchdeq, jaxopt, optimistix, SciPy, deq), so that an old name finds the new.
_ELSEWHERE = {
    "tol": "rtol",
    "f_tol": "rtol",
    "b_tol": "rtol",
    "f_rtol": "rtol",
    "eps": "rtol",
    "xtol": "rtol",
    "maxiter": "max_steps",
    "max_iter": "max_steps",
    "f_max_iter": "max_steps",
    "b_max_iter": "max_steps",
    "threshold": "max_steps",
    "maxfev": "max_steps",
    "solver": "method",
    "f_solver": "method",
    "b_solver": "method",
    "throw": "on_failure",
    "m": "history",
    "M": "history",
    "history_size": "history",
    "damp": "beta",
    "damping": "beta",
    "tau": "beta",
    "alpha": "beta",
    "lam": "ridge",
    "jac": "jvp",
    "fprime": "jvp",
    "jacobian": "jvp",
    "verbose": "callback",
    "num_threads": "threads",
    "n_jobs": "threads",
}
# Options of the methods, which other libraries give to the solve itself.
_OF_METHODS = {
    "history": "Anderson",
    "beta": "Anderson",
    "ridge": "Anderson",
    "growth": "Anderson",
    "storage": "Anderson",
    "forcing": "NewtonKrylov",
    "descent": "Newton",
    "restart": "GMRES",
    "max_width": "Direct",
}


def keyword_options(function: Callable[..., Any]) -> list[str]:
    """The names of a function's keyword-only options."""
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]


def refuse_unknown(function: str, unknown: Mapping[str, Any], known: Iterable[str]) -> NoReturn:
    """Raise a TypeError that names the nearest valid option."""
    known = list(known)
    given = next(iter(unknown))
    near = _ELSEWHERE.get(given)
    if given == "M" and "preconditioner" in known:  # SciPy's; elsewhere M is a history
        near = "preconditioner"
    option = near or given
    if option in _OF_METHODS and "method" in known:
        method = _OF_METHODS[option]
        if function in ("fixed_point", "root"):
            method = {"restart": "NewtonKrylov", "max_width": "Newton"}.get(option, method)
        raise TypeError(
            f"{function}() has no option {given!r}; it belongs to the method: method=deqcore.{method}({option}=...)"
        )
    if near not in known:
        close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
        near = close[0] if close else None
    hint = f"; did you mean {near!r}?" if near else f"; its options are {', '.join(known)}"
    raise TypeError(f"{function}() has no option {given!r}{hint}")


def real(value: Any, what: str) -> float:
    """A real number as float; a TypeError names the option otherwise."""
    if type(value) is float:
        return value
    if type(value) is bool or not isinstance(value, Real):
        raise TypeError(f"{what}: {value!r} given; expected a real number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what}: a number beyond the range of float64 given") from None


def flag(value: Any, what: str) -> bool:
    """True or False; a TypeError names the option otherwise."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{what}: {value!r} given; expected True or False")


def integer(value: Any, what: str) -> int:
    """An integer; a TypeError names the option otherwise."""
    try:
        if type(value) is bool:
            raise TypeError
        whole = int(operator.index(value))
    except TypeError:
        raise TypeError(f"{what}: {value!r} given; expected an integer") from None
    if not -(2**63) <= whole < 2**63:
        raise ValueError(f"{what}: {whole} given; expected an integer of 64 bits")
    return whole


def norm_named(norm: Any) -> Any:
    """2 or infinity, as the core's enum."""
    if isinstance(norm, str) and norm in ("two", "inf"):
        return _core.Norm.two if norm == "two" else _core.Norm.inf
    if isinstance(norm, Real) and (norm == 2 or norm == math.inf):
        return _core.Norm.two if norm == 2 else _core.Norm.inf
    raise ValueError(f"norm: {norm!r} given; expected 2, math.inf, 'two' or 'inf'")


def retire_named(retire: Any, by_default: bool) -> tuple[str, Any]:
    """-> (word for the report, the core's enum)."""
    if retire is None:
        retire = by_default
    if isinstance(retire, str) and retire == "halve":
        return "halve", _core.Retire.halve
    if isinstance(retire, (bool, np.bool_)):
        return ("on", _core.Retire.on) if retire else ("off", _core.Retire.off)
    raise ValueError(f"retire: {retire!r} given; expected None, True, False or 'halve'")


def threads_named(threads: Any) -> int:
    """None is the default number of threads."""
    if threads is None:
        return _core.num_threads()
    count = integer(threads, "threads")
    if not 1 <= count < 2**31:
        raise ValueError(f"threads: {count} given; expected at least 1 and below 2^31, or None for the default")
    return count


def set_num_threads(threads: int) -> None:
    """Set the default number of threads of every solve and product; 0 goes back to the processors there are.

    Args:
        threads: 1 to 1024, or 0. Without a call it is the environment variable ``DEQCORE_NUM_THREADS``, or as many as
            the process may run on.

    Raises:
        TypeError, ValueError: not an integer, out of range.

    Example:
        >>> import deqcore
        >>> before = deqcore.num_threads()
        >>> deqcore.set_num_threads(1)
        >>> deqcore.num_threads()
        1
        >>> deqcore.set_num_threads(before)
    """
    count = integer(threads, "threads")
    if not 0 <= count <= 1024:
        raise ValueError(f"threads: {count} given; expected 1 to 1024, or 0 for the default")
    _core.set_num_threads(count)


def num_threads() -> int:
    """Return the default number of threads.

    Example:
        >>> import deqcore
        >>> deqcore.num_threads() >= 1
        True
    """
    return int(_core.num_threads())


def check_callback(callback: Any) -> None:
    """Refuse what cannot be called."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: {callback!r} given; expected a callable that takes a Progress, or None")


def stop_rule(*, rtol: Any, atol: Any, max_steps: Any, norm: Any, look_every: Any, retire: Any) -> Any:
    """The core's Stop; its ranges are checked when a solver is made from it."""
    stop = _core.Stop()
    if rtol is not None:
        stop.rtol = real(rtol, "rtol")
    stop.atol = real(atol, "atol")
    stop.max_steps = bounded(max_steps, "max_steps")
    stop.norm = norm_named(norm)
    if look_every is not None:
        stop.look_every = bounded(look_every, "look_every")
    stop.retire = retire
    return stop


def bounded(value: Any, what: str) -> int:
    """An integer of at least 1 that the core can count to."""
    count = integer(value, what)
    if not 1 <= count < 2**31:
        raise ValueError(f"{what}: {count} given; expected 1 to {2**31 - 1}")
    return count


def check_on_failure(on_failure: Any) -> None:
    """Refuse anything but the three policies."""
    if not isinstance(on_failure, str) or on_failure not in ("raise", "warn", "return"):
        raise ValueError(f"on_failure: {on_failure!r} given; expected 'raise', 'warn' or 'return'")
