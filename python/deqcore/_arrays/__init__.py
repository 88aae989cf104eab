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
    if not is_numpy(array):
        if not is_on_device(array):
            check_numpy(array, what)
        _need_cuda(array, what)
        from .cupy_door import CupyDoor
        from .dlpack_door import door_to

        if not _is_cupy(array):
            return door_to(array, what, stream)
        return CupyDoor(current_device(array.device.id, what), stream)
    if stream is not None:
        raise ValueError(f"stream: {stream!r} given with NumPy arrays; expected None: they have no stream")
    return numpy_door


def current_device(device: int, what: str) -> int:
    """``device``, if it is CuPy's current one."""
    current = int(sys.modules["cupy"].cuda.Device().id)
    if device != current:
        raise ValueError(
            f"{what}: array on device {device} given; expected device {current}, the current one "
            f"(with cupy.cuda.Device({device}): makes it so)"
        )
    return current


def is_numpy(array: Any) -> bool:
    """Whether NumPy's door takes it: a mask would be lost on the way."""
    return type(array) is np.ndarray or (isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray))


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
    if isinstance(array, door.array_type):
        device = device_of(array)
        if device == door.device:
            return
        if device is not None:
            raise ValueError(f"{what}: array on device {device} given; expected device {door.device}, the state's")
    raise TypeError(f"{what}: {describe(array)} given; expected a {door.name} array, like the state")


def stream_address(stream: Any) -> int:
    """The address of a CUDA stream given as an integer or by the ``__cuda_stream__`` protocol."""
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        version, address = protocol() if callable(protocol) else protocol
        if version != 0:
            raise ValueError(f"stream: version {version} of __cuda_stream__ given; expected 0")
        return int(address)
    for address_of in ("ptr", "cuda_stream"):  # CuPy's and torch's own, in versions older than the protocol
        stream = getattr(stream, address_of, stream)
    try:
        if isinstance(stream, bool):
            raise TypeError
        return int(operator.index(stream))
    except TypeError:
        raise TypeError(
            f"stream: {stream!r} given; expected the address of a CUDA stream, or an object with __cuda_stream__"
        ) from None


def device_of(array: Any) -> int | None:
    """The number of the CUDA device that holds an array; None where that is no CUDA device, or cannot be told."""
    if _is_cupy(array):
        return int(array.device.id)
    where = getattr(type(array), "__dlpack_device__", None)
    if where is None:
        return None
    kind, number = where(array)
    return int(number) if int(kind) == 2 else None  # kDLCUDA


def is_on_device(array: Any) -> bool:
    """Whether it says that it lies on a CUDA device."""
    return device_of(array) is not None or hasattr(array, "__cuda_array_interface__")


def to_host(array: Any) -> np.ndarray:
    """A report's array as a NumPy array; waits for the device if it lies there."""
    if isinstance(array, np.ndarray):
        return array
    return np.asarray((array if _is_cupy(array) else sys.modules["cupy"].from_dlpack(array)).get())


def _is_cupy(array: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def _need_cuda(array: Any, what: str) -> None:
    if not _core.has_cuda:
        raise TypeError(
            f"{what}: {describe(array)} given; expected a NumPy array: this build of deqcore has no CUDA backend "
            f"(no nvcc was found when it was built)"
        )
