# SPDX-License-Identifier: Apache-2.0
"""Gradients of an integration: the adjoint with a condition, or back through the steps of the solver.

a(t) = dL/dz(t)          da/dt = -(dF/dz)' a        dL/dz0    = a(t_0)
                                                    dL/du     = integral of (dF/du)' a,  u the condition, per row
                                                    dL/dtheta = integral of (dF/dtheta)' a, summed over the rows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._arrays import Array, describe, door_for
from ._dialogue import State, check_args, check_row_args, check_state, converse
from ._ode_methods import OdeMethod, resolve_ode_method
from ._odeint import OdeReport, OdeSolution, check_times, ode_options, odeint
from ._options import keyword_options, refuse_unknown, threads_named
from .errors import ConvergenceError
from .maps import Field

__all__ = ["GRADIENTS", "OdeGradients", "check_gradient_kind", "gradient_bytes", "odeint_adjoint"]

GRADIENTS = ("adjoint", "solver", "frozen")


@dataclass(frozen=True, eq=False, repr=False)
class OdeGradients:
    """What :func:`odeint_adjoint` returns.

    Attributes:
        z0: dL/dz0, of the shape and dtype of z0.
        row_args: what ``vjp`` gives for the condition, integrated: a tuple.
        parameters: the same for what is summed over the rows: a tuple.
        evaluations: times f was called; of a native field, for the row that needed most.
        products: times vjp was called.
        accepted, rejected: steps backward, of a native field those of the row with most.
        gradient: ``"adjoint"``, ``"solver"`` or ``"frozen"``.
        scratch_bytes: memory held beside the results and what vjp gives: the number of :func:`plan`.

    Example:
        >>> import numpy as np, deqcore
        >>> f = lambda t, z, u: u - z
        >>> vjp = lambda t, z, a, u: (-a, (a,), ())
        >>> z0, u, times = np.zeros((1, 1)), np.ones((1, 1)), [0.0, 1.0]
        >>> z = deqcore.odeint(f, z0, times, row_args=(u,), rtol=1e-6).value
        >>> gradients = deqcore.odeint_adjoint(f, vjp, z, times, np.ones((1, 1)), row_args=(u,), rtol=1e-6)
        >>> gradients.z0.round(4).tolist(), gradients.row_args[0].round(4).tolist()      # 1/e and 1 - 1/e
        ([[0.3679]], [[0.6321]])
    """

    z0: Array
    row_args: tuple[Array, ...]
    parameters: tuple[Array, ...]
    evaluations: int
    products: int
    accepted: int
    rejected: int
    gradient: str
    scratch_bytes: int

    def __repr__(self) -> str:
        """What was done."""
        return (
            f"<OdeGradients by {self.gradient!r}: {self.evaluations} evaluations, {self.products} products, "
            f"{self.accepted} steps, {self.rejected} rejected>"
        )


def odeint_adjoint(
    f: Callable[..., Any] | Field,
    vjp: Callable[..., Any] | None,
    z: Array,
    t: Any,
    g: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    gradient: str = "adjoint",
    method: Any = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    max_steps: int = 10000,
    threads: int | None = None,
    **unknown: NoReturn,
) -> OdeGradients:
    """Differentiate a loss of z(t) to z0, to the condition and to the parameters.

    ``"adjoint"`` integrates z and a backward from each requested time to the one before, as one system; z begins anew
    at each of them from the values that :func:`odeint` gave, so that what a dissipative field forgets forward does not
    grow backward beyond one interval: more requested times, less of it. The gradients to condition and parameters are
    integrals along the way, which do not take part in the error (Kidger, Chen and Lyons 2021). Memory does not grow
    with the number of steps. It is the exact gradient of the ODE, and that of the solver's result up to the error of
    both integrations.

    ``"solver"`` is the exact gradient of what a method with fixed steps computed: it goes back through the steps, whose
    stages are computed anew from one requested time to the next and kept for that long. Memory grows with the steps
    between two times. ``"frozen"`` leaves out da/dt: the cotangent stays as it is at the end, which is not the gradient
    of anything, and cheap.

    Args:
        f: the field, as for :func:`odeint` with ``control="batch"``: t is a float, so where z is float32 write
            ``math.cos(t)``, not ``np.cos(t)``, which would make float64 of it. Or a :class:`deqcore.maps.Field`, which
            is differentiated without Python, each row with its own steps; ``parameters`` are those of A1, A2, b2.
        vjp: None for such a field; else f's products, called ``vjp(t, z, a, *args, *row_args)`` with a shaped like z;
            returns three things: a' dF/dz, like z; a tuple of arrays with a row per row, a' dF/du, where u is what
            ``row_args`` hold; a tuple of arrays summed over the rows, a' dF/dtheta. Either tuple may be empty, and is
            as long at every call.
        z: the values that :func:`odeint` gave at the times t, ``(times, *z0.shape)``.
        t: the times.
        g: dL/dz at the times, of the shape of z; or of the shape of z0: at the last time alone.
        args, row_args: as for :func:`odeint`.
        gradient: ``"adjoint"``, ``"solver"`` or ``"frozen"``.
        method: as for :func:`odeint`; ``"solver"`` needs the one that computed z, with a number of steps.
        rtol, atol, max_steps: as for :func:`odeint`, backward, over z and a.
        threads: most threads; None is :func:`deqcore.num_threads`.

    Returns:
        :class:`OdeGradients`.

    Raises:
        ConvergenceError: the integration did not arrive; there is no gradient then. It carries an :class:`OdeSolution`
            of the interval between two times where it ended: ``value`` is a at the later and the earlier one, or with
            ``"solver"``, which integrates forward again, z at the earlier and the later one; NaN where not reached.
        FloatingPointError: a gradient is NaN or infinite, because vjp was, or beyond the range of its dtype.
        TypeError, ValueError: an argument of the wrong kind, dtype, shape or range, or not finite; an unknown option.
        Exception: whatever f or vjp raise, unchanged.

    Sources: Pontryagin et al. 1962; Chen, Rubanova, Bettencourt and Duvenaud 2018, "Neural ODEs"; Ding, Cui, Wang and
    Shi 2023, for the condition.

    Example:
        >>> import numpy as np, deqcore
        >>> theta, z0, times, method = np.array(0.5), np.ones((2, 1)), [0.0, 1.0], deqcore.RK4(steps=8)
        >>> f = lambda t, z: theta * z
        >>> vjp = lambda t, z, a: (theta * a, (), ((a * z).sum(),))
        >>> z = deqcore.odeint(f, z0, times, method=method).value
        >>> for kind in ("adjoint", "solver"):                        # dL/dtheta of L = sum of z(1) is 2 exp(theta)
        ...     step = deqcore.odeint_adjoint(f, vjp, z, times, np.ones((2, 1)), method=method, gradient=kind)
        ...     print(step.parameters[0].round(4), step.z0.round(4).ravel())
        3.2974 [1.6487 1.6487]
        3.2974 [1.6487 1.6487]
    """
    if unknown:
        refuse_unknown("odeint_adjoint", unknown, _OPTIONS)
    native = isinstance(f, Field)
    if not callable(f):
        raise TypeError(f"f: {f!r} given; expected a callable or a deqcore.maps.Field")
    if native and vjp is not None:
        raise ValueError(f"vjp: given with {f!r}; expected None: this field has its own products")
    if not native and not callable(vjp):
        raise TypeError(f"vjp: {vjp!r} given; expected a callable")
    check_gradient_kind(gradient)
    times = check_times(t)
    check_args(args, row_args)
    door = door_for(z, "z")
    path = check_state(z, "z", door=door)
    if path.shape[0] != len(times) or len(path.shape) < 2:
        raise ValueError(f"z: {describe(z)} given; expected the values at {len(times)} times, (times, *z0.shape)")
    values = door.contiguous(door.inward(z))
    state = check_state(values[-1], "z", door=door)
    cotangents = _cotangents(g, path, state, len(times))
    condition = f._injection(args, row_args, False, state) if isinstance(f, Field) else None
    if condition is None:
        check_row_args(row_args, state)
    chosen = resolve_ode_method(method)
    if gradient == "solver" and chosen.steps is None:
        raise ValueError(
            f"method: {chosen!r} given; the gradient through the solver needs a number of steps, such as "
            f"{type(chosen).__name__}(steps=8)"
        )
    options = ode_options(
        chosen,
        rtol=rtol,
        atol=atol,
        first_step=None,
        max_steps=max_steps,
        control="batch",
        relax=False,
        retire=_core.Retire.off,
    )
    options.look_every = 1  # each step's quadrature is wanted when it is accepted
    count = threads_named(threads)
    if isinstance(f, Field):
        return _natively(f, values, times, cotangents, condition, row_args[0], state, chosen, options, gradient, count)
    sums = _Sums(state, vjp, args, row_args)
    how = _ThroughSolver if gradient == "solver" else partial(_Backward, frozen=gradient == "frozen")
    back = how(f, sums, chosen, options, count, args, row_args)
    a = cotangents[-1].copy()
    for i in range(len(times) - 1, 0, -1):
        a = back.over(float(times[i - 1]), float(times[i]), values[i - 1], values[i], a)
        if cotangents[i - 1] is not None:
            a = a + cotangents[i - 1]
    _check_gradients(door, a, *sums.total)
    return OdeGradients(
        z0=door.outward(a),
        row_args=tuple(map(door.outward, sums.total[0])),
        parameters=tuple(map(door.outward, sums.total[1])),
        evaluations=back.evaluations,
        products=sums.calls,
        accepted=back.accepted,
        rejected=back.rejected,
        gradient=gradient,
        scratch_bytes=gradient_bytes(chosen, gradient, state.rows, state.width, state.dtype),
    )


def _check_arrived(solution: OdeSolution, value: Any, asked: str) -> None:
    """Raise where an interval was not crossed. ``value``: what was integrated, at both ends of it."""
    if solution.success:
        return
    solution = replace(solution, value=value, _function="odeint_adjoint", _asked=asked)
    raise ConvergenceError(
        f"{solution.message}. There is no gradient; this exception's .solution tells of the interval where it ended; "
        f".solution.explain() says what to try",
        solution,
    )


def check_gradient_kind(gradient: Any) -> None:
    """Refuse anything but the three kinds."""
    if not isinstance(gradient, str) or gradient not in GRADIENTS:
        raise ValueError(f"gradient: {gradient!r} given; expected one of {', '.join(map(repr, GRADIENTS))}")


def _check_gradients(door: Any, z0: Any, row_args: tuple[Any, ...], parameters: tuple[Any, ...]) -> None:
    """Refuse to return numbers that are none: backward through fixed steps nothing else would notice."""
    named = [("z0", z0)]
    named += [(f"row_args[{i}]", array) for i, array in enumerate(row_args)]
    named += [(f"parameters[{i}]", array) for i, array in enumerate(parameters)]
    for name, array in named:
        if not bool(door.xp.isfinite(array).all()):
            raise FloatingPointError(
                f"odeint_adjoint: {name} of the gradients is not finite: vjp answered NaN or infinity, or the gradient "
                f"is beyond the range of its dtype"
            )


def gradient_bytes(chosen: OdeMethod, gradient: str, rows: int, width: int, dtype: Any) -> int:
    """What a gradient holds beside its results and what vjp gives."""
    size = np.dtype(dtype).itemsize
    kind = _core.OdeSolve32 if size == 4 else _core.OdeSolve64
    options = chosen._native()
    options.control = _core.Control.batch
    if gradient == "solver":
        assert chosen.steps is not None  # refused otherwise
        points = chosen.steps * chosen.stages * rows * width * size
        return int(points + kind.scratch_bytes(rows, width, options) + 2 * rows * width * size)
    return int(kind.scratch_bytes(rows, 2 * width, options) + 3 * rows * 2 * width * size)


def _cotangents(g: Any, path: State, state: State, count: int) -> list[Any]:
    """dL/dz at each time; None where it is zero."""
    door = state.door
    if getattr(g, "shape", None) == path.shape:
        return list(door.contiguous(check_state(g, "g", path).block.reshape(path.shape)))
    if getattr(g, "shape", None) != state.shape:
        raise ValueError(
            f"g: {describe(g)} given; expected shape {path.shape}, or {state.shape} for the last time alone"
        )
    return [None] * (count - 1) + [check_state(g, "g", state).block.reshape(state.shape)]


def _natively(
    f: Field,
    values: Any,
    times: np.ndarray,
    cotangents: list[Any],
    condition: Any,
    u: Any,
    state: State,
    chosen: OdeMethod,
    options: Any,
    gradient: str,
    threads: int,
) -> OdeGradients:
    """Interval by interval, each wholly in C++."""
    a = np.array(cotangents[-1].reshape(state.block.shape))
    du, gradients = np.zeros_like(condition), f._gradients()
    kind, evaluations, accepted, rejected = GRADIENTS.index(gradient), 0, 0, 0
    blocks = values.reshape(len(times), state.rows, state.width)
    before = np.empty_like(a)  # for what is told of a failure
    for i in range(len(times) - 1, 0, -1):
        report = OdeReport(state.door, state.rows)
        ends = float(times[i - 1]), float(times[i])
        np.copyto(before, a)
        counts = f._native.differentiate(
            *(blocks[i - 1], blocks[i], condition, *ends, a, du, *gradients, report.native, options, kind, threads)
        )
        if (report.status < 0).any():
            if gradient == "solver":  # forward again, to where it is known to end
                order, first, last, asked = [i - 1, i], blocks[i - 1], blocks[i], "f"
            else:
                order, first, last, asked = [i, i - 1], before, a, "f or its product"
            arrived = np.where(report.status[:, None] < 0, np.nan, last).astype(a.dtype)
            _check_arrived(
                report.solution(values, times[order], counts, chosen, "on", 0, 0),
                np.stack([first, arrived]).reshape(2, *state.shape),
                asked,
            )
        evaluations += counts.questions
        accepted += int(report.integers[1].max())
        rejected += int(report.integers[2].max())
        if cotangents[i - 1] is not None:
            a += cotangents[i - 1].reshape(a.shape)
    _check_gradients(state.door, a, (du,), gradients)
    return OdeGradients(
        z0=a.reshape(state.shape),
        row_args=(du.reshape(u.shape),),
        parameters=gradients,
        evaluations=evaluations,
        products=evaluations,
        accepted=accepted,
        rejected=rejected,
        gradient=gradient,
        scratch_bytes=f._native.differentiate_bytes(options, kind, state.rows, threads) + a.nbytes,
    )


class _Sums:
    """The products with dF/dz, and the integrals of those with dF/du and dF/dtheta."""

    def __init__(self, state: State, vjp: Any, args: tuple[Any, ...], row_args: tuple[Any, ...]) -> None:
        self.state, self.calls = state, 0
        self._vjp, self._after = vjp, (*args, *row_args)
        self.total: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self._shapes: Any = None

    def products(self, t: float, z: Any, a: Any) -> tuple[Any, list[tuple[Any, ...]]]:
        """-> a' dF/dz, and [a' dF/du, a' dF/dtheta], all checked."""
        state, door = self.state, self.state.door
        self.calls += 1
        answer = self._vjp(t, door.outward(z), door.outward(a), *self._after)
        if not (isinstance(answer, tuple) and len(answer) == 3):
            raise TypeError(
                f"vjp returned {describe(answer)}; expected (a' dF/dz, (a' dF/du, ...), (a' dF/dtheta, ...))"
            )
        for name, part in zip(("a' dF/du", "a' dF/dtheta"), answer[1:], strict=True):
            if not isinstance(part, tuple):
                raise TypeError(f"vjp returned {describe(part)} for {name}; expected a tuple of arrays")
        along = door.accept(answer[0], state.shape, state.dtype, "vjp")
        sums = [tuple(door.inward(self._array(array)) for array in part) for part in answer[1:]]
        for array in sums[0]:
            if len(state.shape) > 1 and array.shape[:1] != (state.rows,):
                raise ValueError(f"vjp returned {describe(array)} for a' dF/du; expected {state.rows} rows")
        shapes = [[array.shape for array in part] for part in sums]
        if self._shapes is None:
            self._shapes = shapes
            zeros = [tuple(array * 0 for array in part) for part in sums]
            self.total = (zeros[0], zeros[1])
        elif shapes != self._shapes:
            raise ValueError(
                f"vjp returned arrays of shapes {shapes}; expected {self._shapes}, those of its first call"
            )
        return door.inward(along), sums

    def _array(self, array: Any) -> Any:
        if isinstance(array, (np.generic, float)) and self.state.door.xp is np:  # a sum over everything
            return np.asarray(array, self.state.dtype)
        if getattr(getattr(self.state.door.inward(array), "dtype", None), "kind", "") != "f":
            raise TypeError(f"vjp returned {describe(array)} for a derivative; expected an array of floats")
        return array

    def add(self, factor: float, sums: Any) -> None:
        """Total += factor * sums."""
        self.total = _plus(self.total, factor, sums)


def _plus(to: Any, factor: float, sums: Any) -> Any:
    own = tuple(tuple(a + factor * b for a, b in zip(p, q, strict=True)) for p, q in zip(to, sums, strict=True))
    return own


class _Backward:
    """z and a integrated backward as one system of twice the width; the integrals follow the accepted steps."""

    def __init__(
        self,
        f: Callable[..., Any],
        sums: _Sums,
        chosen: OdeMethod,
        options: Any,
        threads: int,
        args: tuple[Any, ...],
        row_args: tuple[Any, ...],
        frozen: bool,
    ) -> None:
        state = sums.state
        self._f, self._sums, self._chosen, self._threads, self._frozen = f, sums, chosen, threads, frozen
        self._after = (*args, *row_args)
        self._options = options
        self.evaluations = self.accepted = self.rejected = 0
        shape = (state.rows, 2 * state.width)
        self._pair = state._replace(shape=shape, width=shape[1])
        self._start = state.door.empty(shape, state.dtype)
        self._values = state.door.empty((2 * state.rows, shape[1]), state.dtype)

    def over(self, earlier: float, later: float, z_earlier: Any, z: Any, a: Any) -> Any:
        """From a at the later time to a at the earlier one; z begins at its own value."""
        state, door, pair, width = self._sums.state, self._sums.state.door, self._pair, self._sums.state.width
        self._start[:, :width] = z.reshape(state.rows, width)
        self._start[:, width:] = a.reshape(state.rows, width)
        times = np.array([later, earlier])
        solver, scratch = door.solver(
            "ode", state.dtype, state.rows, pair.width, pair.shape, (self._options,), self._threads
        )
        report = OdeReport(door, state.rows)
        instants = door.scales(times)
        solver.start(door.operand(self._start), door.operand(instants), 2, door.operand(self._values), report.native)
        steps = _Quadrature(self._chosen, self._sums, report, later)
        moments = door.view(scratch, solver.times_offset, (state.rows,), np.float64)

        def call(both: Any) -> Any:
            steps.settle()
            t = float(moments[0])
            own = door.inward(both)
            at = (
                door.read_only(own[:, :width].reshape(state.shape)),
                door.read_only(own[:, width:].reshape(state.shape)),
            )
            slope = self._f(t, door.outward(at[0]), *self._after)
            self.evaluations += 1
            slope = door.inward(door.accept(slope, state.shape, state.dtype, "f"))
            along, sums = self._sums.products(t, *at)
            steps.take(sums)
            answer = door.empty(pair.shape, state.dtype)
            answer[:, :width] = slope.reshape(state.rows, width)
            answer[:, width:] = 0 if self._frozen else -along.reshape(state.rows, width)
            return door.outward(answer)

        converse(solver, scratch, pair, lambda count, rows: call, "f", None, 1)
        steps.settle()
        self.accepted += int(report.integers[1][0])
        self.rejected += int(report.integers[2][0])
        _check_arrived(
            report.solution(self._values, times, solver.counts, self._chosen, "off", 0, scratch.nbytes),
            door.outward(self._values[:, width:].reshape(2, *state.shape)),
            "f or vjp",
        )
        return self._values[state.rows :, width:].reshape(state.shape).copy()


class _Quadrature:
    """Integrals by the weights of the method, step by step; a rejected step leaves no trace.

    The products at the stages are added up as they come. Kept besides: those at the beginning of the step, which a
    second try needs again, and those at its end, which are the next one's first.
    """

    def __init__(self, chosen: OdeMethod, sums: _Sums, report: OdeReport, start: float) -> None:
        self._b = chosen._weights(chosen.stages)
        self._by_error = chosen.steps is None
        self._total, self._report = sums, report
        self._stage, self._probe = 0, self._by_error
        self._accepted, self._reached = 0, start
        self._first: Any = None
        self._last: Any = None
        self._sum: Any = None

    def take(self, sums: Any) -> None:
        """The products at the next stage."""
        if self._stage == 1 and self._probe:  # asked for the length of the first step
            self._probe = False
            return
        stage = self._stage
        self._stage += 1
        if stage == 0:
            self._first = _plus(sums, 0.0, sums)  # a copy: the caller may write to its arrays again
            self._sum = _plus(sums, self._b[0] - 1, sums)
        elif stage < len(self._b):
            self._sum = _plus(self._sum, self._b[stage], sums)
        else:
            self._last = _plus(sums, 0.0, sums)

    def settle(self) -> None:
        """What became of the step, if one has been completed."""
        if self._stage < len(self._b) + self._by_error:
            return
        if int(self._report.integers[1][0]) > self._accepted:
            self._accepted += 1
            reached = float(self._report.reached[0])
            self._total.add(self._reached - reached, self._sum)
            self._reached = reached
            self._first = self._last
        self._stage = 0
        if self._by_error and self._first is not None:
            self._stage = 1
            self._sum = _plus(self._first, self._b[0] - 1, self._first)


class _ThroughSolver:
    """Back through fixed steps: the points that the solver asked about, computed anew, and the products at them."""

    def __init__(
        self,
        f: Callable[..., Any],
        sums: _Sums,
        chosen: OdeMethod,
        options: Any,
        threads: int,
        args: tuple[Any, ...],
        row_args: tuple[Any, ...],
    ) -> None:
        self._f, self._sums, self._chosen, self._threads = f, sums, chosen, threads
        self._args, self._row_args = args, row_args
        self.evaluations = self.accepted = self.rejected = 0

    def over(self, earlier: float, later: float, z_earlier: Any, z: Any, a: Any) -> Any:
        """From a at the later time to a at the earlier one."""
        state, door, chosen = self._sums.state, self._sums.state.door, self._chosen
        points: list[tuple[float, Any]] = []

        def recorded(t: Any, at: Any, *after: Any) -> Any:
            moment = t if isinstance(t, float) else float(door.inward(t).reshape(-1)[0])
            points.append((moment, door.inward(at).copy()))
            return self._f(moment, at, *after)

        forward = odeint(
            recorded,
            door.outward(z_earlier.copy()),
            [earlier, later],
            args=self._args,
            row_args=self._row_args,
            method=chosen,
            control="batch",
            retire=False,
            threads=self._threads,
            on_failure="return",
        )
        _check_arrived(forward, forward.value, "f")
        self.evaluations += len(points)
        assert chosen.steps is not None  # refused otherwise
        h = (later - earlier) / chosen.steps
        stages = range(chosen.stages)
        b, rows = chosen._weights(chosen.stages), [chosen._weights(stage) for stage in stages]
        for step in reversed(range(chosen.steps)):
            back: list[Any] = [None] * chosen.stages
            for j in reversed(stages):
                v = (h * b[j]) * a
                for k in range(j + 1, chosen.stages):
                    if rows[k][j]:
                        v = v + (h * rows[k][j]) * back[k]
                back[j], sums = self._sums.products(*points[step * chosen.stages + j], v)
                self._sums.add(1.0, sums)
            for along in back:
                a = a + along
            del points[step * chosen.stages :]
        self.accepted += chosen.steps
        return a.reshape(state.shape)


_OPTIONS = keyword_options(odeint_adjoint)
