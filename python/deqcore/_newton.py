# SPDX-License-Identifier: Apache-2.0
"""Newton's methods as a dialogue: some questions are about values, others about products with the Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._dialogue import Setup, converse, gathered
from ._ladder import is_ladder
from ._methods import NewtonMethod
from ._solution import Callback
from ._splitting import Monotone
from .maps import Dense

__all__ = ["check_jvp", "own_product", "solve_newton"]


def check_jvp(jvp: Any, f: Any, method: Any) -> None:
    """Refuse products that nothing would ask for."""
    if jvp is None:
        return
    if not callable(jvp):
        raise TypeError(f"jvp: {jvp!r} given; expected a callable, or None for differences")
    if isinstance(f, (Dense, Monotone)):
        raise ValueError(f"jvp: given with {f!r}; expected None: this map has its own products")
    rungs = method if is_ladder(method) else [method]
    named = (None, "newton", "newton_krylov", "homotopy")
    if not any(rung in named or isinstance(rung, NewtonMethod) for rung in rungs):
        raise ValueError(f"jvp: given with method {method!r}; expected None: only Newton's methods ask for products")


def own_product(f: Any) -> Callable[..., Any] | None:
    """The product with J that a map of the package brings along."""
    return f.jvp if isinstance(f, Monotone) else None


def solve_newton(
    setup: Setup,
    start: Any,
    f: Callable[..., Any],
    jvp: Callable[..., Any] | None,
    args: tuple[Any, ...],
    row_data: tuple[Any, ...],
    pass_rows: bool,
    scales: Any,
    callback: Callback | None,
    root: bool = False,
) -> tuple[Any, int, int, int]:
    """Answer the questions of Newton's method with ``f`` and ``jvp``; without one, products are differences.

    -> counts, bytes of scratch, copies, rows that failed.
    """
    state = setup.state
    door = state.door
    solver, scratch = setup.dialogue(root, jvp is None)

    def bind(count: int, rows: Any) -> Callable[[Any], Any]:
        own = gathered(row_data, count, rows, state)
        named = {"rows": door.outward(rows)} if pass_rows else {}
        if solver.about_value:
            return lambda z: f(z, *args, *own, **named)
        assert jvp is not None  # else it would not be asked for
        at = door.outward(door.view(scratch, solver.points_offset, state.question_shape(count), state.dtype))
        return lambda v: jvp(at, v, *args, *own, **named)

    def asked() -> str:
        return ("F" if root else "f") if solver.about_value else "jvp"

    operands = map(door.operand, (start, setup.result))
    own_scales = door.scales(scales)  # a name: a device still reads it
    solver.start(*operands, setup.report.native, door.operand(own_scales))
    copies = converse(solver, scratch, state, bind, asked, callback, setup.stop.look_every)
    return solver.counts, scratch.nbytes, copies, solver.failed
