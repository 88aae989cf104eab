# SPDX-License-Identifier: Apache-2.0
"""A stand-in for CuPy on a machine without a GPU: host memory behind CuPy's names, for tests of the device door.

Arrays are not NumPy arrays and refuse to become ones silently. Every operation first lets the current stream of the
emulated CUDA run time do its work, as an operation put on that stream would; memory fresh from ``empty`` holds NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uint8

from . import cuda

__all__ = [
    "arange",
    "array",
    "asarray",
    "ascontiguousarray",
    "cuda",
    "empty",
    "from_dlpack",
    "ndarray",
    "tanh",
    "uint8",
    "zeros",
]

_ALIGNMENT = 512  # that of CuPy's pool


class _Pointer:
    """A piece of device memory: ``.ptr``, and ``+`` for a place inside it."""

    def __init__(self, memory: np.ndarray, offset: int = 0) -> None:
        self.memory, self.offset = memory, offset

    @property
    def ptr(self) -> int:
        return self.memory.ctypes.data + self.offset

    def __add__(self, offset: int) -> _Pointer:
        return _Pointer(self.memory, self.offset + offset)


class _Device:
    def __init__(self, number: int) -> None:
        self.id = number


def _unwrap(value: Any) -> Any:
    return value._host if isinstance(value, ndarray) else value


def _wrap(host: Any) -> Any:
    return ndarray._of(host) if isinstance(host, np.ndarray) else host


class ndarray:
    """An array in "device" memory."""

    __array_priority__ = 100

    def __init__(self, shape: Any, dtype: Any = float, memptr: _Pointer | None = None) -> None:
        if memptr is None:
            self._host = _fresh(shape, dtype)
        else:
            self._host = np.ndarray(shape, dtype, memptr.memory, memptr.offset)
        cuda._keep(self._host)
        self.device = _Device(cuda.current_device)

    @classmethod
    def _of(cls, host: np.ndarray) -> ndarray:
        made = cls.__new__(cls)
        made._host = host
        cuda._keep(host)
        made.device = _Device(cuda.current_device)
        return made

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    __array_ufunc__ = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "version": 3,
            "strides": None if self.flags.c_contiguous else self._host.strides,
            "stream": cuda.get_current_stream().ptr or 1,
        }

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)

    @property
    def data(self) -> _Pointer:
        base = self._host
        first, last = np.lib.array_utils.byte_bounds(base)
        return _Pointer(np.asarray(_Address(first, last - first, base)), base.ctypes.data - first)

    @property
    def T(self) -> ndarray:
        return _wrap(self._host.T)

    def get(self) -> np.ndarray:
        cuda.get_current_stream().synchronize()
        return self._host.copy()

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return f"standin.{self.get()!r}"

    def __getitem__(self, key: Any) -> Any:
        cuda._order()
        return _wrap(self._host[_key(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        cuda._order()
        self._host[_key(key)] = _unwrap(value)


class _Address:
    """Keeps ``owner`` alive behind a raw address."""

    def __init__(self, address: int, size: int, owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}


def _key(key: Any) -> Any:
    return tuple(map(_unwrap, key)) if isinstance(key, tuple) else _unwrap(key)


def _method(name: str) -> Any:
    def call(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        cuda._order()
        host = getattr(self._host, name)(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()})
        return _wrap(np.asarray(host) if name in ("any", "all", "max", "min", "sum", "mean") else host)

    return call


_OPERATORS = (
    """add sub mul truediv matmul pow neg abs lt le gt ge eq ne and or invert radd rsub rmul rtruediv rmatmul"""
)
_METHODS = """reshape take copy astype any all max min sum mean view ravel transpose"""
for _name in [f"__{name}__" for name in _OPERATORS.split()] + _METHODS.split():
    setattr(ndarray, _name, _method(_name))
ndarray.__hash__ = None


def _fresh(shape: Any, dtype: Any) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    cuda._allocate(size)
    raw = np.full(size + _ALIGNMENT, 0xFF, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def empty(shape: Any, dtype: Any = float) -> ndarray:
    return _wrap(_fresh(shape, dtype))


def array(value: Any, dtype: Any = None, order: str = "K", copy: bool = True) -> ndarray:
    cuda._order()
    host = np.asarray(_unwrap(value), dtype)
    made = _fresh(host.shape, host.dtype)
    made[...] = host
    return _wrap(made)


def asarray(value: Any, dtype: Any = None) -> ndarray:
    return value if isinstance(value, ndarray) and dtype in (None, value.dtype) else array(value, dtype)


def ascontiguousarray(value: ndarray) -> ndarray:
    return value if value.flags.c_contiguous else array(value)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return array(np.zeros(shape, dtype))


def arange(*args: Any, **kwargs: Any) -> ndarray:
    return array(np.arange(*args, **kwargs))


def _function(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> ndarray:
        cuda._order()
        host = getattr(np, name)(*map(_unwrap_all, args), **kwargs)
        return _wrap(np.array(host))

    return call


def _unwrap_all(value: Any) -> Any:
    return [_unwrap(entry) for entry in value] if isinstance(value, (list, tuple)) else _unwrap(value)


for _name in ("tanh", "sqrt", "where", "isfinite", "concatenate", "broadcast_to", "full", "cos"):
    globals()[_name] = _function(_name)


class linalg:
    """The part of cupy.linalg that is used."""

    @staticmethod
    def norm(x: ndarray, axis: int | None = None) -> ndarray:
        cuda._order()
        return _wrap(np.array(np.linalg.norm(x._host, axis=axis)))


def from_dlpack(other: Any) -> ndarray:
    made = other.__dlpack__(stream=cuda.get_current_stream().ptr)
    assert isinstance(made, ndarray)
    return ndarray._of(made._host)
