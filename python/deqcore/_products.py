# SPDX-License-Identifier: Apache-2.0
"""Asking a map for values and products with its Jacobian outside a solve, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._arrays import check_numpy, numpy_door
from ._dialogue import State, check_args, check_row_args, check_state
from ._options import integer
from .maps import Dense

__all__ = ["asked", "at_least", "host_state"]


def host_state(array: Any, what: str) -> State:
    """A checked state that is a NumPy array, and no subclass of it."""
    check_numpy(array, what)
    return check_state(np.asarray(array), what)


def at_least(value: Any, what: str, least: int) -> int:
    """An integer that is not too small."""
    count = integer(value, what)
    if count < least:
        raise ValueError(f"{what}: {count} given; expected at least {least}")
    return count


def asked(
    given: Callable[..., Any] | Dense, kind: str, state: State, args: tuple[Any, ...], row_args: tuple[Any, ...]
) -> Callable[..., np.ndarray]:
    """The call that asks about blocks ``(rows, width)`` and checks the answer, which is a copy of the same shape.

    ``kind``: ``"f"``, ``"jvp"`` or ``"vjp"``: what a callable is, and what a native map is asked for. The blocks are
    handed over read-only, in the state's own shape.
    """
    check_args(args, row_args)
    call: Callable[..., Any] = given
    if isinstance(given, Dense):
        given._injection(args, row_args, False, state)
        call = given if kind == "f" else getattr(given, kind)
    else:
        check_row_args(row_args, state)

    def ask(*blocks: np.ndarray) -> np.ndarray:
        arrays = [block.reshape(state.shape).view() for block in blocks]
        for array in arrays:
            array.flags.writeable = False
        answer = numpy_door.accept(call(*arrays, *args, *row_args), state.shape, state.dtype, kind)
        return answer.reshape(state.block.shape)

    return ask
