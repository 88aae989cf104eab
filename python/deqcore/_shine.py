# SPDX-License-Identifier: Apache-2.0
"""SHINE: the inverse that Broyden's method has learnt on the way to a fixed point serves the backward solve."""

from __future__ import annotations

from typing import Any

from ._arrays import Array, door_for
from ._dialogue import State, check_state
from ._methods import SHINE, native_of
from ._options import threads_named
from ._warm import Warm, check_ids, check_warm, history_places, history_words

__all__ = ["apply_inverse", "shine_start"]


def shine_start(
    handle: Warm, g: Array, *, ids: Any = None, fallback: float = 1.8, threads: int | None = None, stream: Any = None
) -> Array:
    """A start of the backward solve from what the forward solve has learnt: -B' g, for ``adjoint(..., u0=)``.

    Args:
        handle: ``Solution.warm`` of a :func:`fixed_point` by :class:`Broyden` with ``keep="history"``.
        g: the gradients, ``(rows, ...)`` or ``(width,)``, of the dtype of the handle.
        ids: one integer per row, where the handle has ids.
        fallback: as for :class:`SHINE`; such rows start at g.
        threads, stream: as for :func:`fixed_point`.

    Returns:
        An array like g.

    Raises:
        TypeError, ValueError: an argument is not one of these.

    Example:
        >>> import numpy as np, deqcore
        >>> A, x = np.diag(np.linspace(-0.9, 0.9, 7)), np.arange(1.0, 8.0)
        >>> forward = deqcore.fixed_point(lambda z: z @ A + x, np.zeros(7), method="broyden", keep="history")
        >>> u0 = deqcore.shine_start(forward.warm, x)
        >>> deqcore.adjoint(lambda z, v: v @ A, forward.value, x, u0=u0).success
        True
    """
    method = SHINE(handle, fallback)
    door = door_for(g, "g", stream)
    with door.on_stream():
        state = check_state(g, "g", door=door)
        u = door.empty(state.shape, state.dtype)
        fell = door.empty(state.rows, "int32")
        keys = check_ids(ids, state.rows)
        apply_inverse(method, keys, state, state.block, u.reshape(state.block.shape), fell, threads_named(threads))
        return door.outward(u)


def apply_inverse(method: SHINE, keys: Any, state: State, g: Any, u: Any, fell: Any, threads: int) -> None:
    """U = -B' g in blocks; ``fell``: 1 where a row fell back to g, else 0."""
    check_warm(method.handle, keys, state, "handle", "g")
    assert method.handle.history is not None
    broyden = method.handle.history.method
    memory, at = history_places(method.handle, keys, state, history_words(state.width, state.dtype, broyden))
    state.door.shine(native_of(broyden), memory, at, method.fallback, g, u, fell, threads)
