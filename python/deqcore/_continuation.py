# SPDX-License-Identifier: Apache-2.0
"""Continuation: paths from an equation that is solved to z = f(z), and the differential equation that they obey."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np

from ._arrays import Array, describe, door_for
from ._dialogue import Setup, check_args, check_row_args, check_scale, check_state, converse, gathered
from ._linear import linear_solve
from ._methods import Homotopy, Tracker, resolve_method
from ._newton import own_product
from ._options import check_callback, flag, keyword_options, refuse_unknown
from ._path import Path, Recording
from ._solution import Callback, Solution
from ._splitting import Monotone
from .maps import Dense

__all__ = ["Davidenko", "davidenko", "follow", "parted", "solve_path"]


def parted(method: Homotopy) -> tuple[Homotopy, Homotopy | None]:
    """-> the method without the caller's functions, and the method with them if it has any."""
    if isinstance(method.H, str):
        return method, None
    return Homotopy(_own, tracker=method.tracker), method


def _own(*data: Any) -> NoReturn:
    raise RuntimeError("an own homotopy is asked about by the method that holds it: a defect of deqcore")


def solve_path(
    setup: Setup,
    start: Any,
    f: Callable[..., Any] | None,
    jvp: Callable[..., Any] | None,
    own: Homotopy | None,
    args: tuple[Any, ...],
    row_data: tuple[Any, ...],
    pass_rows: bool,
    scales: Any,
    callback: Callback | None,
    record: Any = False,
    components: Any = None,
    jacobian: Callable[..., Any] | None = None,
) -> tuple[Any, int, int, int, Path]:
    """Answer the questions of a continuation; without products they are differences.

    -> counts, bytes of scratch, copies, rows that failed, the paths.
    """
    state = setup.state
    door = state.door
    recording = Recording(state, record, components)
    differences = jvp is None and jacobian is None if own is None else own.jvp is None
    rate_differences = own is None or own.rate is None
    solver, scratch = setup.dialogue(differences, rate_differences, f is not None)

    def bind(count: int, rows: Any) -> Callable[[Any], Any]:
        data = args + gathered(row_data, count, rows, state)
        named = {"rows": door.outward(rows)} if pass_rows else {}
        shape = state.question_shape(count)
        if solver.about_path:
            assert own is not None  # nobody else's questions have a time
            times = door.view(scratch, solver.times_offset, (count,) + (1,) * (len(shape) - 1), np.float64)

            def lam() -> Any:
                return door.outward(times.astype(state.dtype))

            if solver.about_rate:
                assert own.rate is not None
                return lambda z: own.rate(z, lam(), *data, **named)  # type: ignore[misc]
            if solver.about_value:
                return lambda z: own.H(z, lam(), *data, **named)
            at = door.outward(door.view(scratch, solver.points_offset, shape, state.dtype))
            return lambda v: own.jvp(at, lam(), v, *data, **named)  # type: ignore[misc]
        if solver.about_value:
            assert f is not None
            return lambda z: f(z, *data, **named)
        at = door.outward(door.view(scratch, solver.points_offset, shape, state.dtype))
        if jacobian is None:
            assert jvp is not None
            return lambda v: jvp(at, v, *data, **named)
        whole = (count, state.width, state.width)
        known: list[Any] = []  # asked for once per linear system

        def product(v: Any) -> Any:
            if not known:
                known.append(door.accept(jacobian(at, *data, **named), whole, state.dtype, "jacobian"))
            flat = door.inward(v).reshape(count, state.width, 1)
            return door.outward((known[0] @ flat).reshape(shape))

        return product

    def asked() -> str:
        if solver.about_path:
            return "rate" if solver.about_rate else "H" if solver.about_value else "jvp"
        return "f" if solver.about_value else "jvp"

    operands = map(door.operand, (start, setup.result))
    own_scales = door.scales(scales)  # a name: a device still reads it
    solver.start(*operands, setup.report.native, recording.native, door.operand(own_scales))
    copies = converse(solver, scratch, state, bind, asked, callback, setup.stop.look_every)
    verifies = f is not None
    told = "" if own is None else "H and f were" if verifies else "H was"
    path = recording.path(setup.report.status, verifies, told)
    return solver.counts, scratch.nbytes, copies, solver.failed, path


def follow(
    f: Callable[..., Any] | Dense | None,
    z0: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    homotopy: Any = "fixed_point",
    tracker: Any = None,
    jvp: Callable[..., Any] | None = None,
    jacobian: Callable[..., Any] | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int | None = None,
    norm: Any = 2,
    scale: Any = None,
    record: bool | int = False,
    components: Any = None,
    retire: bool | str | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    threads: int | None = None,
    stream: Any = None,
    on_failure: str = "raise",
    **unknown: NoReturn,
) -> Solution:
    """Find z with f(z) = z by following a path H(z, lam) = 0 from lam = 0 to 1, each row its own.

    For rows that iteration and Newton's method do not solve: with the fixed-point homotopy H = z - lam f(z) -
    (1 - lam) z0 and a bounded f, the path of almost every z0 reaches lam = 1. Where f is a contraction there is
    nothing to be gained. A row has converged as in :func:`fixed_point`, by the residual f(z) - z of what is returned.

    Steps along the arclength are measured in the units of z, and lam goes from 0 to 1 whatever they are. So the work is
    not the same in other units: a solution much larger than the start's scale, and much larger than 1, takes linear
    systems in proportion to its distance, unless z is scaled so that it travels about 1, or
    ``Tracker(first_step=, most_step=)`` are given in its units. Natural steps, which are in lam, do not depend on it.

    Args:
        f: the map, called ``f(z, *args, *row_args)`` as in :func:`fixed_point`; or a native map. None only with a
            homotopy of your own: then \\|H(z, 1)\\| is the residual, and nothing else verifies the end points.
        z0: starting points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row. Never written.
        args, row_args, pass_rows: as for :func:`fixed_point`; an own homotopy gets them too.
        homotopy: ``"fixed_point"``, ``"newton"`` (H = r(z) - (1 - lam) r(z0), which promises nothing), a
            :class:`Homotopy`, or a callable H(z, lam, ...), differentiated by differences.
        tracker: ``"arclength"``, ``"natural"`` or a :class:`Tracker`; None is that of the homotopy, or arclength.
        jvp: products J(z) v with J = df/dz, as for :func:`fixed_point`; None is differences of f.
        jacobian: J itself, in place of jvp: called ``jacobian(z, *args, *row_args)``, returns ``(active, width,
            width)`` with the rows' elements flattened; asked for once per linear system.
        rtol, atol, norm, scale, retire, trace, callback, threads, stream, on_failure: as for :func:`fixed_point`.
        max_steps: most evaluations and products per row; None is what ``Tracker.max_solves`` linear systems may need.
        record: keep every evaluation for ``Solution.path.points``: True, or the most entries per row (True is 4096).
        components: places of the flattened z to record; None is all.

    Returns:
        A :class:`Solution`, whose ``path`` is a :class:`Path`: why each row ended, its folds, its linear systems.
        ``rejected`` counts steps given up, ``singular`` linear systems without a useful solution.

    Raises:
        ConvergenceError: a row did not converge and ``on_failure`` is ``"raise"``; it carries the whole solution.
        TypeError, ValueError: as for :func:`fixed_point`.
        Exception: whatever f raises, unchanged.

    Sources: Keller 1977; Chow, Mallet-Paret and Yorke 1978, Math. Comp. 32; Allgower and Georg 1990, "Numerical
    Continuation Methods"; Ding, Cui, Wang and Shi 2023, NeurIPS.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> W, b = 4.0 * rng.standard_normal((20, 20)) / np.sqrt(20), rng.standard_normal((3, 20))
        >>> f = lambda z, b: np.tanh(z @ W.T + b)
        >>> solution = deqcore.follow(f, np.zeros((3, 20)), row_args=(b,))
        >>> solution.success, bool(np.allclose(solution.value, f(solution.value, b), atol=1e-6))
        (True, True)
    """
    if unknown:
        refuse_unknown("follow", unknown, _OPTIONS)
    method = _method(homotopy, tracker)
    plain, own = parted(method)
    if not callable(f) and (f is not None or own is None):
        raise TypeError(f"f: {f!r} given; expected a callable or a map from deqcore.maps")
    _check_products(f, jvp, jacobian, own)
    door = door_for(z0, "z0", stream)
    with door.on_stream():
        state = check_state(z0, "z0", door=door)
        check_args(args, row_args)
        check_callback(callback)
        pass_rows = flag(pass_rows, "pass_rows")
        scales = check_scale(scale, state.rows)
        native = isinstance(f, Dense)
        setup = Setup(
            "follow",
            state,
            retire_by_default=native or bool(row_args) or pass_rows,
            relative_to="image",
            method=plain,
            rtol=rtol,
            atol=atol,
            max_steps=max_steps,
            norm=norm,
            look_every=None,
            retire=retire,
            trace=trace,
            threads=threads,
            on_failure=on_failure,
        )
        call, product = f, jvp or (own_product(f) if jacobian is None else None)
        if isinstance(f, Dense):
            injection = f._injection(args, row_args, pass_rows, state, "z0")
            row_args = (f._per_row(injection, state),)
            args, pass_rows = (), False
            call = partial(f._value_of, threads=setup.threads)
            product = partial(f._product_of, product="jvp", threads=setup.threads)
        row_data = check_row_args(row_args, state)
        ended = solve_path(
            *(setup, state.block, call, product, own, args, row_data, pass_rows, scales, callback),
            *(record, components, jacobian),
        )
        return setup.finish(*ended[:4], path=ended[4])


_OPTIONS = keyword_options(follow)


def _method(homotopy: Any, tracker: Any) -> Homotopy:
    """What ``homotopy=`` and ``tracker=`` say together."""
    if tracker is not None and not isinstance(tracker, (str, Tracker)):
        raise TypeError(f"tracker: {tracker!r} given; expected a deqcore.Tracker, 'arclength' or 'natural'")
    if isinstance(homotopy, Homotopy):
        if tracker is None:
            return homotopy
        return Homotopy(homotopy.H, tracker=tracker, jvp=homotopy.jvp, rate=homotopy.rate)
    named = isinstance(homotopy, str) and homotopy in ("fixed_point", "newton")
    if not named and not callable(homotopy):
        wrong = ValueError if isinstance(homotopy, str) else TypeError
        raise wrong(f"homotopy: {homotopy!r} given; expected 'fixed_point', 'newton', a deqcore.Homotopy or a callable")
    return Homotopy(homotopy, tracker="arclength" if tracker is None else tracker)


def _check_products(f: Any, jvp: Any, jacobian: Any, own: Homotopy | None) -> None:
    """Refuse products that nothing would ask for."""
    for what, given in (("jvp", jvp), ("jacobian", jacobian)):
        if given is None:
            continue
        if not callable(given):
            raise TypeError(f"{what}: {given!r} given; expected a callable, or None for differences")
        if isinstance(f, (Dense, Monotone)):
            raise ValueError(f"{what}: given with {f!r}; expected None: this map has its own products")
        if own is not None:
            raise ValueError(f"{what}: given with a homotopy of your own; expected deqcore.Homotopy(H, jvp=...)")
    if jvp is not None and jacobian is not None:
        raise ValueError("jacobian: given beside jvp; expected one of them")


class Davidenko:
    """The field dz/dlam of a homotopy, made by :func:`davidenko`; see there.

    Attributes:
        nfe: times f was called so far, by differences too.
        linear_solves: times a linear system was solved, for all rows asked about.

    Example:
        >>> import numpy as np, deqcore
        >>> field = deqcore.davidenko(np.cos, np.zeros((2, 1)))
        >>> isinstance(field, deqcore.Davidenko), field(0.0, np.zeros((2, 1))).tolist()
        (True, [[1.0], [1.0]])
    """

    def __init__(
        self, f: Any, state: Any, jvp: Any, homotopy: str, method: Any, rtol: Any, args: Any, rows: Any
    ) -> None:
        """Use :func:`davidenko`."""
        self._f, self._state, self._jvp, self._homotopy = f, state, jvp, homotopy
        self._method, self._rtol, self._args, self._row_args = method, rtol, args, rows
        self._z0 = state.door.contiguous(state.block).copy().reshape(state.shape)
        self._r0: Any = None
        self.nfe = self.linear_solves = 0

    def __call__(self, t: Any, z: Array, *, rows: Any = None) -> Array:
        """The field at lam = t.

        Args:
            t: lam: a number, or one per row of z, flat or shaped to broadcast against z, as :func:`odeint` gives it.
            z: points, of the dtype and row shape of z0.
            rows: which rows of z0 these are, where z does not hold all of them: ``odeint(..., pass_rows=True)``.

        Returns:
            dz/dlam, shaped like z.

        Raises:
            ConvergenceError: the linear system of a row was not solved: the path may have a fold there.
            TypeError, ValueError: z or t does not fit z0.

        Example:
            >>> import numpy as np, deqcore
            >>> field = deqcore.davidenko(lambda z: 0.5 * z + 1.0, np.zeros((1, 2)))
            >>> field(1.0, np.full((1, 2), 2.0)).round(6).tolist()
            [[4.0, 4.0]]
        """
        door, whole = self._state.door, self._state
        state = check_state(z, "z", door=door)
        places = None if rows is None else door.xp.asarray(door.inward(rows, "rows"))
        if places is not None and (places.ndim != 1 or places.dtype.kind not in "iu"):
            raise TypeError(f"rows: {describe(rows)} given; expected integers, a place in z0 for each row of z")
        if places is not None and bool(((places < 0) | (places >= whole.rows)).any()):
            raise ValueError(f"rows: {describe(rows)} given; expected places from 0 to {whole.rows - 1}")
        if len(whole.shape) == 1:
            places = None  # its only row, without an axis of rows
        expected = whole.shape if places is None else (len(places), *whole.shape[1:])
        if state.shape != expected or state.dtype != whole.dtype:
            raise ValueError(f"z: {describe(z)} given; expected shape {expected} and dtype {whole.dtype}")
        z0 = self._z0 if places is None else door.take(self._z0, places)
        data = self._args + gathered_all(self._row_args, places, door)
        ones = (1,) * (len(state.shape) - 1)
        if t is None or isinstance(t, (str, bytes, bool, np.bool_)):
            raise TypeError(f"t: {describe(t)} given; expected a number, or one per row of z")
        lam = door.xp.asarray(door.inward(t, "t"))
        if lam.dtype.kind not in "fiu":
            raise TypeError(f"t: {describe(t)} given; expected a number, or one per row of z")
        lam = lam.astype(state.dtype)
        if not bool(door.xp.isfinite(lam).all()):
            raise ValueError(f"t: {describe(t)} given; expected finite numbers")
        if lam.ndim:
            spread = (state.rows, *ones) if len(state.shape) > 1 else (1,)
            if lam.shape not in ((state.rows,), spread):
                raise ValueError(f"t: shape {lam.shape} given; expected a number, or one per row of z ({state.rows},)")
            lam = lam.reshape(spread)
        value = self._value(z, data, state)
        if self._homotopy == "newton":
            if self._r0 is None:
                start = door.outward(self._z0)
                first = self._args + gathered_all(self._row_args, None, door)
                self._r0 = self._value(start, first, whole) - self._z0
            right = self._r0 if places is None else door.take(self._r0, places)
            lam = lam * 0 + 1
        else:
            right = value - z0
        product = self._jvp or self._difference(value)
        point = z

        def matvec(v: Any) -> Any:
            return door.outward(door.inward(v) - lam * door.inward(product(point, v, *data)))

        self.linear_solves += 1
        dz = linear_solve(
            matvec,
            door.outward(right),
            method=self._method,
            rtol=self._rtol,
            max_steps=max(200, 4 * state.width),
        )
        return dz.value

    def _value(self, z: Any, data: tuple[Any, ...], state: Any) -> Any:
        self.nfe += 1
        door = state.door
        answer = self._f(z, *data)
        return door.accept(answer, state.shape, state.dtype, "f")

    def _difference(self, value: Any) -> Callable[..., Any]:
        """Products with J by differences of f around a known value, a row at a time."""
        door, eps = self._state.door, float(np.finfo(self._state.dtype).eps)

        def product(z: Any, v: Any, *data: Any) -> Any:
            at, along = door.inward(z), door.inward(v)
            flat = (len(at), -1) if at.ndim > 1 else (1, -1)
            length = (along.reshape(flat) ** 2).sum(axis=1) ** 0.5
            size = (at.reshape(flat) ** 2).sum(axis=1) ** 0.5 + (value.reshape(flat) ** 2).sum(axis=1) ** 0.5
            step = eps**0.5 * door.xp.where(size > 0, size, 1) / door.xp.where(length > 0, length, 1)
            step = step.reshape((-1,) + (1,) * (at.ndim - 1)).astype(at.dtype)
            moved = self._value(door.outward(at + step * along), data, check_state(z, "z", door=door))
            return door.outward((moved - value) / step)

        return product

    def polish(self, z: Array, **options: Any) -> Solution:
        """Finish at lam = 1 by Newton's method on f itself, from the end of an integration.

        Args:
            z: the end point, shaped like z0.
            options: of :func:`fixed_point`, such as ``rtol=`` or ``method=``; the method is NewtonKrylov() unless
                given. ``args``, ``row_args`` and ``jvp`` are those of the field.

        Returns:
            A :class:`Solution`.

        Raises:
            ConvergenceError, TypeError, ValueError: as for :func:`fixed_point`.

        Example:
            >>> import numpy as np, deqcore
            >>> field = deqcore.davidenko(np.cos, np.zeros((1, 1)))
            >>> field.polish(np.full((1, 1), 0.7)).value.round(6).tolist()
            [[0.739085]]
        """
        from ._fixed_point import fixed_point

        for own in ("args", "row_args", "jvp"):
            if own in options:
                raise TypeError(f"polish() has no option {own!r}; it is that of the field: davidenko(..., {own}=...)")
        named = {"method": "newton_krylov"} | options
        return fixed_point(self._f, z, args=self._args, row_args=self._row_args, jvp=self._jvp, **named)


def gathered_all(row_data: tuple[Any, ...], places: Any, door: Any) -> tuple[Any, ...]:
    """The row data of these rows, or of all."""
    if places is None:
        return row_data
    return tuple(door.outward(door.take(door.inward(data), places)) for data in row_data)


def davidenko(
    f: Callable[..., Any],
    z0: Array,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    jvp: Callable[..., Any] | None = None,
    homotopy: str = "fixed_point",
    method: Any = None,
    rtol: float | None = None,
    **unknown: NoReturn,
) -> Davidenko:
    """The differential equation that a homotopy's path obeys: integrate it from z0 at lam = 0 to a fixed point at 1.

    dz/dlam = (I - lam J(z))^-1 (f(z) - z0) for the fixed-point homotopy, (I - J(z))^-1 (f(z0) - z0) for Newton's
    (Davidenko 1953). Each call solves a linear system per row, so the field exists as long as the path has no fold:
    always where f is a contraction. An integration of order p ends with a residual of order h^p;
    :meth:`Davidenko.polish` finishes it. :func:`follow` needs no such assumption.

    Args:
        f: the map, called ``f(z, *args, *row_args)``.
        z0: starting points, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row. Copied.
        args, row_args: data for f: whole, and with one entry per row.
        jvp: products J(z) v, called ``jvp(z, v, *args, *row_args)``; None is differences of f.
        homotopy: ``"fixed_point"`` or ``"newton"``.
        method: of :func:`linear_solve`: :class:`GMRES` (the default), :class:`BiCGSTAB`, :class:`Direct`, or a name.
        rtol: of the linear systems; None as for :func:`linear_solve`, and by differences sqrt(eps).

    Returns:
        A :class:`Davidenko`, a callable ``field(t, z)`` that :func:`odeint` takes as its right-hand side.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or an option is unknown.

    Sources: Davidenko 1953; Ding, Cui, Wang and Shi 2023, NeurIPS.

    Example:
        >>> import numpy as np, deqcore
        >>> f, z0 = lambda z: np.tanh(0.5 * z + 1.0), np.zeros((1, 1))
        >>> field = deqcore.davidenko(f, z0)
        >>> z = deqcore.odeint(field, z0, [0.0, 1.0], method=deqcore.RK4(steps=8)).value[-1]
        >>> bool(abs(f(z) - z).max() < 1e-4), field.polish(z).success
        (True, True)
    """
    if unknown:
        refuse_unknown("davidenko", unknown, _FIELD_OPTIONS)
    if not callable(f):
        raise TypeError(f"f: {f!r} given; expected a callable")
    if jvp is not None and not callable(jvp):
        raise TypeError(f"jvp: {jvp!r} given; expected a callable, or None for differences")
    if not isinstance(homotopy, str) or homotopy not in ("fixed_point", "newton"):
        raise ValueError(f"homotopy: {homotopy!r} given; expected 'fixed_point' or 'newton'")
    check_args(args, row_args)
    state = check_state(z0, "z0", door=door_for(z0, "z0"))
    chosen = resolve_method(method, "linear_solve")
    if rtol is None and jvp is None:
        rtol = float(np.finfo(state.dtype).eps) ** 0.5
    return Davidenko(f, state, jvp, homotopy, chosen, rtol, args, check_row_args(row_args, state))


_FIELD_OPTIONS = keyword_options(davidenko)
