# SPDX-License-Identifier: Apache-2.0
"""The door to CuPy. Work goes on one stream: the caller's, or CuPy's current one; memory comes from CuPy's pool."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .. import _core
from . import stream_address
from .checks import check_answer, check_floats

_REFUSED = -1
_FAMILIES = {
    "fixed_point": "FixedPoint",
    "adjoint": "Adjoint",
    "linear_solve": "LinearSolve",
    "newton": "NewtonSolve",
    "ode": "OdeSolve",
}


class CupyDoor:
    """One solve's way to CuPy: a device and a stream."""

    name = "CuPy"
    look_every = 4  # a look waits for the stream
    check_floats = staticmethod(check_floats)

    def __init__(self, device: int, stream: Any) -> None:
        """``stream``: an address, or an object that has one, or None for CuPy's current stream."""
        self.xp = sys.modules["cupy"]
        self.array_type = self.xp.ndarray
        self.device = device
        owner = self.xp.cuda.get_current_stream() if stream is None else stream
        own_device = getattr(owner, "device_id", -1)
        if isinstance(own_device, int) and own_device >= 0 and own_device != device:
            raise ValueError(f"stream: a stream of device {own_device} given; expected one of device {device}")
        self._owner = owner  # kept alive with the solver, which may still wait for it when it is destroyed
        self._stream = stream_address(owner)
        self._given = None if stream is None else self._stream

    def on_stream(self) -> AbstractContextManager[Any]:
        """Where the map's work goes."""
        if self._given is None:
            return nullcontext()
        context: AbstractContextManager[Any] = self.xp.cuda.ExternalStream(self._given)
        return context

    def inward(self, array: Any, what: str = "array") -> Any:
        """The caller's array, as this door's other functions take it."""
        return array

    def outward(self, array: Any) -> Any:
        """An array of this door, as the caller and the map get it."""
        return array

    def all_outward(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same for several; None stays None."""
        return tuple(None if array is None else self.outward(array) for array in arrays)

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Memory that nothing has been written to."""
        return self.xp.empty(shape, dtype)

    def view(self, memory: Any, offset: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array over a piece of scratch. CuPy knows no read-only arrays: a map must not write to it."""
        return self.xp.ndarray(shape, dtype, memory.data + offset)

    def read_only(self, array: Any) -> Any:
        """The same array for a map to read; CuPy knows no read-only arrays."""
        return array

    def check_finite(self, array: Any, what: str) -> None:
        """Nothing: looking would wait for the device. Such a row ends as ``not_finite`` at its first evaluation."""

    def contiguous(self, array: Any) -> Any:
        """The same numbers in row-major order: ``array`` itself if it is so already."""
        return self.xp.ascontiguousarray(array)

    def take(self, array: Any, rows: Any) -> Any:
        """The named rows, copied."""
        return array.take(rows, axis=0)

    def operand(self, array: Any) -> int:
        """What a solver's ``start`` takes for an array: its address."""
        return 0 if array is None else int(array.data.ptr)

    def solver(
        self,
        family: str,
        dtype: Any,
        rows: int,
        width: int,
        shape: tuple[int, ...],
        options: tuple[Any, ...],
        threads: int,
    ) -> tuple[Any, Any]:
        """A solver of a family, and its scratch. ``options``: method, stop rule, and what the family takes besides."""
        kind = getattr(_core, f"Cuda{_FAMILIES[family]}{8 * dtype.itemsize}")
        memory = self.xp.empty(kind.scratch_bytes(rows, width, *options), np.uint8)
        return kind(
            rows, width, *options, self.device, self._stream, memory.data.ptr, memory.nbytes, self._owner
        ), memory

    def shine(
        self, method: Any, history: Any, at: Any, fallback: float, g: Any, u: Any, fell: Any, threads: int
    ) -> None:
        """U = -B' g by the pairs of a handle."""
        apply = getattr(_core, f"cuda_shine{8 * g.dtype.itemsize}")
        history, at, of_g, of_u, of_fell = (array.data.ptr for array in (history, at, g, u, fell))
        apply(method, history, at, fallback, of_g, of_u, of_fell, *g.shape, self.device, self._stream)

    def native_report(self, status: Any, integers: Any, reals: Any, trace: Any) -> Any:
        """The report's arrays, as the core takes them."""
        steps, rejected, singular = (row.data.ptr for row in integers)
        residual, scale = (row.data.ptr for row in reals)
        traced = 0 if trace is None else trace.data.ptr
        return _core.DeviceReport(status.data.ptr, steps, residual, scale, rejected, singular, traced, len(status))

    def native_ode_report(self, status: Any, integers: Any, reached: Any) -> Any:
        """The same of an integration."""
        evaluations, accepted, rejected = (row.data.ptr for row in integers)
        return _core.DeviceOdeReport(status.data.ptr, evaluations, accepted, rejected, reached.data.ptr)

    def scales(self, given: np.ndarray | None) -> Any:
        """The scales where the solver runs."""
        return None if given is None else self.xp.asarray(given)

    def answers(self, solver: Any, memory: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """The call that hands a map's answer to the solver; it refuses what it cannot use in place."""
        first, last = memory.data.ptr, memory.data.ptr + memory.nbytes
        ndarray = self.xp.ndarray

        def advance(answer: Any) -> int:
            if type(answer) is not ndarray or answer.dtype != dtype or answer.shape != shape:
                return _REFUSED
            start = answer.data.ptr
            if not answer.flags.c_contiguous or (start < last and first < start + answer.nbytes):
                return _REFUSED
            if answer.device.id != self.device:
                return _REFUSED
            return int(solver.advance(start))

        return advance

    def accept(self, answer: Any, shape: tuple[int, ...], dtype: Any, what: str) -> Any:
        """A contiguous copy of a map's answer that could not be used in place; an error if it is not an answer."""
        check_answer(answer, isinstance(answer, self.xp.ndarray), self.name, shape, dtype, what)
        if answer.device.id != self.device:
            raise ValueError(f"{what} returned an array on device {answer.device.id}; expected device {self.device}")
        return self.xp.array(answer, dtype, order="C", copy=True)
