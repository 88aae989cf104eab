# SPDX-License-Identifier: Apache-2.0
"""Fixed points z = f(z), one per row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._arrays import Array, door_for
from ._continuation import parted, solve_path
from ._dialogue import (
    Setup,
    State,
    check_args,
    check_row_args,
    check_scale,
    check_state,
    check_success,
    converse,
    gathered,
)
from ._ladder import climb, default_ladder, first_share, is_ladder, placed, rungs_of
from ._methods import Homotopy, Method, NewtonMethod, native_of, resolve_method
from ._newton import check_jvp, own_product, solve_newton
from ._options import bounded, check_callback, check_on_failure, flag, integer, keyword_options, refuse_unknown
from ._path import Path
from ._solution import Callback, Solution
from ._warm import (
    History,
    Warm,
    check_history,
    check_ids,
    check_keep,
    check_remembers,
    check_warm,
    history_places,
    kept,
    starting_points,
)
from .maps import Dense

__all__ = ["fixed_point", "scratch_bytes"]


def fixed_point(
    f: Callable[..., Any] | Dense,
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
    warm: Warm | None = None,
    ids: Any = None,
    keep: str | None = None,
    look_every: int | None = None,
    retire: bool | str | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    threads: int | None = None,
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Find z with f(z) = z, one fixed point per row, each row with its own stop and status.

    A row has converged when \\|f(z) - z\\| <= atol + rtol min(\\|f(z)\\|, 10 S0), or <= 4 eps S0, where S0 is
    max(\\|z0\\|, \\|f(z0)\\|) or ``scale``. The answer is the point whose residual was measured, never one beyond it. A
    row's result does not depend on the other rows, on ``look_every``, on ``retire`` or on ``threads``, to the last bit,
    as far as the map's own rows do not.

    What a relative tolerance cannot see: a map without a fixed point whose step is small against its point passes,
    such as z + 1 from z0 = 1e6 at rtol 1e-5, and one whose step tends to zero on the way to infinity, such as
    sqrt(z^2 + 1). Where that matters, give ``scale``, what steps are to be compared with. A residual that is smaller
    than the rounding of f(z) cannot be seen either: where the tolerance asks for that, rows end as ``stalled``.

    Args:
        f: the map, called ``f(z, *args, *row_args)`` with z of shape ``(active, ...)``, a view that is valid until the
            next call and must not be written (NumPy's cannot be); returns an array of the same shape and dtype. Or a
            native map (:mod:`deqcore.maps`), which is solved without Python.
        z0: starting points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row. Never written. A NumPy
            array is solved on the CPU, a CuPy array on its GPU.
        args: passed to f whole.
        row_args: arrays with one entry per row, passed to f gathered to the rows asked about.
        pass_rows: also pass ``rows=``, the int32 indices of the rows asked about.
        method: :class:`Anderson`, :class:`AndersonTypeI`, :class:`Broyden`, :class:`Picard`, :class:`NewtonKrylov`,
            :class:`Newton`, :class:`Homotopy`, or a name; or a list of them, a ladder: rows that the first did not
            solve go on under the next from their best points, held against the same scale, each method with an equal
            share of the steps that are left. None is :class:`Anderson`, and for rows that it did not solve
            :class:`Broyden` and NewtonKrylov(restart=20), unless a history is kept or gone on with. Where rows cannot
            be asked about alone (see ``retire``), one failed row has the whole batch asked about again.
        jvp: for Newton's methods: products J(z) v with J = df/dz, called ``jvp(z, v, *args, *row_args)`` with v shaped
            like z; None is differences of f. A native map has its own.
        rtol: relative tolerance, at least 4 eps; None is sqrt(eps) of the dtype.
        atol: absolute tolerance in the units of the norm, at least 0.
        max_steps: most map evaluations per row, products counted too. None is 200; for :class:`Newton` 100 (width + 1),
            for :class:`NewtonKrylov` 50 (min(width, restart) + 2), for :class:`Homotopy` what its linear systems may
            need; for each of a ladder's methods as much, but at most 1000 for a rescue that was not asked for.
        norm: 2 or ``math.inf``, over each row.
        scale: S0 in place of the measured one: a number, or one per row.
        warm, ids, keep: start from an earlier solve's :class:`Warm`, rows matched by position or by ``ids``, one
            integer per row; rows that it does not know start at z0. ``keep="state"`` returns a new one as
            ``Solution.warm``; ``keep="history"`` one that also holds what the method remembered of each row, with which
            a solve by the same method and options goes on. A row whose first residual is above 0.3 S0 forgets it.
        look_every: steps between two looks at the progress; None is 1 on the CPU, 4 on a GPU, where a look waits.
        retire: whether rows that have ended are no longer asked about: True, False, ``"halve"`` (the block only shrinks
            to powers of two, for maps compiled per shape). None is True where that is safe: ``row_args`` or
            ``pass_rows`` is given, or the map is native.
        trace: record every residual in ``Solution.trace``.
        callback: called with a :class:`Progress` at each look; raising ``StopIteration`` ends the solve with status
            ``cancelled``.
        threads: most threads; None is :func:`deqcore.num_threads`.
        stream: for arrays on a GPU, the CUDA stream that the solve and its map work on: an address, or an object with
            ``__cuda_stream__``. None is CuPy's current one; arrays of other libraries need it named. See
            docs/devices.md.
        on_failure: ``"raise"``, ``"warn"`` or ``"return"`` when a row has no solution.

    Returns:
        A :class:`Solution`; ``value`` has the shape and dtype of z0.

    Raises:
        ConvergenceError: a row did not converge and ``on_failure`` is ``"raise"``; it carries the whole solution.
        TypeError: an argument of the wrong kind or dtype, an unknown option, a map that does not return an array.
        ValueError: an argument out of range or of the wrong shape, or not finite.
        Exception: whatever f raises, unchanged.

    Sources: Anderson 1965, J. ACM 12; Walker and Ni 2011, SIAM J. Numer. Anal. 49; Bai, Kolter and Koltun 2019,
    "Deep Equilibrium Models".

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> W = rng.standard_normal((64, 64)) * 0.05
        >>> x = rng.standard_normal((8, 64))
        >>> solution = deqcore.fixed_point(lambda z, x: np.tanh(z @ W.T + x), np.zeros((8, 64)), row_args=(x,))
        >>> solution.success, bool(np.allclose(solution.value, np.tanh(solution.value @ W.T + x), atol=1e-6))
        (True, True)
    """
    if unknown:
        refuse_unknown("fixed_point", unknown, _OPTIONS)
    if not callable(f):
        raise TypeError(f"f: {f!r} given; expected a callable or a map from deqcore.maps")
    how = method, rtol, atol, max_steps, norm, look_every, retire, threads, on_failure
    before = None
    if (
        isinstance(f, Dense)
        and type(args) is tuple
        and not args
        and (pass_rows is False and trace is False)
        and (jvp is None and scale is None and callback is None and stream is None)
        and (warm is None and ids is None and keep is None)
    ):
        before = f._solve_prepared(z0, row_args, how)
        if before is not None and before.success:
            return before
        if before is not None and method is not None:  # with None there is a rescue that nobody asked for
            return check_success(before, on_failure, 3)
    return _fixed_point(
        f, z0, args, row_args, pass_rows, jvp, scale, warm, ids, keep, trace, callback, stream, before, *how
    )


def _fixed_point(
    f: Any,
    z0: Any,
    args: Any,
    row_args: Any,
    pass_rows: Any,
    jvp: Any,
    scale: Any,
    warm: Any,
    ids: Any,
    keep: Any,
    trace: Any,
    callback: Any,
    stream: Any,
    before: Solution | None,
    method: Any,
    rtol: Any,
    atol: Any,
    max_steps: Any,
    norm: Any,
    look_every: Any,
    retire: Any,
    threads: Any,
    on_failure: Any,
) -> Solution:
    """Check, solve and finish. ``before``: what a native solve has done already, and did not end well."""
    door = door_for(z0, "z0", stream)
    with door.on_stream():
        state = check_state(z0, "z0", door=door)
        check_args(args, row_args)
        check_callback(callback)
        check_jvp(jvp, f, method)
        pass_rows = flag(pass_rows, "pass_rows")
        scales = check_scale(scale, state.rows)
        keys = check_ids(ids, state.rows)
        check_warm(warm, keys, state, like="z0")
        keeping = check_keep(keep, history=True)
        given = row_args

        def by_ladder(rungs: list[Method], before: Solution | None = None, frames: int = 7) -> Solution:
            options = {"rtol": rtol, "atol": atol, "norm": norm, "look_every": look_every, "trace": trace}
            options |= {"callback": callback, "threads": threads, "stream": stream, "retire": retire, "args": args}
            warmth = _Warmth(warm, keys, keeping)
            rest = max_steps, on_failure, options | {"jvp": jvp}, warmth, before, frames
            return _by_ladder(f, state, given, pass_rows, scales, rungs, *rest)

        if before is not None:
            return by_ladder(default_ladder("fixed_point")[1:], before)
        if is_ladder(method):
            return by_ladder(rungs_of(method, "fixed_point"))
        own = None
        if isinstance(method, Homotopy):
            method, own = parted(method)
        steps = max_steps
        if method is None and max_steps is not None:
            steps = first_share(bounded(max_steps, "max_steps"))
        setup = Setup(
            "fixed_point",
            state,
            retire_by_default=isinstance(f, Dense) or bool(row_args) or pass_rows,
            relative_to="image",
            method=method,
            rtol=rtol,
            atol=atol,
            max_steps=steps,
            norm=norm,
            look_every=look_every,
            retire=retire,
            trace=trace,
            threads=threads,
            on_failure=on_failure,
        )
        first = starting_points(warm, keys, state, otherwise=state.block)
        start = state.block if first is None else first
        check_history(warm, setup.chosen)
        going_on = first is not None and warm is not None and warm.history is not None
        words = check_remembers(setup.chosen, state.width, state.dtype) if going_on or keeping == "history" else 0
        history = history_places(warm, keys, state, words) if going_on and warm is not None else (None, None)
        memory = door.xp.zeros((state.rows, words), np.int64) if keeping == "history" else None
        setup.frames = 6
        rescues = method is None and keeping != "history" and (warm is None or warm.history is None)
        if rescues:
            setup.on_failure = "return"

        def handle() -> Warm | None:
            if keeping is None:
                return None
            learnt = None if memory is None else History(setup.chosen, memory)
            return kept(setup.value, warm, keys, state, setup.report.status, learnt)

        def finish(
            counts: Any, held: int, copies: int = 0, failed: int | None = None, path: Path | None = None
        ) -> Solution:
            solution = setup.finish(counts, held, copies, failed, warm=handle(), path=path)
            if rescues and (setup.report.failed() if failed is None else failed):
                return by_ladder(default_ladder("fixed_point")[1:], solution, 8)
            return solution

        continued = isinstance(setup.chosen, Homotopy)
        if isinstance(f, Dense):
            injection = f._injection(args, row_args, pass_rows, state, "z0")
            if callback is None and not continued:
                remembered = (*history, memory) if going_on or memory is not None else ()
                return finish(*f._solve(setup, start, injection, scales, remembered))
            row_args = (f._per_row(injection, state),)
        row_data = check_row_args(row_args, state)
        call: Callable[..., Any] = partial(f._value_of, threads=setup.threads) if isinstance(f, Dense) else f
        if isinstance(setup.chosen, NewtonMethod):
            product = partial(f._product_of, product="jvp", threads=setup.threads) if isinstance(f, Dense) else jvp
            product = product or own_product(f)
            if continued:
                path = solve_path(setup, start, call, product, own, args, row_data, pass_rows, scales, callback)
                return finish(*path)
            ended = solve_newton(setup, start, call, product, args, row_data, pass_rows, scales, callback)
            return finish(*ended)

        def bind(count: int, rows: Any) -> Callable[[Any], Any]:
            own = gathered(row_data, count, rows, state)
            if pass_rows:
                return lambda z: call(z, *args, *own, rows=door.outward(rows))
            if args or own:
                return lambda z: call(z, *args, *own)
            return call

        solver, scratch = setup.dialogue()
        operands = map(door.operand, (start, setup.result))
        own_scales = door.scales(scales)  # a name: a device still reads it
        solver.start(*operands, setup.report.native, door.operand(own_scales))
        if history[0] is not None:
            solver.load(*map(door.operand, history))
        copies = converse(solver, scratch, state, bind, "f", callback, setup.stop.look_every)
        if memory is not None:
            solver.save(door.operand(memory))
        return finish(solver.counts, scratch.nbytes, copies, solver.failed)


@dataclass(frozen=True)
class _Warmth:
    """How a ladder starts and what it hands over."""

    warm: Warm | None
    ids: np.ndarray | None
    keep: str | None


def _by_ladder(
    f: Any,
    state: State,
    row_args: tuple[Any, ...],
    pass_rows: bool,
    scales: Any,
    rungs: list[Method],
    max_steps: Any,
    on_failure: Any,
    options: dict[str, Any],
    warmth: _Warmth,
    before: Solution | None,
    frames: int,
) -> Solution:
    """Every rung is a solve of its own."""
    check_on_failure(on_failure)
    if warmth.keep == "history" or (warmth.warm is not None and warmth.warm.history is not None):
        raise ValueError(
            "method: a ladder given with a history to keep or to go on with; expected one method, or keep='state' and "
            "Warm(handle.value, handle.ids)"
        )
    first = starting_points(warmth.warm, warmth.ids, state, otherwise=state.block)
    if first is not None:
        state = state._replace(block=first)

    def with_handle(total: Solution) -> Solution:
        if warmth.keep is None:
            return total
        value, status = state.door.inward(total.value), state.door.inward(total.status)
        return replace(total, warm=kept(value, warmth.warm, warmth.ids, state, status))

    door, native = state.door, isinstance(f, Dense)
    if native:
        row_args = (f._per_row(f._injection(options["args"], row_args, pass_rows, state, "z0"), state),)

    def solve(start: Any, rows: Any, own: tuple[Any, ...], rung: Method, share: int, known: Any) -> Solution:
        call, product = f, options["jvp"]
        if pass_rows and rows is not None:
            call, product = placed(f, rows, door), product and placed(product, rows, door)

        return fixed_point(
            call,
            start,
            row_args=own,
            pass_rows=pass_rows,
            method=rung,
            max_steps=share,
            scale=scales if known is None else known,
            on_failure="return",
            **options | {"jvp": product if isinstance(rung, NewtonMethod) else None},
        )

    apart = native or bool(row_args) or pass_rows or options["retire"] not in (None, False)
    steps = None if max_steps is None else bounded(max_steps, "max_steps")
    return climb(solve, rungs, state, row_args, apart, steps, on_failure, "fixed_point", with_handle, frames, before)


_OPTIONS = keyword_options(fixed_point)


def scratch_bytes(
    rows: int, width: int, dtype: Any = np.float32, *, method: Method | str | None = None, jvp: bool = False
) -> int:
    """Exactly how many bytes :func:`fixed_point` holds beside its result while it iterates on a callable.

    Args:
        rows: samples in the batch.
        width: elements of one sample's state.
        dtype: float32 or float64.
        method: as for :func:`fixed_point`.
        jvp: whether Newton's methods are given products, or take differences.

    Returns:
        Bytes; a solve reports the same number in ``Solution.scratch_bytes``.

    Raises:
        TypeError, ValueError: an argument is not one of these.

    Example:
        >>> import deqcore
        >>> deqcore.scratch_bytes(64, 512, "float32", method="picard") // (64 * 512 * 4)
        2
    """
    try:
        resolved = np.dtype(dtype)
    except TypeError:
        resolved = None
    if resolved not in (np.float32, np.float64):
        raise TypeError(f"dtype: {dtype!r} given; expected float32 or float64")
    chosen = resolve_method(method, "fixed_point")
    shape = integer(rows, "rows"), integer(width, "width")
    single, differences = resolved == np.float32, not flag(jvp, "jvp")
    if isinstance(chosen, Homotopy):
        path = _core.FollowPath32 if single else _core.FollowPath64
        differences = differences if isinstance(chosen.H, str) else chosen.jvp is None
        form = differences, chosen.rate is None, True
        return int(path.scratch_bytes(*shape, native_of(parted(chosen)[0]), _core.Stop(), *form))
    if isinstance(chosen, NewtonMethod):
        newton = _core.NewtonSolve32 if single else _core.NewtonSolve64
        return int(newton.scratch_bytes(*shape, native_of(chosen), _core.Stop(), False, differences))
    kind = _core.FixedPoint32 if single else _core.FixedPoint64
    return int(kind.scratch_bytes(*shape, native_of(chosen), _core.Stop()))
