# SPDX-License-Identifier: Apache-2.0
"""The implicit backward solve u = J(z)' u + g."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._dialogue import Report, check_args, check_row_args, check_state, converse, finish
from ._methods import Method, resolve_method
from ._options import check_on_failure, refuse_unknown, retire_named, stop_rule, threads_named
from ._solution import Callback, Solution
from .maps import Dense

__all__ = ["adjoint"]

_SOLVERS = {np.dtype(np.float32): _core.Adjoint32, np.dtype(np.float64): _core.Adjoint64}
_DEFAULT_RTOL = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


def adjoint(
    map_or_vjp: Callable[..., Any] | Dense,
    z: np.ndarray,
    g: np.ndarray,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    u0: np.ndarray | None = None,
    method: Method | str | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 200,
    norm: Any = 2,
    look_every: int | None = None,
    retire: bool | str | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    threads: int | None = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Solve u = J(z)' u + g, that is (I - J(z))' u = g, one system per row, with per-row statuses.

    With z = f(z, theta) and g = dL/dz, the gradient of the loss is dL/dtheta = (df/dtheta)' u: implicit differentiation
    (Bai, Kolter and Koltun 2019, eq. 3). A row has converged when \\|J' u + g - u\\| <= atol + rtol \\|g\\|. The gradient
    is only as good as z: solve forward at least as tightly.

    Args:
        map_or_vjp: ``vjp(z, v, *args, *row_args)`` returning J(z)' v, of the shape and dtype of v; or a native map.
        z: the fixed points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row.
        g: the gradients, of the shape and dtype of z.
        args, row_args, pass_rows: as for :func:`fixed_point`; z itself is gathered like a row argument.
        u0: starting points, of the shape and dtype of z; None starts at g.
        method: :class:`Anderson` (the default), :class:`Picard` (the Neumann series), or a name.
        rtol: relative to \\|g\\|; None is 1e-5 for float32 and 1e-10 for float64.
        atol, max_steps, norm, look_every, retire, trace, callback, threads, on_failure: as for :func:`fixed_point`.

    Returns:
        A :class:`Solution`: ``value`` is u, ``scale`` is \\|g\\|, ``nfe`` counts products with J'.

    Raises:
        ConvergenceError, TypeError, ValueError: as for :func:`fixed_point`.

    Example:
        >>> import numpy as np, deqcore
        >>> A = np.array([[0.5, 0.2], [0.0, 0.3]])          # f(z) = A z + x, so J = A
        >>> g = np.array([[1.0, 2.0]])
        >>> u = deqcore.adjoint(lambda z, v: v @ A, np.zeros((1, 2)), g).value
        >>> bool(np.allclose(u, np.linalg.solve((np.eye(2) - A).T, g[0])))
        True
    """
    if unknown:
        refuse_unknown("adjoint", unknown, _OPTIONS)
    check_on_failure(on_failure)
    state = check_state(z, "z")
    right = check_state(g, "g", like=state)
    start = right if u0 is None else check_state(u0, "u0", like=state)
    check_args(args)
    if not callable(map_or_vjp):
        raise TypeError(f"map_or_vjp: {map_or_vjp!r} given; expected vjp(z, v, ...) or a map from deqcore.maps")
    native = isinstance(map_or_vjp, Dense)
    word, retire_as = retire_named(retire, native or bool(row_args) or pass_rows)
    method_name, method_options = resolve_method(method)
    if rtol is None:
        rtol = _DEFAULT_RTOL[state.dtype]
    stop = stop_rule(rtol=rtol, atol=atol, max_steps=max_steps, norm=norm, look_every=look_every, retire=retire_as)
    thread_count = threads_named(threads)
    report = Report(state.rows, stop.max_steps if trace else 0)
    value = state.door.empty(state.shape, state.dtype)
    result = value.reshape(state.block.shape)
    copies = 0

    if isinstance(map_or_vjp, Dense) and callback is None:
        injection = map_or_vjp._injection(args, row_args, pass_rows, state)
        counts = map_or_vjp._native.solve_adjoint(
            state.block, injection, right.block, start.block, result, report.native, method_options, stop, thread_count
        )
        size = map_or_vjp._native.solve_adjoint_bytes(thread_count, method_options, stop, state.rows)
    else:
        if isinstance(map_or_vjp, Dense):
            row_args = (np.broadcast_to(map_or_vjp._injection(args, row_args, pass_rows, state), state.block.shape),)
            row_args = (row_args[0].reshape(state.shape),)
            vjp: Callable[..., Any] = map_or_vjp.vjp
        else:
            vjp = map_or_vjp
        row_data = check_row_args(row_args, state)
        solver_class = _SOLVERS[state.dtype]
        size = solver_class.scratch_bytes(state.rows, state.width, method_options, stop)
        scratch = state.door.scratch(size)
        solver = solver_class(state.rows, state.width, list(state.shape), method_options, stop, thread_count, scratch)
        solver.start(state.block, right.block, start.block, result, report.native)

        def bind(count: int, rows: np.ndarray) -> Callable[[np.ndarray], Any]:
            points = state.door.view(scratch, solver.points_offset, state.question_shape(count), state.dtype)
            own = row_data if count == state.rows else tuple(state.door.take(data, rows) for data in row_data)
            if pass_rows:
                return lambda v: vjp(points, v, *args, *own, rows=rows)
            return lambda v: vjp(points, v, *args, *own)

        copies = converse(solver, scratch, state, bind, "vjp", callback, stop.look_every)
        counts = solver.counts
    return finish(
        "adjoint",
        on_failure,
        value=value,
        report=report,
        counts=counts,
        rtol=rtol,
        stop=stop,
        relative_to="scale",
        retire=word,
        method=method_name,
        copies=copies,
        scratch_bytes=size,
    )


_OPTIONS = [name for name, p in inspect.signature(adjoint).parameters.items() if p.kind is p.KEYWORD_ONLY]
