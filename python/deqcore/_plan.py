# SPDX-License-Identifier: Apache-2.0
"""How much memory a solve takes, before it is run, and the longest history that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np

from ._fixed_point import scratch_bytes
from ._ladder import is_ladder, rungs_of
from ._methods import BY_NAME, Method, NewtonKrylov, Picard, resolve_method
from ._ode_gradient import check_gradient_kind, gradient_bytes
from ._ode_methods import ODE_BY_NAME, OdeMethod, is_ode_name, resolve_ode_method
from ._odeint import REPORT_BYTES, integration_bytes
from ._options import flag, integer, keyword_options, refuse_unknown
from ._warm import check_keep, check_remembers, history_words

__all__ = ["Plan", "plan"]

_REPORT = 1 + 4 + 8 + 8 + 4 + 4  # status, steps, residual, scale, rejected, singular, per row


@dataclass(frozen=True)
class Plan:
    """The memory of a solve, from :func:`plan`.

    Attributes:
        method: what to give :func:`fixed_point`: as asked for, or with the history lowered; a tuple for a ladder.
        scratch_bytes: what the solver iterates in, the same number as ``Solution.scratch_bytes``; of a ladder that of
            its largest rung on all rows, which is exact where rows failed under it and an upper bound otherwise.
        result_bytes: the value and the report of the solution.
        lowered: whether the history is shorter than was asked for.
        handle_bytes: what ``Solution.warm`` holds of these rows, without ids.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.plan(64, 512, np.float32, method="anderson", memory_budget=2_000_000).method.history
        5
    """

    method: Any
    scratch_bytes: int
    result_bytes: int
    lowered: bool = False
    handle_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Scratch, result and handle together: what the budget is held against."""
        return self.scratch_bytes + self.result_bytes + self.handle_bytes


def plan(
    rows: int,
    width: int,
    dtype: Any = np.float32,
    *,
    method: Any = None,
    keep: str | None = None,
    jvp: bool = False,
    times: int | None = None,
    gradient: str | None = None,
    memory_budget: int | None = None,
    **unknown: NoReturn,
) -> Plan:
    """Exactly how much memory :func:`fixed_point` takes on a callable, and the method that keeps within a budget.

    With a method of :func:`odeint` it is the memory of an integration, or of its gradient by :func:`odeint_adjoint`.
    That of ``"adjoint"`` and ``"frozen"`` does not depend on the number of steps; that of ``"solver"`` grows by the
    points of every step between two times.

    Not counted: z0, a handle given as ``warm``, what the map makes itself and what ``vjp`` gives, ``trace=True`` (8
    bytes per row and step of ``max_steps``), and copies of answers that are not contiguous.

    Args:
        rows: samples in the batch.
        width: elements of one sample's state.
        dtype: float32 or float64.
        method: as for :func:`fixed_point` or :func:`odeint`; in a ladder every rung is lowered by itself. None is
            Anderson() alone: what rescues rows that it does not solve may take more, and is left out where there is no
            memory for it.
        keep: as for :func:`fixed_point`.
        jvp: whether Newton's methods are given products, or take differences.
        times: of an integration: requested times; None is 2.
        gradient: of an integration: None for itself, or its gradient ``"adjoint"``, ``"solver"`` or ``"frozen"``.
        memory_budget: most bytes for scratch, result and handle; the history is lowered until they fit. None is no
            limit.

    Returns:
        A :class:`Plan`.

    Raises:
        MemoryError: the budget is too small even for the shortest history; the message says what the least is.
        TypeError, ValueError: an argument is not one of these, an unknown option.

    Example:
        >>> import numpy as np, deqcore
        >>> plan = deqcore.plan(8, 100, np.float64, method=deqcore.Anderson(history=4))
        >>> solution = deqcore.fixed_point(np.cos, np.ones((8, 100)), method=plan.method)
        >>> plan.scratch_bytes == solution.scratch_bytes
        True
    """
    if unknown:
        refuse_unknown("plan", unknown, _OPTIONS)
    if is_ode_name(method):
        method = resolve_ode_method(method)
    if isinstance(method, OdeMethod):
        if flag(jvp, "jvp"):
            raise ValueError("jvp: True given with a method of odeint(); expected False: it is of Newton's methods")
        return _plan_integration(rows, width, dtype, method, times, gradient, keep, memory_budget)
    for name, of_integration in (("gradient", gradient), ("times", times)):
        if of_integration is not None:
            raise ValueError(f"{name}: {of_integration!r} given; expected None: it is of methods of odeint()")
    if isinstance(method, str) and method not in BY_NAME:
        known = [name for name, named in BY_NAME.items() if "fixed_point" in named._solves]
        names = ", ".join(map(repr, (*known, *ODE_BY_NAME)))
        raise ValueError(f"method: {method!r} given; expected one of {names}, or a method object")
    ladder = is_ladder(method)
    rungs = rungs_of(method, "fixed_point") if ladder else [resolve_method(method, "fixed_point")]
    rows, width = integer(rows, "rows"), integer(width, "width")
    needed = [
        scratch_bytes(rows, width, dtype, method=rung, jvp=jvp) for rung in rungs
    ]  # refuses bad rows, width, dtype
    result = rows * (width * np.dtype(dtype).itemsize + _REPORT)
    keeping = check_keep(keep, history=True)
    if keeping == "history":
        if ladder:
            raise ValueError("method: a ladder given with keep='history'; expected one method, or keep='state'")
        check_remembers(rungs[0], width, np.dtype(dtype))

    def handle(method: Method) -> int:
        words = history_words(width, np.dtype(dtype), method) if keeping == "history" else 0
        return 0 if keeping is None else rows * (width * np.dtype(dtype).itemsize + 8 * words)

    if memory_budget is None:
        return Plan(tuple(rungs) if ladder else rungs[0], max(needed), result, False, handle(rungs[0]))
    budget = _budget(memory_budget)
    chosen = []
    for rung in rungs:
        for shorter in _shortened(rung):
            least = scratch_bytes(rows, width, dtype, method=shorter, jvp=jvp) + result + handle(shorter)
            if least <= budget:
                chosen.append(shorter)
                break
        else:
            picard = scratch_bytes(rows, width, dtype, method="picard") + result + handle(Picard())
            other = "" if rung.name == "picard" or keeping == "history" else f"; method='picard' needs {picard}"
            raise MemoryError(
                f"memory_budget: {budget} bytes given; {rows} rows of width {width} need at least {least} with "
                f"{shorter!r}{other}; or solve fewer rows at a time"
            )
    size = max(scratch_bytes(rows, width, dtype, method=rung, jvp=jvp) for rung in chosen)
    return Plan(tuple(chosen) if ladder else chosen[0], size, result, chosen != rungs, handle(chosen[0]))


_OPTIONS = keyword_options(plan)


def _plan_integration(
    rows: Any, width: Any, dtype: Any, method: OdeMethod, times: Any, gradient: Any, keep: Any, memory_budget: Any
) -> Plan:
    rows, width, times = integer(rows, "rows"), integer(width, "width"), integer(2 if times is None else times, "times")
    scratch_bytes(rows, width, dtype, method="picard")  # refuses bad rows, width, dtype
    if times < 2:
        raise ValueError(f"times: {times} given; expected at least two")
    if keep is not None:
        raise ValueError(f"keep: {keep!r} given; expected None: an integration keeps nothing")
    state = rows * width * np.dtype(dtype).itemsize
    if gradient is None:
        found = Plan(method, integration_bytes(method, rows, width, dtype), times * state + rows * REPORT_BYTES)
    else:
        check_gradient_kind(gradient)
        if gradient == "solver" and method.steps is None:
            raise ValueError(f"method: {method!r} given; the gradient through the solver needs a number of steps")
        found = Plan(method, gradient_bytes(method, gradient, rows, width, dtype), state)
    if memory_budget is not None and found.bytes > _budget(memory_budget):
        raise MemoryError(f"memory_budget: {memory_budget} bytes given; {method!r} needs {found.bytes}")
    return found


def _budget(given: Any) -> int:
    budget = integer(given, "memory_budget")
    if budget < 1:
        raise ValueError(f"memory_budget: {budget} given; expected at least 1 byte, or None")
    return budget


def _shortened(method: Method) -> Iterator[Method]:
    """The method, then with shorter and shorter history."""
    yield method
    options = asdict(method)  # type: ignore[call-overload]
    remembered = "restart" if isinstance(method, NewtonKrylov) else "history"
    for history in range(options.get(remembered, 1) - 1, 0, -1):
        shorter = _shorter(method, options | {remembered: history})
        if shorter is None:
            return
        yield shorter


def _shorter(method: Method, options: dict[str, Any]) -> Method | None:
    """None where it is too short for the other options."""
    try:
        return type(method)(**options)
    except ValueError:
        return None
