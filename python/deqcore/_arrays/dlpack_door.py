# SPDX-License-Identifier: Apache-2.0
"""The door to any array library with CUDA arrays and DLPack, such as PyTorch: its own arrays outside, CuPy's within.

No element is copied on the way: DLPack hands over addresses, and orders the two libraries' work on the given stream.
"""

from __future__ import annotations

import sys
from typing import Any

from . import device_of, is_on_device
from .cupy_door import _REFUSED, CupyDoor
from .describe import describe


class DlpackDoor(CupyDoor):
    """One solve's way to a library: its module, a device and a stream."""

    def __init__(self, library: Any, device: int, stream: Any) -> None:
        """``library``: has ``from_dlpack``."""
        super().__init__(device, stream)
        self.name = library.__name__
        self._outward = library.from_dlpack
        with self.on_stream():
            self.array_type = type(self._outward(self.xp.empty(1, self.xp.uint8)))

    def inward(self, array: Any, what: str = "array") -> Any:
        """The caller's array, as a CuPy array over the same memory; an error names ``what``."""
        if not isinstance(array, self.array_type):
            return array
        try:
            return self.xp.from_dlpack(array)
        except Exception as error:  # the library's words: a gradient is required, a dtype CuPy has not
            raise TypeError(f"{what}: {describe(array)} cannot be handed over: {error}") from error

    def outward(self, array: Any) -> Any:
        """A CuPy array, as the library's over the same memory."""
        return self._outward(array)

    def answers(self, solver: Any, memory: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """The call that hands a map's answer to the solver; it refuses what it cannot use in place."""
        advance = super().answers(solver, memory, shape, dtype)
        kind = self.array_type
        return lambda answer: (
            advance(self.inward(answer, "answer")) if isinstance(answer, kind) and is_on_device(answer) else _REFUSED
        )

    def accept(self, answer: Any, shape: tuple[int, ...], dtype: Any, what: str) -> Any:
        """A contiguous copy of a map's answer that could not be used in place; an error if it is not an answer."""
        if answer is not None and not (isinstance(answer, self.array_type) and is_on_device(answer)):
            raise TypeError(f"{what} returned {describe(answer)}; expected a {self.name} array on device {self.device}")
        return self.outward(super().accept(self.inward(answer, what), shape, dtype, what))


def door_to(array: Any, what: str, stream: Any) -> DlpackDoor:
    """The door to the library of a CUDA array that is not CuPy's."""
    library = sys.modules.get(type(array).__module__.partition(".")[0])
    device = device_of(array)
    if device is None or not hasattr(library, "from_dlpack"):
        raise TypeError(
            f"{what}: {describe(array)} given; expected a NumPy array, a CuPy array (cupy.asarray makes one of it, "
            f"without a copy), or an array of a library with from_dlpack"
        )
    try:
        import cupy  # noqa: F401, the memory within is CuPy's
    except ImportError:
        raise TypeError(
            f"{what}: {describe(array)} given; CUDA arrays need the package cupy, which is missing"
        ) from None
    if stream is None:
        raise ValueError(
            f"stream: None given with {describe(array)}; expected the stream that its library works on, such as "
            f"torch.cuda.current_stream().cuda_stream"
        )
    from . import current_device

    return DlpackDoor(library, current_device(device, what), stream)
