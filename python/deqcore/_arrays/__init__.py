# SPDX-License-Identifier: Apache-2.0
"""Doors: the adapter for each array library. Nothing is imported that is not already loaded, nothing is converted."""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np

from .. import _core
from . import numpy_door
from .describe import describe

#: A NumPy array, or a CuPy array on a CUDA device.
Array = Any

__all__ = ["Array", "check_numpy", "describe", "door_for", "numpy_door", "same_library", "to_host"]


def door_for(array: Any, what: str, stream: Any = None) -> Any:
    """Return the door of the library that ``array`` belongs to; ``what`` names the argument in errors."""
    if _is_cupy(array):
        from .cupy_door import CupyDoor

        _need_cuda(array, what)
        current = sys.modules["cupy"].cuda.Device().id
        if array.device.id != current:
            raise ValueError(
                f"{what}: array on device {array.device.id} given; expected device {current}, the current one "
                f"(with cupy.cuda.Device({array.device.id}): makes it so)"
            )
        return CupyDoor(current, None if stream is None else stream_address(stream))
    if not is_numpy(array) and hasattr(array, "__cuda_array_interface__"):
        _need_cuda(array, what)
        raise TypeError(
            f"{what}: {describe(array)} given; expected a CuPy array (cupy.asarray makes one of it, without a copy) "
            f"or a NumPy array"
        )
    check_numpy(array, what)
    if stream is not None:
        raise ValueError(f"stream: {stream!r} given with NumPy arrays; expected None: they have no stream")
    return numpy_door


def is_numpy(array: Any) -> bool:
    """Whether NumPy's door takes it: a mask would be lost on the way."""
    return isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)


def check_numpy(array: Any, what: str) -> None:
    """Refuse anything but a NumPy array."""
    if is_numpy(array):
        return
    hint = ""
    if isinstance(array, np.ma.MaskedArray):
        hint = " without a mask (.filled() makes one)"
    elif isinstance(array, (list, tuple, int, float, np.generic)):
        hint = " (np.asarray makes one)"
    raise TypeError(f"{what}: {describe(array)} given; expected a NumPy array{hint}")


def same_library(array: Any, door: Any, what: str) -> None:
    """Refuse an array of another library, or on another device, than the state's."""
    if door is numpy_door:
        return check_numpy(array, what)
    if _is_cupy(array):
        if array.device.id == door.device:
            return
        raise ValueError(f"{what}: array on device {array.device.id} given; expected device {door.device}, the state's")
    raise TypeError(f"{what}: {describe(array)} given; expected a {door.name} array, like the state")


def stream_address(stream: Any) -> int:
    """The address of a CUDA stream given as an integer or by the ``__cuda_stream__`` protocol."""
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        version, address = protocol() if callable(protocol) else protocol
        if version != 0:
            raise ValueError(f"stream: version {version} of __cuda_stream__ given; expected 0")
        return int(address)
    try:
        if isinstance(stream, bool):
            raise TypeError
        return int(operator.index(stream))
    except TypeError:
        raise TypeError(
            f"stream: {stream!r} given; expected the address of a CUDA stream, or an object with __cuda_stream__"
        ) from None


def to_host(array: Any) -> np.ndarray:
    """A report's array as a NumPy array; waits for the device if it lies there."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())


def _is_cupy(array: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def _need_cuda(array: Any, what: str) -> None:
    if not _core.has_cuda:
        raise TypeError(
            f"{what}: {describe(array)} given; expected a NumPy array: this build of deqcore has no CUDA backend "
            f"(no nvcc was found when it was built)"
        )
