# SPDX-License-Identifier: Apache-2.0
"""Options of a native solve, checked and converted once for all calls that give the same.

Such a call looks its options up, and hands its arrays to the core. That takes what can be used as it is; everything
else, wrong or only unusual, goes the long way, which has the words for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from . import _core
from ._arrays import numpy_door
from ._dialogue import Options, is_plain, options_of
from ._ladder import first_share
from ._linear import DEFAULT_RTOL
from ._methods import SHINE, Homotopy, Phantom
from ._options import bounded


class Prepared(NamedTuple):
    """A solve but for its arrays."""

    solver: str  # "fixed_point" or "adjoint"
    options: Options
    native: Any  # the options as the core takes them


class PreparedStep(NamedTuple):
    """A training step but for its arrays."""

    forward: Prepared
    backward: Prepared
    native: tuple[Any, Any]  # of both


def remembered(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """``prepare``, asked once for options of the same values and types.

    Raises a TypeError for what may change or is not worth its memory, and whatever ``prepare`` raises.
    """

    @lru_cache(maxsize=32, typed=True)  # typed: 1, 1.0 and True are equal, yet not the same
    def prepared(*given: Any) -> Any:
        if not is_plain(given):
            raise TypeError("not to be remembered")
        return prepare(*given)

    return prepared


def prepare_solve(dtype: Any, width: int, method: Any, rtol: Any, atol: Any, max_steps: Any, *others: Any) -> Prepared:
    """As :func:`deqcore.fixed_point` takes them: norm, look_every, retire, threads and on_failure are the others."""
    if method is None and max_steps is not None:
        max_steps = first_share(bounded(max_steps, "max_steps"))
    prepared = _prepared("fixed_point", dtype, width, method, rtol, atol, max_steps, *others)
    if prepared.native is None:
        raise TypeError("followed from Python")
    return prepared


def prepare_adjoint(dtype: Any, width: int, *given: Any) -> Prepared:
    """As :func:`deqcore.adjoint` takes them, in the same order."""
    prepared = _prepared("adjoint", dtype, width, *given)
    if isinstance(prepared.options.chosen, Phantom):
        raise TypeError("unrolled in Python")
    return prepared


def prepare_step(
    dtype: Any,
    width: int,
    method: Any,
    rtol: Any,
    max_steps: Any,
    adjoint_method: Any,
    adjoint_rtol: Any,
    adjoint_max_steps: Any,
    threads: Any,
    on_failure: Any,
) -> PreparedStep:
    """As :meth:`deqcore.maps.Dense.value_and_gradients` takes them."""
    others = 2, None, None, threads, on_failure
    forward = _prepared("fixed_point", dtype, width, method, rtol, 0.0, max_steps, *others)
    backward = _prepared("adjoint", dtype, width, adjoint_method, adjoint_rtol, 0.0, adjoint_max_steps, *others)
    chosen = backward.options.chosen
    if isinstance(forward.options.chosen, Homotopy):
        raise ValueError(
            f"method: {forward.options.chosen!r} given; value_and_gradients() follows no path: use fixed_point() and "
            f"adjoint()"
        )
    if isinstance(chosen, Phantom):
        raise ValueError(
            f"adjoint_method: {chosen!r} given; value_and_gradients() does not unroll: use Neumann(k, tau)"
        )
    if isinstance(chosen, SHINE):
        raise ValueError(
            f"adjoint_method: {chosen!r} given; expected a method that needs no handle: use fixed_point() and adjoint()"
        )
    return PreparedStep(forward, backward, (forward.native, backward.native))


def _prepared(
    solver: str,
    dtype: Any,
    width: int,
    method: Any,
    rtol: Any,
    atol: Any,
    max_steps: Any,
    norm: Any,
    look_every: Any,
    retire: Any,
    threads: Any,
    on_failure: Any,
) -> Prepared:
    forward = solver == "fixed_point"
    if rtol is None and not forward:
        rtol = DEFAULT_RTOL[dtype]
    look_every = numpy_door.look_every if look_every is None else look_every
    about = solver, "image" if forward else "scale", dtype, width, True, 0
    given = method, rtol, atol, max_steps, norm, look_every, retire, False, threads, on_failure
    options = options_of(about, *given)
    if isinstance(options.chosen, (SHINE, Homotopy)):  # not native as a whole
        return Prepared(solver, options, None)
    kind = _core.PreparedSolve if forward else _core.PreparedAdjoint
    return Prepared(solver, options, kind(options.native, options.stop, options.threads))
