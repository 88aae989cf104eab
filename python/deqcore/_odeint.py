# SPDX-License-Identifier: Apache-2.0
"""Integration of dz/dt = f(t, z), each row with its own steps or the batch as one system."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._arrays import Array, describe, door_for, to_host
from ._dialogue import State, check_args, check_row_args, check_state, converse, gathered
from ._ode_methods import OdeMethod, resolve_ode_method
from ._options import (
    bounded,
    check_on_failure,
    flag,
    keyword_options,
    real,
    refuse_unknown,
    retire_named,
    threads_named,
)
from ._solution import Status
from .errors import ConvergenceError, ConvergenceWarning
from .maps import Dense, Field

__all__ = [
    "REPORT_BYTES",
    "OdeReport",
    "OdeSolution",
    "check_times",
    "complain",
    "integration_bytes",
    "ode_options",
    "odeint",
]


@dataclass(frozen=True, eq=False, repr=False)
class OdeSolution:
    """What :func:`odeint` returns. Arrays with one entry per row have shape ``(rows,)`` and lie where the solve ran.

    Attributes:
        value: the states at the requested times, ``(times, *z0.shape)``; NaN at those that a row did not reach.
        times: float64, the requested times.
        status: int8, the code of each row, see :class:`Status`: ``finished`` (2) where the last time was reached, else
            negative.
        evaluations: int32, evaluations of f that each row used.
        accepted: int32, steps.
        rejected: int32, steps given up because their error was too large.
        reached: float64, the time up to which each row was integrated.
        nfe: times f was called (native maps: the most that any row needed).
        rows_asked: rows over all those calls: the work of f.
        method: what was used.
        retire: ``"on"``, ``"halve"``, or ``"off"``: whether rows that ended were still asked about.
        copies: answers of f that were copied before use.
        scratch_bytes: memory held beside the values.

    Example:
        >>> import numpy as np, deqcore
        >>> solution = deqcore.odeint(lambda t, z: -z, np.ones((2, 1)), [0.0, 0.5, 1.0])
        >>> solution.success, solution.value.shape, solution.reached.tolist()
        (True, (3, 2, 1), [1.0, 1.0])
    """

    value: Array
    times: np.ndarray
    status: Array
    evaluations: Array
    accepted: Array
    rejected: Array
    reached: Array
    nfe: int
    rows_asked: int
    method: OdeMethod
    retire: str
    copies: int
    scratch_bytes: int
    _function: str = "odeint"
    _asked: str = "f"  # what may have answered NaN

    def __repr__(self) -> str:
        """The message, and what is inside."""
        return f"<OdeSolution {self.message}; value: {self.value.dtype} {self.value.shape}, nfe {self.nfe}>"

    @property
    def success(self) -> bool:
        """Whether every row reached the last time."""
        return not bool((self.status < 0).any())

    @property
    def message(self) -> str:
        """One line: how the rows ended, and how far those that failed came."""
        status, reached = to_host(self.status), to_host(self.reached)
        failed = np.flatnonzero(status < 0)
        rows = f"{len(status)} row" if len(status) == 1 else f"{len(status)} rows"
        if not len(failed):
            return f"{self._function}: {rows} finished at t = {self.times[-1]:g}"
        kinds = []
        for code in np.unique(status[failed]):
            members = np.flatnonzero(status == code)
            shown = ", ".join(map(str, members[:5])) + (", ..." if len(members) > 5 else "")
            kinds.append(f"{len(members)} {Status(code).name} (row{'s' if len(members) > 1 else ''} {shown})")
        first = reached[failed][np.argmin(abs(reached[failed] - self.times[0]))]
        return (
            f"{self._function}: {len(failed)} of {rows} did not reach t = {self.times[-1]:g}: {'; '.join(kinds)}. The "
            f"first stopped at t = {first:g}, method {self.method!r}"
        )

    def explain(self) -> str:
        """Say in plain words how it went and, where rows failed, what to try.

        Example:
            >>> import numpy as np, deqcore
            >>> solution = deqcore.odeint(lambda t, z: z * z, np.ones((1, 1)), [0.0, 2.0], on_failure="return")
            >>> print(solution.explain())  # doctest: +ELLIPSIS
            odeint: 1 of 1 row did not reach t = 2: ...
        """
        steps, rejected = to_host(self.accepted), to_host(self.rejected)
        lines = [
            self.message + ".",
            f"Steps per row: {int(steps.min())} to {int(steps.max())}, and {int(rejected.sum())} rejected in all; f "
            f"was called {self.nfe} times for {self.rows_asked} rows in all.",
        ]
        status = to_host(self.status)
        ended = [Status(c) for c in np.unique(status) if Status(c) in _ADVICE]
        lines += [f"{status.name}: {_ADVICE[status].format(asked=self._asked)}." for status in ended]
        return "\n".join(lines)


_ADVICE = {
    Status.out_of_steps: "raise max_steps or loosen rtol and atol; where steps are short because the problem is stiff, "
    "no explicit method is suitable",
    Status.step_underflow: "no step is short enough: the solution runs to infinity there, f is discontinuous, or t is "
    "so large that float64 holds no steps between",
    Status.not_finite: "{asked} answered NaN or infinity, at the start or however short the step; of fixed steps, more "
    "of them may help; and atol must not be 0 where an element of z is",
    Status.map_failed: "f reported a failure itself",
}


def check_times(t: Any) -> np.ndarray:
    """The requested times, as float64."""
    try:
        times = np.asarray(t)
    except (TypeError, ValueError):
        times = np.empty(0, object)
    if times.dtype.kind not in "fiu" or times.ndim != 1:
        raise TypeError(f"t: {describe(t)} given; expected times: a sequence of numbers, such as [0.0, 1.0]")
    times = np.ascontiguousarray(times, np.float64)
    if len(times) < 2:
        raise ValueError(f"t: {len(times)} given; expected at least two times")
    finite = np.isfinite(times)
    if not finite.all():
        at = int(finite.argmin())
        raise ValueError(f"t: {times[at]:g} at index {at}; expected finite times")
    onward = times[1:] > times[:-1] if times[1] > times[0] else times[1:] < times[:-1]
    if not onward.all():
        at = int(onward.argmin())
        raise ValueError(
            f"t: {float(times[at])} at index {at} and then {float(times[at + 1])}; expected times that only rise or "
            f"only fall"
        )
    if abs(times[-1] / 2 - times[0] / 2) > np.finfo(float).max / 2:
        raise ValueError(f"t: from {times[0]:g} to {times[-1]:g} given; expected a length that float64 holds")
    return times


def check_resolved(times: np.ndarray, on_cpu: bool) -> None:
    """Refuse times that float32, in which f is to get them, tells apart too coarsely."""
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.spacing(np.maximum(abs(times[1:]), abs(times[:-1])).astype(np.float32)).astype(np.float64)
    lengths = abs(np.diff(times))
    if spacing.max() * _OF_RANGE <= lengths.sum() and (spacing * _OF_INTERVAL <= lengths).all():  # not where NaN
        return
    at = int(abs(times).argmax())
    other = ", or control='batch'" if on_cpu else ""  # on a GPU an array of the same dtype
    raise ValueError(
        f"t: {times[at]:g} at index {at} given with a float32 z0; expected times that float32 resolves, as f gets them "
        f"in it by rows: at least {_OF_RANGE} steps from the first to the last and {_OF_INTERVAL} between two; shift "
        f"the times so that they begin at 0, or use float64{other}"
    )


# Numbers of float32 from the first time to the last, and between two. The first is about what rtol = 1e-4 needs where
# t is far from 0; the second leaves 30,000 times in [0, 1] alone.
_OF_RANGE, _OF_INTERVAL = 10_000, 256


def ode_options(
    chosen: OdeMethod, *, rtol: Any, atol: Any, first_step: Any, max_steps: Any, control: Any, relax: Any, retire: Any
) -> Any:
    """The core's options; ranges are checked when a solver is made from them."""
    if not isinstance(control, str) or control not in ("rows", "batch"):
        raise ValueError(f"control: {control!r} given; expected 'rows' or 'batch'")
    options = chosen._native()
    for name, tolerance in (("rtol", real(rtol, "rtol")), ("atol", real(atol, "atol"))):
        if chosen.steps is None:
            setattr(options, name, tolerance)
        elif not 0 <= tolerance < math.inf:  # without meaning, so that the core's own bounds are not asked for
            raise ValueError(f"{name}: {tolerance} given; expected a finite number of at least 0")
    if first_step is not None:
        options.first_step = real(first_step, "first_step")
        if not options.first_step > 0:
            raise ValueError(f"first_step: {first_step!r} given; expected a number > 0, or None")
    options.max_steps = bounded(max_steps, "max_steps")
    options.control = getattr(_core.Control, control)
    options.relax = flag(relax, "relax")
    options.retire = retire
    return options


def odeint(
    f: Callable[..., Any] | Dense | Field,
    z0: Array,
    t: Any,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    method: Any = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    first_step: float | None = None,
    max_steps: int = 10000,
    control: str = "rows",
    relax: bool = False,
    retire: bool | str | None = None,
    threads: int | None = None,
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> OdeSolution:
    """Integrate dz/dt = f(t, z) from z0 at t[0] to t[-1], forward or backward in time, and give z at the times t.

    A step is accepted when its estimated error e has a root mean square of e / (atol + rtol max(\\|z\\|, \\|z_next\\|))
    of at most 1, over the row, or with ``control="batch"`` over the whole batch. By rows, each row has its own time and
    its own steps: its own evaluations are those it would need alone, and it has the same bits as alone. Rows that have
    reached the end leave as soon as at most nine tenths of the rows asked about go on. As one system, the batch has
    one time and one step, as in most other libraries.

    With steps by the error the first step comes from f (two evaluations, the second a probe; Hairer, Norsett and Wanner
    1993, II.4). Where the tolerance of z0 is the absolute one, z0 says nothing about the size of the solution, and f
    alone decides: a start at zero wastes no steps. The last evaluation of a step is the first of the next.

    Args:
        f: the field, called ``f(t, z, *args, *row_args)`` with z of shape ``(active, ...)``; returns an array of its
            shape and dtype. By rows, t is an array of the dtype of z with one time per row of z, shaped to broadcast
            against it: ``(active, 1, ...)``. Both may be views, valid until the next call: copy what is kept, and write
            to neither. Where there is one time, with ``control="batch"`` or a z0 of one axis, t is a float; on a GPU
            always an array. NumPy's functions make a float64 of a float, and that makes float64 of a float32 z: write
            ``math.cos(t)`` there instead of ``np.cos(t)``. Or f is a :class:`deqcore.maps.Field` or a
            :class:`deqcore.maps.Dense`, which are integrated without Python.
        z0: states at t[0], float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row. Never written.
        t: at least two times, rising or falling. By rows a float32 z gets them in float32, so they are refused where
            float32 has fewer than 10,000 steps from the first to the last, or fewer than 256 between two: times far
            from 0. Shift them, or use float64 or, on a CPU, ``control="batch"``.
        args, row_args, pass_rows: as for :func:`fixed_point`.
        method: :class:`DormandPrince` (None), :class:`BogackiShampine`, :class:`RK4`, :class:`Midpoint`,
            :class:`Euler`, or a name. A number of equal steps between two requested times is an option of the method;
            Euler, midpoint and RK4 have nothing else.
        rtol, atol: of the error of a step; rtol at least 4 eps, atol above 0 where an element of z is 0.
        first_step: length of the first step; None chooses it. With fixed steps it has no meaning, nor have rtol, atol
            and max_steps.
        max_steps: most steps tried per row.
        control: ``"rows"`` or ``"batch"``: whose error decides.
        relax: integrate dz/dt = f(t, z) - z instead, which rests at the fixed points of f.
        retire: as for :func:`fixed_point`: whether rows that have ended are no longer asked about.
        threads: most threads; None is :func:`deqcore.num_threads`.
        stream: for arrays on a GPU, as for :func:`fixed_point`.
        on_failure: ``"raise"``, ``"warn"`` or ``"return"`` when a row did not reach t[-1].

    Returns:
        An :class:`OdeSolution`.

    Raises:
        ConvergenceError: a row did not reach t[-1] and ``on_failure`` is ``"raise"``; it carries the whole solution.
        TypeError, ValueError: an argument of the wrong kind, dtype, shape or range, or not finite; an unknown option.
        Exception: whatever f raises, unchanged.

    Example:
        >>> import numpy as np, deqcore
        >>> rates = np.array([[1.0], [100.0]])
        >>> solution = deqcore.odeint(lambda t, z, k: -k * z, np.ones((2, 1)), [0.0, 1.0], row_args=(rates,))
        >>> bool(abs(solution.value[-1, 0, 0] - np.exp(-1)) < 1e-3)
        True
        >>> bool(solution.evaluations[1] > 2 * solution.evaluations[0])      # the stiff row costs the other nothing
        True
        >>> back = deqcore.odeint(lambda t, z: -z, np.ones((1, 1)), [1.0, 0.0], method=deqcore.RK4(steps=16))
        >>> back.value[-1].round(4).tolist()
        [[2.7183]]
    """
    if unknown:
        refuse_unknown("odeint", unknown, _OPTIONS)
    if not callable(f):
        raise TypeError(f"f: {f!r} given; expected a callable or a map from deqcore.maps")
    door = door_for(z0, "z0", stream)
    with door.on_stream():
        state = check_state(z0, "z0", door=door)
        times = check_times(t)
        check_args(args, row_args)
        check_on_failure(on_failure)
        pass_rows = flag(pass_rows, "pass_rows")
        native = isinstance(f, (Dense, Field))
        retire_word, retire_as = retire_named(retire, native or bool(row_args) or pass_rows)
        chosen = resolve_ode_method(method)
        options = ode_options(
            chosen,
            rtol=rtol,
            atol=atol,
            first_step=first_step,
            max_steps=max_steps,
            control=control,
            relax=relax,
            retire=retire_as,
        )
        options.look_every = door.look_every
        together = control == "batch" or len(state.shape) == 1
        if not (native or together) and state.dtype == np.float32:
            check_resolved(times, door.xp is np)
        count = threads_named(threads)
        report = OdeReport(door, state.rows)
        value = door.empty((len(times), *state.shape), state.dtype)
        values = value.reshape(len(times) * state.rows, state.width)

        def finish(counts: Any, held: int, copies: int = 0) -> OdeSolution:
            solution = report.solution(value, times, counts, chosen, retire_word, copies, held)
            return complain(solution, on_failure)

        if isinstance(f, (Dense, Field)):
            injection = f._injection(args, row_args, pass_rows, state, "z0")
            return finish(*f._integrate(state, injection, times, values, report.native, options, count))
        row_data = check_row_args(row_args, state)
        solver, scratch = door.solver("ode", state.dtype, state.rows, state.width, state.shape, (options,), count)
        instants = door.scales(times)  # a name: a device still reads it
        operands = door.operand(state.block), door.operand(instants), len(times), door.operand(values)
        solver.start(*operands, report.native)
        bind = partial(_bind, f, solver, scratch, state, together, args, row_data, pass_rows)
        copies = converse(solver, scratch, state, bind, "f", None, 1)
        return finish(solver.counts, scratch.nbytes, copies)


def _bind(
    f: Callable[..., Any],
    solver: Any,
    scratch: Any,
    state: State,
    together: bool,
    args: tuple[Any, ...],
    row_data: tuple[Any, ...],
    pass_rows: bool,
    count: int,
    rows: Any,
) -> Callable[[Any], Any]:
    """The call that answers questions about these rows, at the times that the solver has written beside them."""
    door = state.door
    own = gathered(row_data, count, rows, state)
    named = {"rows": door.outward(rows)} if pass_rows else {}
    times = door.view(scratch, solver.times_offset, (count,), np.float64)
    if together and door.xp is np:
        return lambda z: f(float(times[0]), z, *args, *own, **named)
    shaped = times.reshape((count,) + (1,) * (len(state.shape) - 1))
    if len(state.shape) == 1:
        shaped = times
    if state.dtype == np.float64:
        spread = door.outward(shaped)
        return lambda z: f(spread, z, *args, *own, **named)
    return lambda z: f(door.outward(shaped.astype(state.dtype)), z, *args, *own, **named)


def integration_bytes(chosen: OdeMethod, rows: int, width: int, dtype: Any) -> int:
    """What an integration of a callable holds beside its values and report."""
    kind = _core.OdeSolve32 if np.dtype(dtype) == np.float32 else _core.OdeSolve64
    return int(kind.scratch_bytes(rows, width, chosen._native()))


REPORT_BYTES = 1 + 3 * 4 + 8  # per row: status; evaluations, accepted, rejected; reached


class OdeReport:
    """The arrays that the core fills, one entry per row."""

    def __init__(self, door: Any, rows: int) -> None:
        self._door = door
        self.status = door.empty(rows, np.dtype(np.int8))
        self.integers = door.empty((3, rows), np.dtype(np.int32))
        self.reached = door.empty(rows, np.dtype(np.float64))
        self.native = door.native_ode_report(self.status, self.integers, self.reached)

    def solution(
        self, value: Any, times: np.ndarray, counts: Any, chosen: OdeMethod, retire: str, copies: int, held: int
    ) -> OdeSolution:
        """All of it, as the caller gets it."""
        arrays = self._door.all_outward((value, self.status, *self.integers, self.reached))
        value, status, evaluations, accepted, rejected, reached = arrays
        return OdeSolution(
            value=value,
            times=times,
            status=status,
            evaluations=evaluations,
            accepted=accepted,
            rejected=rejected,
            reached=reached,
            nfe=counts.questions,
            rows_asked=counts.rows_asked,
            method=chosen,
            retire=retire,
            copies=copies,
            scratch_bytes=held,
        )


def complain(solution: OdeSolution, on_failure: str) -> OdeSolution:
    """Raise or warn about rows that did not reach the end."""
    if on_failure == "return" or solution.success:
        return solution
    if on_failure == "raise":
        raise ConvergenceError(
            f"{solution.message}. The values reached are in this exception's .solution; .solution.explain() says what "
            f"to try; on_failure='return' or 'warn' does not raise",
            solution,
        )
    ended = np.unique(to_host(solution.status))
    names = ", ".join(Status(code).name for code in ended if code < 0)
    warnings.warn(
        f"odeint: rows ended as {names}; see the solution's status and explain()", ConvergenceWarning, stacklevel=4
    )
    return solution


_OPTIONS = keyword_options(odeint)
