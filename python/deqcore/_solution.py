# SPDX-License-Identifier: Apache-2.0
"""What a solve returns: every row's answer, how it ended, and everything counted on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import Array, to_host
from ._path import Path
from ._warm import Warm

__all__ = ["Progress", "Solution", "Status", "Tolerances"]


class Status(IntEnum):
    """How a row ended. 0 is success, positive is not an error, negative is a failure.

    Example:
        >>> import deqcore
        >>> deqcore.Status(-2).name
        'stalled'
    """

    converged = 0  #: the residual is within the tolerance
    approximate = 1  #: approximate by name: nothing was solved, nothing is promised
    finished = 2  #: an integration has reached the last time
    out_of_steps = -1  #: ``max_steps`` evaluations were not enough
    stalled = -2  #: no more progress, at the rounding noise of the map
    diverged = -3  #: the iterates ran away
    not_finite = -4  #: the map answered NaN or infinity
    breakdown = -5  #: the method cannot go on: a linear one, or no Newton step lowers the residual
    map_failed = -6  #: the map reported a failure
    cancelled = -7  #: the caller stopped the solve
    ill_conditioned = -8  #: the residual is small and the estimated error is not
    step_underflow = -9  #: no step of an integration is small enough for the tolerance


#: What to try, per status.
_ADVICE = {
    Status.out_of_steps: "raise max_steps, loosen rtol, or try method='anderson' with a longer history",
    Status.stalled: "the tolerance is below the rounding noise of the map (loosen rtol or use float64), or the "
    "steps are too small to change the point (raise beta)",
    Status.diverged: "the map may have no fixed point near z0: try beta < 1, another z0, or check the map's norm",
    Status.not_finite: "the map answered NaN or infinity: check its inputs and its domain, or try beta < 1",
    Status.map_failed: "the map reported a failure itself",
    Status.cancelled: "the callback stopped the solve",
    Status.breakdown: "the linear method cannot go on. GMRES: raise restart=, or the matrix is singular and the right "
    "side outside its range; BiCGSTAB: use GMRES; Direct: the matrix is singular to working precision",
    Status.ill_conditioned: "close to singular: the answer may be far off although its residual is small",
    Status.step_underflow: "no step of the integration is small enough: the map has a jump there, or the tolerance "
    "of a step is below its rounding noise",
    Status.approximate: "this method does not solve (I - J)' u = g and tests nothing: check_gradient() measures how "
    "far it is off, estimate_error=True estimates it, method=GMRES() solves it",
}
#: The same for Newton's methods.
_NEWTON = ("newton", "newton_krylov")
_NEWTON_ADVICE = {
    Status.out_of_steps: "raise max_steps, which counts products too, or loosen rtol; NewtonKrylov: raise restart=, or "
    "Newton() for narrow rows",
    Status.stalled: "the tolerance is below the rounding noise of the map, or of products by differences: loosen rtol, "
    "use float64, or give jvp=",
    Status.breakdown: "no step lowers the residual: near a local minimum of it, at a kink of the map, or jvp is wrong; "
    "try another z0, or another method before this one in a ladder",
    Status.not_finite: "the map or a product is NaN or infinite near the best point: check its domain, or try another "
    "z0",
}
#: The same for continuation.
_PATH_ADVICE = {
    Status.out_of_steps: "raise Tracker(max_solves=) or max_steps, which counts products too, or try another z0: paths "
    "of the Newton homotopy may be closed",
    Status.diverged: "the path runs to infinity: no fixed point is reached this way; try another z0, or a bounded map",
    Status.breakdown: "no step along the path is short enough: tracker='arclength' where it turns back, another z0 "
    "where H is singular, a looser Tracker(tolerance=) where f or its products are rough",
    Status.stalled: "the path ends at the rounding noise of the map: loosen rtol, use float64, or give jvp=",
    Status.not_finite: "f is NaN or infinite at z0 or next to the path: check its domain, or try another z0",
}
#: The same for integration to rest.
_STEADY_ADVICE = {
    Status.out_of_steps: "raise max_steps or loosen rtol: the stiffer the map, the more steps an explicit method takes",
    Status.stalled: "the tolerance is below the rounding noise of the map: loosen rtol or use float64",
    Status.diverged: "the flow dz/dt = f(z) - z runs away from z0: try another z0, or a method whose fixed point need "
    "not attract, such as 'newton_krylov'",
    Status.not_finite: "the map is NaN or infinite at z0, or wherever the flow leads next: check its domain, try "
    "another z0, or a SteadyState(first_step=) of another length",
}
#: The same for linear methods, which have neither a window nor damping.
_LINEAR = ("gmres", "bicgstab", "direct")
_LINEAR_ADVICE = {
    Status.out_of_steps: "raise max_steps or loosen rtol; GMRES: raise restart=; a preconditioner, or Direct() for "
    "narrow rows",
    Status.stalled: "the tolerance is below the rounding noise of the products: loosen rtol or use float64; the matrix "
    "may be nearly singular",
    Status.not_finite: "a product is NaN or infinite, or left the range of the dtype: check it, or scale the right "
    "side",
}


@dataclass(frozen=True)
class Progress:
    """What a ``callback`` is told at each look.

    Attributes:
        steps: map evaluations so far.
        running: rows that have not ended.
        worst: the largest residual / threshold among them; a row converges at 1.

    Example:
        >>> import numpy as np, deqcore
        >>> seen = []
        >>> solution = deqcore.fixed_point(np.cos, np.ones((2, 1)), callback=seen.append)
        >>> seen[0].steps, seen[0].running, seen[-1].running
        (1, 2, 0)
    """

    steps: int
    running: int
    worst: float


@dataclass(frozen=True)
class Tolerances:
    """The numbers that decided what converged, so that a result can be reproduced.

    Attributes:
        rtol: relative tolerance, resolved for the dtype.
        atol: absolute tolerance, in the units of the norm.
        max_steps: most map evaluations per row.
        norm: ``"two"`` or ``"inf"``.
        relative_to: what ``rtol`` multiplies: ``"image"`` is min(\\|f(z)\\|, 10 scale), ``"scale"`` is the scale.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.fixed_point(np.cos, np.ones(3), rtol=1e-6).tolerances
        Tolerances(rtol=1e-06, atol=0.0, max_steps=200, norm='two', relative_to='image')
    """

    rtol: float
    atol: float
    max_steps: int
    norm: str
    relative_to: str


def _count(rows: int) -> str:
    return f"{rows} row" if rows == 1 else f"{rows} rows"


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """The answer of a solve. Arrays with one entry per row have shape ``(rows,)`` and lie where the solve ran.

    A row's ``value`` is the point with the smallest residual relative to its threshold among those measured, and
    ``residual`` belongs to exactly that point. A solution can be pickled.

    Attributes:
        value: the answers, of the shape and dtype of the starting point.
        residual: float64, norm of f(z) - z at ``value``; NaN where it was never measured.
        scale: float64, what residuals are compared with: max(\\|z0\\|, \\|f(z0)\\|) unless it was given.
        status: int8, the code of each row; see :class:`Status`.
        steps: int32, map evaluations each row used.
        rejected: int32, accelerated steps given up because the residual grew or the point did not change, or the
            history of an earlier solve did not fit; of :class:`SHINE`, 1 where a row fell back to u = g.
        singular: int32, accelerated steps given up because the small system could not be solved.
        nfe: times the map was called (native maps: the most that any row needed); with a homotopy of your own, times H,
            its rate and the map were called, together.
        products: times Newton's methods called ``jvp``, or the native map's own; 0 elsewhere.
        rows_asked: rows over all those calls: the work of the map.
        tolerances: see :class:`Tolerances`.
        retire: ``"on"``, ``"halve"``, or ``"off"``: whether rows that ended were still asked about.
        copies: answers of the map that were copied before use: not contiguous, a subclass of the array, or the
            question itself.
        scratch_bytes: memory the solve held beside its result.
        trace: float64 ``(most steps of any row, rows)`` if asked for: every residual; NaN after a row ended. Linear
            methods estimate the residual on the way and measure it where they might end.
        error: float64, the estimated relative error of ``value``, if asked for.
        warm: a :class:`Warm` to start a later solve from, if asked for.
        path: of a solve by :class:`Homotopy`, or by :func:`follow`: how the rows' paths went, a :class:`Path`. None for
            other methods, and of a ladder where several methods ran: only some rows have a path then.

    Example:
        >>> import numpy as np, deqcore
        >>> solution = deqcore.fixed_point(np.cos, np.ones((2, 1)))
        >>> solution.success, solution.value.round(4).ravel().tolist()
        (True, [0.7391, 0.7391])
    """

    value: Array
    residual: Array
    scale: Array
    status: Array
    steps: Array
    rejected: Array
    singular: Array
    nfe: int
    rows_asked: int
    tolerances: Tolerances
    retire: str
    copies: int
    scratch_bytes: int
    trace: Array | None = None
    error: Array | None = None
    warm: Warm | None = None
    _method: Any = field(default_factory=str)  # a name, or one per row
    _solver: str = field(default_factory=str)
    _tried: str = ""  # of a ladder
    products: int = field(default_factory=int)  # factories leave no default in the class: __getattr__ is to be asked
    path: Path | None = None

    @classmethod
    def _of(cls, **fields: Any) -> Solution:
        """One with these fields: a frozen dataclass sets them one by one, which takes longer than a small solve."""
        solution = cls.__new__(cls)
        vars(solution).update(fields)
        return solution

    @classmethod
    def _of_native(cls, prepared: Any, ended: tuple[Any, ...]) -> Solution:
        """One whose other fields are made when one of them is asked for: the core's account of a solve has them all."""
        solution = cls.__new__(cls)
        held = vars(solution)
        held["value"] = ended[0]
        held["_made_of"] = prepared, ended
        return solution

    if not TYPE_CHECKING:  # which would hold every name for a field

        def __getattr__(self, name: str) -> Any:
            """Make the fields of a native solve; an AttributeError for what is none."""
            held = vars(self)
            if name not in self.__dataclass_fields__ or "_made_of" not in held:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            for field_name, content in _native_fields(*held["_made_of"]).items():
                held.setdefault(field_name, content)  # where two threads ask at once, both get the same
            return held[name]

    def __getstate__(self) -> dict[str, Any]:
        """The fields, made or not."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __repr__(self) -> str:
        """The message, and the shapes and ranges of what is inside."""
        steps = f"{int(self.steps.min())}..{int(self.steps.max())}"
        worst = float(to_host(self.residual).max())
        return (
            f"<Solution {self.message}; value: {self.value.dtype} {self.value.shape}, steps {steps}, nfe {self.nfe}, "
            f"largest residual {worst:.2g}>"
        )

    @property
    def success(self) -> bool:
        """Whether every row converged; gradients that are approximate by name do not."""
        made_of = vars(self).get("_made_of")
        return not (bool(self.status.any()) if made_of is None else made_of[1][2])

    @property
    def method(self) -> np.ndarray:
        """The name of the method that finished each row."""
        return np.full(self.status.shape, self._method) if isinstance(self._method, str) else self._method.astype(str)

    def _methods(self) -> str:
        """In words, in the order in which they were tried."""
        return self._method if isinstance(self._method, str) else self._tried

    @property
    def x(self) -> Array:
        """``value``, by SciPy's name."""
        return self.value

    @property
    def nit(self) -> Array:
        """``steps``, by SciPy's name."""
        return self.steps

    @property
    def nfev(self) -> int:
        """``nfe``, by SciPy's name."""
        return self.nfe

    def _with_host_report(self) -> Solution:
        """The same with the arrays of the report on the host; waits for the device."""
        return replace(
            self,
            error=None if self.error is None else to_host(self.error),
            residual=to_host(self.residual),
            scale=to_host(self.scale),
            status=to_host(self.status),
            steps=to_host(self.steps),
            rejected=to_host(self.rejected),
            singular=to_host(self.singular),
        )

    @property
    def message(self) -> str:
        """One line: how the rows ended, and the worst of those that failed."""
        if not isinstance(self.status, np.ndarray):
            return self._with_host_report().message
        rows = len(self.status)
        failed = np.flatnonzero(self.status < 0)
        approximate = int(np.count_nonzero(self.status == Status.approximate))
        if not len(failed) and approximate:
            return f"{self._solver}: {_count(approximate)} approximate by name ({self._methods()}): nothing was solved"
        if not len(failed):
            return f"{self._solver}: all {_count(rows)} converged" if rows > 1 else f"{self._solver}: converged"
        kinds = []
        for code in np.unique(self.status[failed]):
            members = np.flatnonzero(self.status == code)
            shown = ", ".join(map(str, members[:5])) + (", ..." if len(members) > 5 else "")
            kinds.append(f"{len(members)} {Status(code).name} (row{'s' if len(members) > 1 else ''} {shown})")
        ratio = self.residual[failed] / np.maximum(self.scale[failed], np.finfo(float).tiny)
        worst = math.nan if np.isnan(ratio).all() else float(np.nanmax(ratio))
        return (
            f"{self._solver}: {len(failed)} of {_count(rows)} did not converge: {'; '.join(kinds)}. "
            f"Largest residual / scale among them {worst:.2g}, rtol {self.tolerances.rtol:.2g}, "
            f"method {self._methods()}, max_steps {self.tolerances.max_steps}"
        )

    def explain(self) -> str:
        """Say in plain words how the solve went and, where rows failed, what to try.

        Example:
            >>> import numpy as np, deqcore
            >>> f, z0 = lambda z: z + 1, np.zeros((1, 3))
            >>> solution = deqcore.fixed_point(f, z0, method="anderson", on_failure="return")
            >>> print(solution.explain())  # doctest: +ELLIPSIS
            fixed_point: 1 of 1 row did not converge: 1 out_of_steps (row 0)...
        """
        if not isinstance(self.status, np.ndarray):
            return self._with_host_report().explain()
        lines = [self.message + "."]
        called = (self.path and self.path._called) or "the map was"
        lines.append(
            f"Steps per row: {int(self.steps.min())} to {int(self.steps.max())}, median "
            f"{float(np.median(self.steps)):g}; {called} called {self.nfe} times for {self.rows_asked} rows in all."
        )
        if self.retire == "off" and len(self.steps) > 1 and self.steps.max() > 1.5 * self.steps.mean():
            lines.append(
                "Rows that had ended were asked about until the slowest was done: pass row data as row_args=(...) "
                "(or retire=True if the map needs none), and they leave."
            )
        if self.error is not None:
            lines.append(
                f"Estimated relative error per row: median {float(np.median(self.error)):.2g}, largest "
                f"{float(self.error.max()):.2g}."
            )
        fell_back = int(self.rejected.sum()) if isinstance(self._method, str) and self._method == "shine" else 0
        if fell_back:
            lines.append(f"{_count(fell_back)} fell back to u = g.")
        given_up = int(self.rejected.sum() + self.singular.sum())
        if given_up and self.path is not None:
            lines.append(
                f"Steps along the paths given up: {int(self.rejected.sum())}; linear systems without a useful "
                f"solution: {int(self.singular.sum())}."
            )
        elif given_up and not fell_back:
            lines.append(
                f"Accelerated steps given up: {int(self.rejected.sum())} because the residual grew "
                f"or the point did not change, {int(self.singular.sum())} because the small system could not be solved."
            )
        last = self._methods().split(", then ")[-1]
        special = _LINEAR_ADVICE if last in _LINEAR else _NEWTON_ADVICE if last in _NEWTON else {}
        by_flow = {"homotopy": _PATH_ADVICE, "steady_state": _STEADY_ADVICE}
        advice = _ADVICE | by_flow.get(last, special)
        if self.path is not None:
            lines.append(self.path._told() + ".")
        lines += [f"{Status(c).name}: {advice[Status(c)]}." for c in np.unique(self.status) if Status(c) in advice]
        return "\n".join(lines)


def _native_fields(prepared: Any, ended: tuple[Any, ...]) -> dict[str, Any]:
    """What the core says of a solve, as fields."""
    _, memory, _, rows, questions, products, rows_asked, scratch_bytes = ended
    residual, scale = np.frombuffer(memory, np.float64, 2 * rows).reshape(2, rows)
    steps, rejected, singular = np.frombuffer(memory, np.int32, 3 * rows, 16 * rows).reshape(3, rows)
    return {
        "residual": residual,
        "scale": scale,
        "status": np.frombuffer(memory, np.int8, rows, 28 * rows),
        "steps": steps,
        "rejected": rejected,
        "singular": singular,
        "nfe": questions - products,
        "rows_asked": rows_asked,
        "tolerances": prepared.options.tolerances,
        "retire": prepared.options.retire,
        "copies": 0,
        "scratch_bytes": scratch_bytes,
        "products": products,
        "_method": prepared.options.chosen.name,
        "_solver": prepared.solver,
    }


Callback = Callable[[Progress], Any]
