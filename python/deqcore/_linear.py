# SPDX-License-Identifier: Apache-2.0
"""Linear systems A x = b from products, one per row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ._arrays import Array, door_for
from ._dialogue import Setup, check_args, check_row_args, check_state, converse, gathered
from ._methods import Method
from ._options import check_callback, flag, keyword_options, refuse_unknown
from ._solution import Callback, Solution

__all__ = ["linear_solve"]

#: rtol of backward and linear solves where none is given.
DEFAULT_RTOL = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


def linear_solve(
    matvec: Callable[..., Any],
    b: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    x0: Array | None = None,
    preconditioner: Callable[..., Any] | None = None,
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
    """Solve A x = b, one system per row, from products with A, each row with its own stop and status.

    A row has converged when \\|b - A x\\| <= atol + rtol \\|b\\|, or <= 4 eps \\|b\\|, measured by a product of its own
    with the x that is returned, and only where eps \\|A\\| \\|x\\| is small enough for that to be known: beyond it a
    row ends as ``stalled``. A small residual is not a small error where A is nearly singular.

    Args:
        matvec: the product ``matvec(v, *args, *row_args)`` with v of shape ``(active, ...)``; returns an array of the
            same shape and dtype. v is a view that is valid until the next call and must not be written.
        b: right sides, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row. Never written.
        args, row_args, pass_rows: as for :func:`fixed_point`.
        x0: starting points, of the shape and dtype of b; None starts from zero, whose residual is known. With one, two
            products come first: one shows how long A makes a vector, one measures x0.
        preconditioner: an approximation of the inverse, called like matvec before every product but the first, also
            where x is measured, which makes no use of it; None is the identity. Not with :class:`Direct`.
        method: :class:`GMRES` (the default), :class:`BiCGSTAB`, :class:`Direct`, or a name.
        rtol: relative to \\|b\\|; None is 1e-5 for float32 and 1e-10 for float64.
        atol, norm, look_every, retire, trace, callback, threads, stream, on_failure: as for :func:`fixed_point`.
        max_steps: most products per row.

    Returns:
        A :class:`Solution`: ``value`` is x, ``residual`` is \\|b - A x\\|, ``scale`` is \\|b\\|, ``nfe`` counts
        products with A.

    Raises:
        ConvergenceError, TypeError, ValueError: as for :func:`fixed_point`.

    Sources: Saad and Schultz 1986, SIAM J. Sci. Stat. Comput. 7; van der Vorst 1992, SIAM J. Sci. Stat. Comput. 13.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> A = np.eye(30) + 0.1 * rng.standard_normal((30, 30))
        >>> b = rng.standard_normal((4, 30))
        >>> x = deqcore.linear_solve(lambda v: v @ A.T, b).value
        >>> bool(np.allclose(x, np.linalg.solve(A, b.T).T))
        True
    """
    if unknown:
        refuse_unknown("linear_solve", unknown, _OPTIONS)
    for what, given in (("matvec", matvec), ("preconditioner", preconditioner)):
        if not callable(given) and (what == "matvec" or given is not None):
            raise TypeError(f"{what}: {given!r} given; expected a callable that takes v")
    door = door_for(b, "b", stream)
    with door.on_stream():
        state = check_state(b, "b", door=door)
        start = None if x0 is None else check_state(x0, "x0", like=state).block
        check_args(args, row_args)
        check_callback(callback)
        pass_rows = flag(pass_rows, "pass_rows")
        setup = Setup(
            "linear_solve",
            state,
            retire_by_default=bool(row_args) or pass_rows,
            relative_to="scale",
            method=method,
            rtol=DEFAULT_RTOL[state.dtype] if rtol is None else rtol,
            atol=atol,
            max_steps=max_steps,
            norm=norm,
            look_every=look_every,
            retire=retire,
            trace=trace,
            threads=threads,
            on_failure=on_failure,
            products_before=0 if start is None else 2,
        )
        row_data = check_row_args(row_args, state)

        def binding(call: Callable[..., Any]) -> Callable[[int, Any], Callable[[Any], Any]]:
            def bind(count: int, rows: Any) -> Callable[[Any], Any]:
                own = gathered(row_data, count, rows, state)
                if pass_rows:
                    return lambda v: call(v, *args, *own, rows=door.outward(rows))
                return lambda v: call(v, *args, *own)

            return bind

        solver, scratch = setup.dialogue(preconditioner is not None)
        operands = map(door.operand, (state.block, start, setup.result))
        solver.start(*operands, setup.report.native)
        copies = converse(
            solver,
            scratch,
            state,
            binding(matvec),
            "matvec",
            callback,
            setup.stop.look_every,
            binding(preconditioner) if preconditioner is not None else None,
        )
        return setup.finish(solver.counts, scratch.nbytes, copies, solver.failed)


_OPTIONS = keyword_options(linear_solve)
