# SPDX-License-Identifier: Apache-2.0
"""The implicit backward solve u = J(z)' u + g."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np

from ._arrays import Array, door_for
from ._dialogue import Setup, check_args, check_row_args, check_state, converse, gathered
from ._methods import Method
from ._options import check_callback, flag, refuse_unknown
from ._solution import Callback, Solution
from .maps import Dense

__all__ = ["adjoint"]

_DEFAULT_RTOL = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


def adjoint(
    map_or_vjp: Callable[..., Any] | Dense,
    z: Array,
    g: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    u0: Array | None = None,
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
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Solve u = J(z)' u + g, that is (I - J(z))' u = g, one system per row, with per-row statuses.

    With z = f(z, theta) and g = dL/dz, the gradient of the loss is dL/dtheta = (df/dtheta)' u: implicit
    differentiation (Bai, Kolter and Koltun 2019). A row has converged when \\|J' u + g - u\\| <= atol + rtol \\|g\\|,
    or <= 4 eps \\|g\\|.
    The gradient is only as good as z: solve forward at least as tightly. A row with g = 0 is held against
    max(\\|u0\\|, \\|J' u0\\|) instead, and ends at once from u0 = 0.

    Args:
        map_or_vjp: ``vjp(z, v, *args, *row_args)`` returning J(z)' v, of the shape and dtype of v; or a native map.
        z: the fixed points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row.
        g: the gradients, of the shape and dtype of z.
        args, row_args, pass_rows: as for :func:`fixed_point`; z itself is gathered like a row argument.
        u0: starting points, of the shape and dtype of z; None starts at g.
        method: :class:`Anderson` (the default), :class:`Picard` (the Neumann series), or a name.
        rtol: relative to \\|g\\|; None is 1e-5 for float32 and 1e-10 for float64.
        atol, max_steps, norm, look_every, retire, trace, callback, threads, stream, on_failure: as for
            :func:`fixed_point`.

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
    if not callable(map_or_vjp):
        raise TypeError(f"map_or_vjp: {map_or_vjp!r} given; expected vjp(z, v, ...) or a map from deqcore.maps")
    door = door_for(z, "z", stream)
    with door.on_stream():
        state = check_state(z, "z", door=door)
        right = check_state(g, "g", like=state)
        start = right if u0 is None else check_state(u0, "u0", like=state)
        check_args(args, row_args)
        check_callback(callback)
        pass_rows = flag(pass_rows, "pass_rows")
        setup = Setup(
            "adjoint",
            state,
            retire_by_default=isinstance(map_or_vjp, Dense) or bool(row_args) or pass_rows,
            relative_to="scale",
            method=method,
            rtol=_DEFAULT_RTOL[state.dtype] if rtol is None else rtol,
            atol=atol,
            max_steps=max_steps,
            norm=norm,
            look_every=look_every,
            retire=retire,
            trace=trace,
            threads=threads,
            on_failure=on_failure,
        )
        if isinstance(map_or_vjp, Dense):
            injection = map_or_vjp._injection(args, row_args, pass_rows, state)
            if callback is None:
                return setup.finish(*map_or_vjp._solve_adjoint(setup, injection, right.block, start.block))
            row_args = (map_or_vjp._per_row(injection, state),)
        row_data = check_row_args(row_args, state)
        vjp: Callable[..., Any] = map_or_vjp
        if isinstance(map_or_vjp, Dense):
            vjp = partial(map_or_vjp._product_of, threads=setup.threads)

        solver, scratch = setup.dialogue()

        def bind(count: int, rows: Any) -> Callable[[Any], Any]:
            points = door.outward(door.view(scratch, solver.points_offset, state.question_shape(count), state.dtype))
            own = gathered(row_data, count, rows, state)
            if pass_rows:
                return lambda v: vjp(points, v, *args, *own, rows=door.outward(rows))
            return lambda v: vjp(points, v, *args, *own)

        operands = map(door.operand, (state.block, right.block, start.block, setup.result))
        solver.start(*operands, setup.report.native)
        copies = converse(solver, scratch, state, bind, "vjp", callback, setup.stop.look_every)
        return setup.finish(solver.counts, scratch.nbytes, copies, solver.failed)


_OPTIONS = [name for name, p in inspect.signature(adjoint).parameters.items() if p.kind is p.KEYWORD_ONLY]
