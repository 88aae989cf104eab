# SPDX-License-Identifier: Apache-2.0
"""Derivatives through a fixed point: (I - J)' u = g backward, (I - J) t = dz forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np

from ._arrays import Array, door_for
from ._dialogue import Setup, State, check_args, check_row_args, check_state, check_success, converse, gathered
from ._linear import DEFAULT_RTOL
from ._methods import GMRES, SHINE, Approximate, Direct, Method, Phantom
from ._options import check_callback, flag, keyword_options, real, refuse_unknown
from ._shine import apply_inverse
from ._solution import Callback, Solution, Status
from ._warm import Warm, check_ids, check_keep, check_warm, kept, starting_points
from .maps import Dense, Monotone

__all__ = ["adjoint", "tangent"]


def adjoint(
    map_or_vjp: Callable[..., Any] | Dense,
    z: Array,
    g: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    f: Callable[..., Any] | None = None,
    u0: Array | None = None,
    warm: Warm | None = None,
    ids: Any = None,
    keep: str | None = None,
    method: Method | str | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 200,
    norm: Any = 2,
    look_every: int | None = None,
    retire: bool | str | None = None,
    estimate_error: bool = False,
    max_error: float | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    threads: int | None = None,
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Solve (I - J(z))' u = g, one system per row, with per-row statuses.

    With z = f(z, theta) and g = dL/dz, the gradient of the loss is dL/dtheta = (df/dtheta)' u: implicit
    differentiation (Bai, Kolter and Koltun 2019). A row has converged when \\|J' u + g - u\\| <= atol + rtol \\|g\\|,
    or <= 4 eps \\|g\\|, measured with the u that is returned.
    The gradient is only as good as z: solve forward at least as tightly. A small residual is not a small error where
    I - J is nearly singular: ``estimate_error`` looks.

    Args:
        map_or_vjp: ``vjp(z, v, *args, *row_args)`` returning J(z)' v, of the shape and dtype of v; or a native map.
        z: the fixed points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row.
        g: the gradients, of the shape and dtype of z.
        args, row_args, pass_rows: as for :func:`fixed_point`; z itself is gathered like a row argument.
        f: the map itself, for :class:`Phantom`, which unrolls it; a native map needs none.
        u0: starting points, of the shape and dtype of z; None starts from zero, or a fixed-point method from g.
        warm, ids, keep: start from an earlier solve's :class:`Warm`, rows matched by position or by ``ids``, one
            integer per row; ``keep="state"`` returns a new one as ``Solution.warm``.
        method: :class:`GMRES` (the default), :class:`BiCGSTAB` or :class:`Direct`; on u = J' u + g :class:`Anderson`,
            :class:`AndersonTypeI`, :class:`Broyden` or :class:`Picard` (the Neumann series to a tolerance); approximate
            by name :class:`JacobianFree`, :class:`Neumann`, :class:`Phantom` or :class:`SHINE`; or a
            name.
        rtol: relative to \\|g\\|; None is 1e-5 for float32 and 1e-10 for float64.
        max_steps: most products per row.
        estimate_error: estimate the relative error of u by a second solve, (I - J)' d = g + J' u - u, as
            ``Solution.error`` = \\|d\\| / \\|u\\|, or what the rounding of products explains if that is more; infinite
            where that solve fails, or where a third one, for a random right side, shows that a residual of this size
            could hide an error of the size of u. Approximate methods get their residual, too.
        max_error: rows whose estimated error is not below it end as ``ill_conditioned``; implies estimate_error.
        atol, norm, look_every, retire, trace, callback, threads, stream, on_failure: as for :func:`fixed_point`. The
            callback hears of the first solve only, and nothing of JacobianFree, Phantom and SHINE.

    Returns:
        A :class:`Solution`: ``value`` is u, ``scale`` is \\|g\\|, ``nfe`` counts products with J'.

    Raises:
        ConvergenceError, TypeError, ValueError: as for :func:`fixed_point`.

    Example:
        >>> import numpy as np, deqcore
        >>> A = np.array([[0.5, 0.2], [0.0, 0.3]])          # f(z) = A z + x, so J = A
        >>> g = np.array([[1.0, 2.0]])
        >>> solution = deqcore.adjoint(lambda z, v: v @ A, np.zeros((1, 2)), g, max_error=1e-6)
        >>> bool(np.allclose(solution.value, np.linalg.solve((np.eye(2) - A).T, g[0]))), bool(solution.error[0] < 1e-6)
        (True, True)
    """
    if unknown:
        refuse_unknown("adjoint", unknown, _ADJOINT_OPTIONS)
    if (
        isinstance(map_or_vjp, Dense)
        and type(args) is tuple
        and not args
        and (pass_rows is False and trace is False and estimate_error is False)
        and (f is None and u0 is None and max_error is None and callback is None and stream is None)
        and (warm is None and ids is None and keep is None)
    ):
        how = method, rtol, atol, max_steps, norm, look_every, retire, threads, on_failure
        solution = map_or_vjp._solve_adjoint_prepared(z, g, row_args, how)
        if solution is not None:
            return check_success(solution, on_failure, 3)
    return _linearised(
        "adjoint",
        _ADJOINT_NAMES,
        map_or_vjp,
        z,
        g,
        u0,
        f=f,
        args=args,
        row_args=row_args,
        pass_rows=pass_rows,
        warm=warm,
        ids=ids,
        keep=keep,
        estimate_error=estimate_error,
        max_error=max_error,
        callback=callback,
        stream=stream,
        method=method,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        norm=norm,
        look_every=look_every,
        retire=retire,
        trace=trace,
        threads=threads,
        on_failure=on_failure,
    )


def tangent(
    map_or_jvp: Callable[..., Any] | Dense,
    z: Array,
    dz: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    t0: Array | None = None,
    warm: Warm | None = None,
    ids: Any = None,
    keep: str | None = None,
    method: Method | str | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 200,
    norm: Any = 2,
    look_every: int | None = None,
    retire: bool | str | None = None,
    estimate_error: bool = False,
    max_error: float | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    threads: int | None = None,
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Solve (I - J(z)) t = dz, one system per row: the forward mode of implicit differentiation.

    With z = f(z, theta) and dz = (df/dtheta) dtheta, the change of f at fixed z, t is the change of the fixed point
    itself (the implicit function theorem). Everything else is as in :func:`adjoint`.

    Args:
        map_or_jvp: ``jvp(z, v, *args, *row_args)`` returning J(z) v, of the shape and dtype of v; or a native map.
        z: the fixed points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row.
        dz: the changes of f, of the shape and dtype of z.
        t0: starting points, of the shape and dtype of z; None starts from zero.
        method: as for :func:`adjoint`, but none that is approximate by name.
        args, row_args, pass_rows, warm, ids, keep, rtol, atol, max_steps, norm, look_every, retire, estimate_error,
            max_error, trace, callback, threads, stream, on_failure: as for :func:`adjoint`.

    Returns:
        A :class:`Solution`: ``value`` is t, ``scale`` is \\|dz\\|, ``nfe`` counts products with J.

    Raises:
        ConvergenceError, TypeError, ValueError: as for :func:`fixed_point`.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> layer = deqcore.maps.Dense(rng.standard_normal((8, 8)) * 0.1)
        >>> x, dx = rng.standard_normal((2, 3, 8))
        >>> solve = lambda x: deqcore.fixed_point(layer, np.zeros((3, 8)), row_args=(x,), rtol=1e-14).value
        >>> z = solve(x)
        >>> t = deqcore.tangent(layer, z, (1 - z * z) * dx, row_args=(x,)).value
        >>> bool(np.allclose(t, (solve(x + 1e-6 * dx) - solve(x - 1e-6 * dx)) / 2e-6, atol=1e-8))
        True
    """
    if unknown:
        refuse_unknown("tangent", unknown, _TANGENT_OPTIONS)
    return _linearised(
        "tangent",
        _TANGENT_NAMES,
        map_or_jvp,
        z,
        dz,
        t0,
        args=args,
        row_args=row_args,
        pass_rows=pass_rows,
        warm=warm,
        ids=ids,
        keep=keep,
        estimate_error=estimate_error,
        max_error=max_error,
        callback=callback,
        stream=stream,
        method=method,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        norm=norm,
        look_every=look_every,
        retire=retire,
        trace=trace,
        threads=threads,
        on_failure=on_failure,
    )


_ADJOINT_OPTIONS, _TANGENT_OPTIONS = keyword_options(adjoint), keyword_options(tangent)


@dataclass(frozen=True)
class _Names:
    """What a function calls its arguments, for errors."""

    map: str
    expected: str
    product: str  # and the map's method for it
    right: str
    start: str


_ADJOINT_NAMES = _Names("map_or_vjp", "vjp(z, v, ...)", "vjp", "g", "u0")
_TANGENT_NAMES = _Names("map_or_jvp", "jvp(z, v, ...)", "jvp", "dz", "t0")


@dataclass
class _Ended:
    """What a solve left behind beside its report."""

    questions: int = 0
    rows_asked: int = 0
    scratch_bytes: int = 0
    copies: int = 0
    failed: int | None = None
    products: int = 0  # of Newton's methods


def _linearised(
    name: str,
    names: _Names,
    product: Any,
    z: Any,
    right: Any,
    start: Any,
    *,
    args: Any,
    row_args: Any,
    pass_rows: Any,
    warm: Any,
    ids: Any,
    keep: Any,
    estimate_error: Any,
    max_error: Any,
    callback: Any,
    stream: Any,
    f: Any = None,
    **options: Any,
) -> Solution:
    """Both functions: check, solve, estimate the error, finish."""
    if isinstance(product, Monotone):
        product = getattr(product, names.product)
    if not callable(product):
        raise TypeError(f"{names.map}: {product!r} given; expected {names.expected} or a map from deqcore.maps")
    if f is not None and not callable(f):
        raise TypeError(f"f: {f!r} given; expected the map as a callable, or None")
    door = door_for(z, "z", stream)
    with door.on_stream():
        state = check_state(z, "z", door=door)
        b = check_state(right, names.right, like=state).block
        first = None if start is None else check_state(start, names.start, like=state).block
        keys = check_ids(ids, state.rows)
        check_warm(warm, keys, state)
        keeping = check_keep(keep)
        if warm is not None and warm.history is not None:
            raise ValueError(
                f"warm: {warm!r} of a forward solve given; expected one of {name}()"
                f"{'; shine_start(handle, g) makes u0 of it' if name == 'adjoint' else ''}"
            )
        if first is not None and warm is not None:
            raise ValueError(f"{names.start}, warm: both given; expected one of them")
        if warm is not None:
            first = starting_points(warm, keys, state)
        check_args(args, row_args)
        check_callback(callback)
        most = None if max_error is None else real(max_error, "max_error")
        if most is not None and not most > 0:
            raise ValueError(f"max_error: {most} given; expected a number > 0")
        estimate_error = flag(estimate_error, "estimate_error") or most is not None
        pass_rows = flag(pass_rows, "pass_rows")
        native = isinstance(product, Dense)
        rtol = options.pop("rtol")
        setup = Setup(
            name,
            state,
            retire_by_default=native or bool(row_args) or pass_rows,
            relative_to="scale",
            rtol=DEFAULT_RTOL[state.dtype] if rtol is None else rtol,
            products_before=0 if first is None else 1,
            **options,
        )
        setup.frames = 5
        if isinstance(setup.chosen, Approximate):
            for what, given in ((names.start, start), ("warm", warm)):
                if given is not None:
                    raise ValueError(f"{what}: given with {setup.chosen!r}; expected None: it makes no use of it")
        system = _System(names, product, args, row_args, pass_rows, state, setup.threads)
        if isinstance(setup.chosen, Phantom):
            ended = _unroll(setup, system, setup.chosen, f, b)
        elif f is not None:
            raise ValueError(f"f: given with method {setup.chosen!r}; expected None: only Phantom() unrolls the map")
        elif isinstance(setup.chosen, SHINE):
            apply_inverse(setup.chosen, keys, state, b, setup.result, setup.report.rejected, setup.threads)
            _report_unmeasured(setup, b, steps=0)
            ended = _Ended()
        else:
            ended = system.solve(setup, b, first, callback)
        error = None
        if estimate_error and callback is not None and bool((setup.report.status == Status.cancelled).any()):
            error = door.xp.full(state.rows, np.nan)  # what was stopped is not solved further
        elif estimate_error:
            error = _estimate(setup, system, b, ended)
            if most is not None:
                xp, status = door.xp, setup.report.status
                setup.report.status = xp.where((status >= 0) & ~(error < most), int(Status.ill_conditioned), status)
                setup.report.status = setup.report.status.astype(np.int8)
                ended.failed = None
        handle = kept(setup.value, warm, keys, state) if keeping else None
        return setup.finish(ended, ended.scratch_bytes, ended.copies, ended.failed, error, handle)


class _System:
    """Products with J or J' at the rows of a state, and solves with I minus them."""

    def __init__(
        self, names: _Names, product: Any, args: Any, row_args: Any, pass_rows: bool, state: State, threads: int
    ) -> None:
        self.names, self.args, self.pass_rows, self.state = names, args, pass_rows, state
        self.native = product if isinstance(product, Dense) else None
        self.call = product
        if self.native is not None:
            self.injection = self.native._injection(args, row_args, pass_rows, state)
            self.call = partial(self.native._product_of, product=names.product, threads=threads)
        else:
            self.given = check_row_args(row_args, state)

    @cached_property
    def row_data(self) -> tuple[Any, ...]:
        """What goes to the product row by row; a native solve needs none of it."""
        return self.given if self.native is None else (self.native._per_row(self.injection, self.state),)

    def solve(self, setup: Setup, b: Any, start: Any, callback: Any) -> _Ended:
        """Solve for the right side ``b``, into the setup's result."""
        if self.native is not None and callback is None:
            counts, scratch_bytes = self.native._solve_linearised(setup, self.injection, b, start)
            return _Ended(counts.questions, counts.rows_asked, scratch_bytes)
        state, door, call, args = self.state, self.state.door, self.call, self.args
        solver, scratch = setup.dialogue()

        def bind(count: int, rows: Any) -> Callable[[Any], Any]:
            points = door.outward(door.view(scratch, solver.points_offset, state.question_shape(count), state.dtype))
            own = gathered(self.row_data, count, rows, state)
            if self.pass_rows:
                return lambda v: call(points, v, *args, *own, rows=door.outward(rows))
            return lambda v: call(points, v, *args, *own)

        operands = map(door.operand, (state.block, b, start, setup.result))
        solver.start(*operands, setup.report.native)
        if not solver.count:  # a method without products
            copies = 0
        else:
            copies = converse(solver, scratch, state, bind, self.names.product, callback, setup.stop.look_every)
        return _Ended(solver.counts.questions, solver.counts.rows_asked, scratch.nbytes, copies, solver.failed)

    def product(self, points: Any, v: Any) -> Any:
        """J v or J' v at ``points`` for every row; blocks."""
        return self._ask(self.call, self.names.product, points, v)

    def value(self, f: Any, points: Any) -> Any:
        """The map itself at ``points``."""
        return self._ask(f, "f", points)

    def _ask(self, call: Any, what: str, *blocks: Any) -> Any:
        state, door = self.state, self.state.door
        arrays = [door.outward(door.read_only(block.reshape(state.shape))) for block in blocks]
        rows = {"rows": door.outward(door.xp.arange(state.rows, dtype=np.int32))} if self.pass_rows else {}
        answer = call(*arrays, *self.args, *self.row_data, **rows)
        return door.accept(answer, state.shape, state.dtype, what).reshape(state.block.shape)


def _estimate(setup: Setup, system: _System, b: Any, ended: _Ended) -> Any:
    """The relative error of the setup's result; adds to what was counted.

    Two solves: one for the residual, to 0.01, because a nearly singular direction may hide behind the others at 0.1;
    and one for a vector that has a part in every direction, which shows how long the inverse makes what is hidden.
    """
    state, door, report = setup.state, setup.state.door, setup.report
    xp = door.xp
    residual = b.astype(np.float64) + system.product(state.block, setup.result) - setup.result
    ended.questions += 1
    ended.rows_asked += state.rows
    if isinstance(setup.chosen, Approximate):
        size = abs(residual)
        report.residual = size.max(axis=1) if setup.options.tolerances.norm == "inf" else xp.linalg.norm(size, axis=1)

    def length_of_solution(right: Any, rtol: float) -> Any:
        exact = isinstance(setup.chosen, (GMRES, Direct))  # BiCGSTAB breaks down where GMRES answers
        other = Setup(
            setup.name,
            state,
            retire_by_default=False,
            relative_to="scale",
            method=setup.chosen if exact else None,
            rtol=rtol,
            atol=0.0,
            max_steps=setup.stop.max_steps,
            norm=2,
            look_every=setup.stop.look_every,
            retire={"on": True, "off": False}.get(setup.options.retire, setup.options.retire),
            trace=False,
            threads=setup.threads,
            on_failure="return",
        )
        more = system.solve(other, right.astype(state.dtype), None, None)
        ended.questions += more.questions
        ended.rows_asked += more.rows_asked
        ended.copies += more.copies
        ended.scratch_bytes = max(ended.scratch_bytes, more.scratch_bytes)
        length = xp.linalg.norm(other.result.astype(np.float64), axis=1)
        return xp.where(other.report.status == 0, length, np.inf)

    u = xp.linalg.norm(setup.result.astype(np.float64), axis=1)
    unit = xp.where(u > 0, u, 1.0)
    error = length_of_solution(residual, 0.01) / unit
    everywhere = np.random.default_rng(0).standard_normal(state.width)
    everywhere /= np.linalg.norm(everywhere)
    probe = xp.ascontiguousarray(xp.broadcast_to(xp.asarray(everywhere), state.block.shape))
    # A direction's share of the probe is 1 / sqrt(width), ten times less by bad luck; solved to less than that, so that
    # no direction is left in the residual.
    shares = 10 * np.sqrt(state.width)
    inverse = length_of_solution(probe, 0.1 / shares)
    rounding = np.finfo(state.dtype).eps / 4  # of the residual, most of which cancels
    unseen = xp.linalg.norm(residual, axis=1) / unit + rounding
    # What a product cannot show. The factors of Direct know J better; but a residual that cancels is no proof.
    least = inverse * rounding * (0.1 if isinstance(setup.chosen, Direct) else 1.0)
    error = xp.where((u > 0) & (error < least), least, error)
    return xp.where((report.status <= 0) & (shares * inverse * unseen >= 1), np.inf, error)


def _unroll(setup: Setup, system: _System, method: Phantom, f: Any, b: Any) -> _Ended:
    """Phantom's gradient into the setup's result and report: u = tau sum of a_i, back through the unrolled states."""
    state, tau, report = setup.state, method.tau, setup.report
    if f is None and system.native is None:
        raise ValueError("f: None given; Phantom() unrolls the map: give it as f=f, or use Neumann(k, tau)")
    value = f if f is not None else partial(system.native._value_of, threads=setup.threads)  # type: ignore[union-attr]
    states = [state.block]
    for _ in range(method.k - 1):
        h = states[-1]
        states.append((h + tau * (system.value(value, h) - h)).astype(state.dtype, copy=False))
    cotangent = b
    u = (tau * b).astype(state.dtype, copy=False)
    for h in states[:0:-1]:
        product = system.product(h, cotangent)
        cotangent = (cotangent + tau * (product - cotangent)).astype(state.dtype, copy=False)
        u = u + cotangent * state.dtype.type(tau)
    setup.result[...] = u
    report.rejected[...] = 0
    _report_unmeasured(setup, b, steps=method.k - 1)
    return _Ended(
        method.k - 1,
        (method.k - 1) * state.rows,
        (method.k + 2) * state.rows * state.width * state.dtype.itemsize,
    )


def _report_unmeasured(setup: Setup, b: Any, steps: int) -> None:
    """What an approximate gradient made in Python says of itself."""
    report, xp = setup.report, setup.state.door.xp
    finite = xp.isfinite(setup.result).all(axis=1)
    report.status[...] = xp.where(finite, int(Status.approximate), int(Status.not_finite))
    report.steps[...] = steps
    report.residual[...] = np.nan
    size = abs(b.astype(np.float64))
    report.scale[...] = size.max(axis=1) if setup.options.tolerances.norm == "inf" else xp.linalg.norm(size, axis=1)
    report.singular[...] = 0
