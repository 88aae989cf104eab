# SPDX-License-Identifier: Apache-2.0
"""Roots F(z) = 0, one per row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._arrays import Array, door_for, to_host
from ._dialogue import Setup, State, check_args, check_row_args, check_scale, check_state, converse, gathered
from ._ladder import climb, default_ladder, fitting, is_ladder, placed, rungs_of
from ._methods import Method, NewtonMethod, resolve_method
from ._newton import check_jvp, solve_newton
from ._options import bounded, check_callback, check_on_failure, flag, keyword_options, norm_named, refuse_unknown
from ._solution import Callback, Solution

__all__ = ["root"]


def root(
    F: Callable[..., Any],
    z0: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    method: Any = None,
    jvp: Callable[..., Any] | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int | None = None,
    norm: Any = 2,
    scale: Any = None,
    look_every: int | None = None,
    retire: bool | str | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    threads: int | None = None,
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Find z with F(z) = 0, one root per row, each row with its own stop and status.

    A row has converged when \\|F(z)\\| <= atol + rtol S0, or <= 4 eps S0, where S0 is \\|F(z0)\\| or ``scale``: a start
    far away makes rtol mean little, so give ``atol`` or ``scale`` where you know them. Newton's methods work on F
    itself; the others on the fixed point of z - F(z), whose residual they know to eps \\|z\\|: rows that cannot be
    measured as finely as the tolerance asks end as ``stalled``.

    Args:
        F: called ``F(z, *args, *row_args)`` with z of shape ``(active, ...)``, a view that is valid until the next call
            and must not be written; returns an array of the same shape and dtype.
        z0: starting points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row. Never written.
        args, row_args, pass_rows: as for :func:`fixed_point`.
        method: :class:`NewtonKrylov`, :class:`Newton`, a fixed-point method, a name, or a ladder of them. None is
            :class:`Newton` on rows of width up to 64, then :class:`NewtonKrylov`, and at last Newton without descent.
        jvp: products F'(z) v, called ``jvp(z, v, *args, *row_args)``; None is differences of F.
        rtol: relative to S0, at least 4 eps; None is sqrt(eps) of the dtype.
        atol: absolute tolerance in the units of the norm, at least 0.
        max_steps: most evaluations and products per row; None as for :func:`fixed_point`.
        norm, look_every, retire, trace, callback, threads, stream, on_failure: as for :func:`fixed_point`.
        scale: S0 in place of \\|F(z0)\\|: a number, or one per row.

    Returns:
        A :class:`Solution`; ``value`` has the shape and dtype of z0, ``residual`` is \\|F(value)\\|.

    Raises:
        ConvergenceError: a row did not converge and ``on_failure`` is ``"raise"``; it carries the whole solution.
        TypeError, ValueError: as for :func:`fixed_point`.
        Exception: whatever F raises, unchanged.

    Sources: Eisenstat and Walker 1996, SIAM J. Sci. Comput. 17; Powell 1970; More 1978.

    Example:
        >>> import numpy as np, deqcore
        >>> def F(z):
        ...     x, y = z.T
        ...     return np.stack([10 * (y - x**2), 1 - x], axis=1)
        >>> deqcore.root(F, np.array([[-1.2, 1.0]]), method="newton").value.round(6).tolist()
        [[1.0, 1.0]]
    """
    if unknown:
        refuse_unknown("root", unknown, _OPTIONS)
    if not callable(F):
        raise TypeError(f"F: {F!r} given; expected a callable")
    door = door_for(z0, "z0", stream)
    with door.on_stream():
        state = check_state(z0, "z0", door=door)
        check_args(args, row_args)
        check_callback(callback)
        check_jvp(jvp, F, method)
        check_on_failure(on_failure)
        pass_rows = flag(pass_rows, "pass_rows")
        row_data = check_row_args(row_args, state)
        options: dict[str, Any] = {"rtol": rtol, "atol": atol, "norm": norm, "look_every": look_every}
        options |= {"retire": retire, "trace": trace, "threads": threads}
        apart = bool(row_args) or pass_rows
        rungs = default_ladder("root") if method is None else rungs_of(method, "root") if is_ladder(method) else None
        scales = check_scale(scale, state.rows)
        call = F
        if scales is None:
            _check(state, rungs or [resolve_method(method, "root")], max_steps, options)
            scales, call = _scales_of(F, args, row_data, pass_rows, state, norm)
        if rungs is None:
            return _solve(
                call, jvp, state, args, row_data, pass_rows, scales, method, max_steps, callback, on_failure, options
            )

        def rung_of(start: Any, rows: Any, own: tuple[Any, ...], rung: Method, share: int, known: Any) -> Solution:
            part = check_state(start, "z0", door=door)
            of, product = call, jvp
            if pass_rows and rows is not None:
                of, product = placed(call, rows, door), jvp and placed(jvp, rows, door)
            mine = scales if known is None else known
            return _solve(of, product, part, args, own, pass_rows, mine, rung, share, callback, "return", options)

        apart = apart or retire not in (None, False)
        steps = None if max_steps is None else bounded(max_steps, "max_steps")
        return climb(rung_of, rungs, state, row_data, apart, steps, on_failure, "root", lambda t: t, 4)


_OPTIONS = keyword_options(root)


def _check(state: State, rungs: list[Method], max_steps: Any, options: dict[str, Any]) -> None:
    """Refuse bad options before F is asked."""
    if max_steps is not None:
        bounded(max_steps, "max_steps")
    alone = len(rungs) == 1
    for rung in rungs if alone else fitting(rungs, state.width):
        setup = _setup(state, rung, max_steps if alone else None, False, "return", options | {"trace": False})
        core: Any = setup.options.native
        if isinstance(rung, NewtonMethod):
            _core.NewtonSolve64.scratch_bytes(1, state.width, core, setup.stop, True, True)
        else:
            _core.FixedPoint64.scratch_bytes(1, state.width, core, setup.stop)


def _setup(state: State, method: Any, max_steps: Any, apart: bool, on_failure: str, options: dict[str, Any]) -> Setup:
    return Setup(
        "root",
        state,
        retire_by_default=apart,
        relative_to="scale",
        method=method,
        max_steps=max_steps,
        on_failure=on_failure,
        **options,
    )


def _scales_of(
    F: Callable[..., Any], args: tuple[Any, ...], row_data: tuple[Any, ...], pass_rows: bool, state: State, norm: Any
) -> tuple[np.ndarray, Callable[..., Any]]:
    """|F(z0)| by row, and an F that need not evaluate it again."""
    door = state.door
    named = {"rows": door.outward(door.xp.arange(state.rows, dtype=np.int32))} if pass_rows else {}
    start = door.outward(door.read_only(state.block.reshape(state.shape)))
    first = door.accept(F(start, *args, *row_data, **named), state.shape, state.dtype, "F")
    size = abs(to_host(first.reshape(state.block.shape)).astype(np.float64))
    unit = size.max(axis=1)
    scales = unit.copy()
    if norm_named(norm) is not _core.Norm.inf:
        with np.errstate(invalid="ignore"):  # squares may leave the range of float64, quotients do not
            scales *= np.linalg.norm(size / np.where(unit > 0, unit, 1.0)[:, None], axis=1)
    known = [door.outward(first)]

    def call(*data: Any, **named: Any) -> Any:
        return known.pop() if known else F(*data, **named)

    return np.where(np.isfinite(scales) & (scales > 0), scales, 1.0), call


def _solve(
    F: Callable[..., Any],
    jvp: Callable[..., Any] | None,
    state: State,
    args: tuple[Any, ...],
    row_data: tuple[Any, ...],
    pass_rows: bool,
    scales: np.ndarray,
    method: Any,
    max_steps: Any,
    callback: Callback | None,
    on_failure: str,
    options: dict[str, Any],
) -> Solution:
    """By one method."""
    setup = _setup(state, resolve_method(method, "root"), max_steps, bool(row_data) or pass_rows, on_failure, options)
    setup.frames = 5
    if isinstance(setup.chosen, NewtonMethod):
        ended = solve_newton(setup, state.block, F, jvp, args, row_data, pass_rows, scales, callback, root=True)
        return setup.finish(*ended)
    door = state.door

    def bind(count: int, rows: Any) -> Callable[[Any], Any]:
        own = gathered(row_data, count, rows, state)
        named = {"rows": door.outward(rows)} if pass_rows else {}
        shape = state.question_shape(count)

        def image(z: Any) -> Any:
            answer = door.accept(F(z, *args, *own, **named), shape, state.dtype, "F")
            return door.outward(door.inward(z) - answer)

        return image

    solver, scratch = setup.dialogue()
    operands = map(door.operand, (state.block, setup.result))
    own_scales = door.scales(scales)  # a name: a device still reads it
    solver.start(*operands, setup.report.native, door.operand(own_scales))
    copies = converse(solver, scratch, state, bind, "F", callback, setup.stop.look_every)
    return setup.finish(solver.counts, scratch.nbytes, copies, solver.failed)
