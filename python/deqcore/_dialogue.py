# SPDX-License-Identifier: Apache-2.0
"""What every solving function shares: checking states, the loop over questions, and the finished solution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._arrays import check_numpy, describe, door_for, numpy_door, same_library, to_host
from ._methods import (
    BY_NAME,
    SHINE,
    Approximate,
    Direct,
    Homotopy,
    Method,
    Neumann,
    Newton,
    NewtonMethod,
    default_steps,
    native_of,
    resolve_method,
)
from ._options import check_on_failure, flag, retire_named, stop_rule, threads_named
from ._solution import Progress, Solution, Status, Tolerances
from .errors import ConvergenceError, ConvergenceWarning

_INT8, _INT32, _FLOAT64 = map(np.dtype, (np.int8, np.int32, np.float64))  # types are looked up anew at each use
_RESOLVED_RTOL = {np.dtype(np.float32): _core.resolved_rtol32, np.dtype(np.float64): _core.resolved_rtol64}

_FLIPPED, _REFUSED, _DONE, _RESHAPED = 1, -1, 0, 2  # the core's replies to an answer


class State(NamedTuple):
    """A checked block of states: first axis rows, the rest flattened; one axis is one row."""

    door: Any
    block: np.ndarray  # (rows, width), contiguous
    shape: tuple[int, ...]  # as the user gave it
    dtype: Any
    rows: int
    width: int

    def question_shape(self, count: int) -> tuple[int, ...]:
        """Of a question about ``count`` rows."""
        return self.shape if len(self.shape) == 1 else (count, *self.shape[1:])


def check_state(array: Any, what: str, like: State | None = None, door: Any = None) -> State:
    """Refuse what cannot be a state: wrong library, dtype or shape, empty, NaN; ``like`` fixes the first three."""
    if like is not None:
        door = like.door
        same_library(array, door, what)
    elif door is None:
        door = door_for(array, what)
    array = door.inward(array, what)
    door.check_floats(array, what, like.dtype if like else None)
    if like is not None and array.shape != like.shape:
        raise ValueError(f"{what}: {describe(array)} given; expected shape {like.shape}")
    if array.ndim == 0:
        raise ValueError(f"{what}: {describe(array)} given; expected at least one axis: (width,) or (rows, width)")
    if array.size == 0:
        raise ValueError(f"{what}: {describe(array)} given; expected at least one row and a width of at least 1")
    whole = door.contiguous(array)
    door.check_finite(whole, what)
    rows = 1 if array.ndim == 1 else array.shape[0]
    block = whole if array.ndim == 2 else whole.reshape(rows, -1)
    return State(door, block, array.shape, array.dtype, rows, block.shape[1])


def check_row_args(row_args: tuple[Any, ...], state: State) -> tuple[Any, ...]:
    """Row data for a callable: arrays with one entry per row."""
    if len(state.shape) == 1:
        return row_args  # one row: there is nothing to gather
    for i, array in enumerate(row_args):
        same_library(array, state.door, f"row_args[{i}]")
        state.door.inward(array, f"row_args[{i}]")  # an error now, and not when the first row leaves
        if array.ndim == 0 or array.shape[0] != state.rows:
            raise ValueError(
                f"row_args[{i}]: {describe(array)} given; expected {state.rows} rows, as many as the state has"
            )
    return row_args


def native_row_arg(
    given: tuple[Any, Any, bool],
    name: str,
    kind: str,
    state: State,
    what: str,
    *,
    dtype: Any,
    width: int,
    shape: tuple[int, ...],
) -> np.ndarray:
    """The one row argument of a native ``kind`` ("map", "field") of states ``width`` wide, with one row or as many.

    ``given`` are args, row_args and pass_rows; ``name`` is the argument's, ``shape`` its own for the whole batch;
    ``what`` names the state in errors.
    """
    args, row_args, pass_rows = given
    if args or pass_rows:
        raise TypeError(f"args, pass_rows: a native {kind} takes neither; give its {name} as row_args=({name},)")
    if not isinstance(row_args, tuple) or len(row_args) != 1:
        came = f"{len(row_args)} arrays" if isinstance(row_args, tuple) else describe(row_args)
        raise TypeError(f"row_args: {came} given; expected ({name},) for a native {kind}")
    if state.door is not numpy_door:
        raise TypeError(
            f"{what}: a {state.door.name} array given; expected a NumPy array: a native {kind} works on the CPU"
        )
    if state.dtype != dtype:
        raise TypeError(f"{what}: dtype {state.dtype} given; expected {dtype}, that of the {kind}'s weights")
    if state.width != width:
        raise ValueError(f"{what}: shape {state.shape} given; expected rows of width {width}, that of the {kind}")
    (array,) = row_args
    check_numpy(array, name)
    numpy_door.check_floats(array, name, dtype)
    own = math.prod(shape) // state.rows
    one_row = array.size == own and (array.ndim == 1 or array.shape[:1] == (1,))
    if not one_row and array.shape != shape:
        raise ValueError(f"{name}: {describe(array)} given; expected shape {shape}, or one row of {own}")
    block: np.ndarray = numpy_door.contiguous(array)
    numpy_door.check_finite(block, name)
    return block if block.ndim == 2 else block.reshape(1 if one_row else state.rows, own)


def gathered(row_data: tuple[Any, ...], count: int, rows: np.ndarray, state: State) -> tuple[Any, ...]:
    """The row data of the rows asked about: as given while all of them are."""
    if count == state.rows:
        return row_data
    door = state.door
    return tuple(door.outward(door.take(door.inward(data), rows)) for data in row_data)


def check_args(args: Any, row_args: Any) -> None:
    """Both are tuples, so that one array is never taken for many."""
    if not isinstance(args, tuple):
        raise TypeError(f"args: {describe(args)} given; expected a tuple, such as (x,)")
    if not isinstance(row_args, tuple):
        raise TypeError(f"row_args: {describe(row_args)} given; expected a tuple of arrays, such as (x,)")


def check_scale(scale: Any, rows: int) -> np.ndarray | None:
    """None, one number, or one per row."""
    if scale is None:
        return None
    try:
        given = np.asarray(scale)
    except (TypeError, ValueError):  # an array of a device; rows of different lengths
        given = np.empty(0, object)
    wrong = TypeError if given.dtype.kind not in "fiu" else ValueError if given.shape not in ((), (rows,)) else None
    if wrong:
        raise wrong(f"scale: {describe(scale)} given; expected a number, or an array of shape ({rows},)")
    spread = np.ascontiguousarray(np.broadcast_to(given, (rows,)), np.float64)
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        raise ValueError(f"scale: {scale!r} given; expected finite numbers > 0")
    return spread


class Report:
    """The arrays that the core fills, one entry per row."""

    def __init__(self, door: Any, rows: int, trace_steps: int) -> None:
        self._xp, empty = door.xp, door.empty
        self.status = empty(rows, _INT8)
        integers, reals = empty((3, rows), _INT32), empty((2, rows), _FLOAT64)
        self.steps, self.rejected, self.singular = integers[0], integers[1], integers[2]
        self.residual, self.scale = reals[0], reals[1]
        try:
            self.trace = empty((trace_steps, rows), np.float64) if trace_steps else None
        except (MemoryError, ValueError):
            raise MemoryError(
                f"trace: {trace_steps} steps (max_steps) of {rows} rows need {8 * trace_steps * rows} bytes; lower "
                f"max_steps, or use a callback"
            ) from None
        self.native = door.native_report(self.status, integers, reals, self.trace)

    def failed(self) -> bool:
        """Whether a row has no solution."""
        if self._xp is np and not np.count_nonzero(self.status):  # faster, and nearly always so
            return False
        return bool((self.status < 0).any())

    def measured(self) -> Any:
        """The trace, cut to the steps taken; NaN after a row's end."""
        if self.trace is None:
            return None
        steps = int(self.steps.max())
        kept = self.trace[:steps].copy()
        kept[self._xp.arange(steps)[:, None] >= self.steps] = math.nan
        return kept


@dataclass(frozen=True)
class Options:
    """The checked options of a solve. Solves with equal ones share them, on any thread: nothing in it is written."""

    chosen: Method
    native: Any  # the method as the core takes it
    stop: Any
    tolerances: Tolerances
    retire: str
    trace_steps: int
    threads: int | None


def _check_options(
    name: str,
    relative_to: str,
    dtype: Any,
    width: int,
    retire_by_default: bool,
    products_before: int,
    method: Any,
    rtol: Any,
    atol: Any,
    max_steps: Any,
    norm: Any,
    look_every: Any,
    retire: Any,
    trace: Any,
    threads: Any,
    on_failure: Any,
) -> Options:
    check_on_failure(on_failure)
    retire_word, retire_as = retire_named(retire, retire_by_default)
    chosen = resolve_method(method, name)
    of_map = name in ("fixed_point", "root", "follow")
    stop = stop_rule(
        rtol=rtol,
        atol=atol,
        max_steps=default_steps(chosen, width) if max_steps is None and of_map else max_steps,
        norm=norm,
        look_every=look_every,
        retire=retire_as,
    )
    if name == "root" and not isinstance(chosen, NewtonMethod):
        stop.relative = _core.Relative.to_residual
    resolved_rtol = _RESOLVED_RTOL[dtype](stop)
    needed = width + 1 + products_before
    if isinstance(chosen, Direct) and stop.max_steps < needed and width <= chosen.max_width:
        raise ValueError(
            f"max_steps: {stop.max_steps} given; Direct() on rows of width {width} needs at least {needed}: a product "
            f"per column, and {needed - width} for residuals"
        )
    one_step = width + 2
    if isinstance(chosen, Newton) and stop.max_steps < one_step and width <= chosen.max_width:
        raise ValueError(
            f"max_steps: {stop.max_steps} given; Newton() on rows of width {width} needs at least {one_step}: an "
            f"evaluation, a product per column, and an evaluation of the step"
        )
    if isinstance(chosen, Neumann) and stop.max_steps < chosen.k - 1:
        raise ValueError(f"max_steps: {stop.max_steps} given; {chosen!r} takes {chosen.k - 1} products")
    return Options(
        chosen,
        None if isinstance(chosen, SHINE) else native_of(chosen),
        stop,
        Tolerances(resolved_rtol, stop.atol, stop.max_steps, stop.norm.name, relative_to),
        retire_word,
        stop.max_steps if flag(trace, "trace") else 0,
        None if threads is None else threads_named(threads),
    )


_remembered = lru_cache(maxsize=256, typed=True)(_check_options)  # typed: 1, 1.0 and True are equal, yet not the same
_PLAIN = {type(None), bool, int, float, str, *map(type, BY_NAME.values())}


def is_plain(given: tuple[Any, ...]) -> bool:
    """Whether options can be remembered: nothing among them that changes, or that is worth its memory."""
    return _PLAIN.issuperset(map(type, given))


def options_of(about: tuple[Any, ...], *given: Any) -> Options:
    """The options, checked, or as they were checked before. ``about``: the solve; ``given``: what the user wrote."""
    if is_plain(given):
        return _remembered(*about, *given)
    return _check_options(*about, *given)


class Setup:
    """A solve about to start: its options checked, its report and its result made."""

    frames = 4  # from a warning up to the caller

    def __init__(
        self,
        name: str,
        state: State,
        *,
        retire_by_default: bool,
        relative_to: str,
        method: Any,
        rtol: Any,
        atol: Any,
        max_steps: Any,
        norm: Any,
        look_every: Any,
        retire: Any,
        trace: Any,
        threads: Any,
        on_failure: Any,
        products_before: int = 0,  # spent on a starting point
    ) -> None:
        look_every = state.door.look_every if look_every is None else look_every
        options = options_of(
            (name, relative_to, state.dtype, state.width, retire_by_default, products_before),
            *(method, rtol, atol, max_steps, norm, look_every, retire, trace, threads, on_failure),
        )
        self.name, self.state, self.options, self.on_failure = name, state, options, on_failure
        self.chosen, self.stop = options.chosen, options.stop
        self.threads = options.threads or _core.num_threads()
        self.report = Report(state.door, state.rows, options.trace_steps)
        if self.report.trace is not None and isinstance(self.chosen, Approximate):
            self.report.trace[...] = math.nan  # they measure nothing
        self.value = state.door.empty(state.shape, state.dtype)
        self.result = self.value if len(state.shape) == 2 else self.value.reshape(state.block.shape)

    def dialogue(self, *form: Any) -> tuple[Any, Any]:
        """A solver and its scratch. ``form``: what its kind takes besides."""
        state = self.state
        rows, width = state.block.shape
        family = "adjoint" if self.name == "tangent" else "fixed_point" if self.name == "root" else self.name
        if isinstance(self.chosen, NewtonMethod):
            family = "continuation" if isinstance(self.chosen, Homotopy) else "newton"
        options = (self.options.native, self.stop, *form)
        made: tuple[Any, Any] = state.door.solver(family, state.dtype, rows, width, state.shape, options, self.threads)
        return made

    def finish(
        self,
        counts: Any,
        scratch_bytes: int,
        copies: int = 0,
        failed: int | None = None,
        error: Any = None,
        warm: Any = None,
        path: Any = None,
    ) -> Solution:
        """The solution; raises or warns about it if it is not one. ``failed``: rows without one, if already known."""
        report, options = self.report, self.options
        rows = report.residual, report.scale, report.status, report.steps, report.rejected, report.singular
        arrays = self.state.door.all_outward((self.value, *rows, report.measured(), error))
        value, residual, scale, status, steps, rejected, singular, trace, error = arrays
        solution = Solution._of(
            value=value,
            residual=residual,
            scale=scale,
            status=status,
            steps=steps,
            rejected=rejected,
            singular=singular,
            nfe=counts.questions - counts.products,
            rows_asked=counts.rows_asked,
            tolerances=options.tolerances,
            retire=options.retire,
            copies=copies,
            scratch_bytes=scratch_bytes,
            trace=trace,
            error=error,
            warm=warm,
            _method=self.chosen.name,
            _solver=self.name,
            products=counts.products,
            path=path,
        )
        if self.on_failure != "return" and (report.failed() if failed is None else failed):
            complain(solution, self.name, self.on_failure, self.frames)
        return solution


def converse(
    solver: Any,
    scratch: np.ndarray,
    state: State,
    bind: Callable[[int, np.ndarray], Callable[[np.ndarray], Any]],
    what: str | Callable[[], str],
    callback: Callable[[Progress], Any] | None,
    look_every: int,
    bind_preconditioner: Callable[[int, np.ndarray], Callable[[np.ndarray], Any]] | None = None,
) -> int:
    """Answer a solver's questions until there are none; -> answers that had to be copied.

    ``bind(count, rows)`` gives the call that answers questions about these rows; it is made anew when rows leave. With
    ``bind_preconditioner``, every question but the first is put to that call before, whose answer is then asked about.
    """
    door, dtype = state.door, state.dtype
    name = what if callable(what) else lambda: what

    def reshape() -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None, Callable[[Any], int], Any, Any]:
        count, at = solver.count, solver.question_offset
        both_blocks = solver.block_offset(0) + solver.block_offset(1)
        shape = state.question_shape(count)
        rows = door.view(scratch, solver.rows_offset, (count,), np.int32).copy()
        question, other = (door.view(scratch, place, shape, dtype) for place in (at, both_blocks - at))
        asked = door.outward(question), door.outward(other)
        precondition = bind_preconditioner(count, rows) if bind_preconditioner else None
        return bind(count, rows), precondition, door.answers(solver, scratch, shape, dtype), *asked

    copies = steps = 0

    def hand_over(answer: Any, what: str) -> int:  # in place, or copied
        nonlocal copies
        reply = advance(answer)
        if reply == _REFUSED:
            copies += 1
            reply = advance(door.accept(answer, state.question_shape(solver.count), dtype, what))
            if reply == _REFUSED:
                raise RuntimeError(f"{what} returned {describe(answer)}; its copy was refused: a defect of deqcore")
        return reply

    call, precondition, advance, question, other = reshape()
    asked_before = False
    while True:
        if precondition is not None and asked_before:
            hand_over(precondition(question), "preconditioner")
        asked_before = True
        answer = call(question)
        reply = advance(answer)
        if reply == _REFUSED:
            reply = hand_over(answer, name())
        if callback is not None:
            steps += 1
            if (reply == _DONE or steps % look_every == 0) and _wants_to_stop(callback, steps, solver):
                solver.cancel()
                return copies
        if reply == _FLIPPED:
            question, other = other, question
        elif reply == _RESHAPED:
            call, precondition, advance, question, other = reshape()
        else:
            return copies


def _wants_to_stop(callback: Callable[[Progress], Any], steps: int, solver: Any) -> bool:
    try:
        callback(Progress(steps, *solver.progress))
    except StopIteration:
        return True
    return False


def check_success(solution: Solution, on_failure: str, frames: int) -> Solution:
    """A native solve's solution; raises or warns about it if it is not one."""
    if not solution.success and on_failure != "return":
        complain(solution, solution._solver, on_failure, frames + 1)
    return solution


def complain(solution: Solution, name: str, on_failure: str, frames: int) -> None:
    ended = [Status(code) for code in np.unique(to_host(solution.status))]
    failures = [status.name for status in ended if status < 0 and status is not Status.cancelled]
    if not failures:
        return
    if on_failure == "raise":
        raise ConvergenceError(
            f"{solution.message}. The best points are in this exception's .solution; .solution.explain() says what to "
            f"try; on_failure='return' or 'warn' does not raise",
            solution,
        )
    # Without counts, so that Python's filter shows it once per cause and call site.
    warnings.warn(
        f"{name}: rows ended as {', '.join(failures)}; see the solution's status and explain()",
        ConvergenceWarning,
        stacklevel=frames,
    )
