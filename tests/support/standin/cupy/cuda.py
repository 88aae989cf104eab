# SPDX-License-Identifier: Apache-2.0
"""Streams and devices of the stand-in, on the emulated CUDA run time."""

from __future__ import annotations

import sys
from typing import Any

from deqcore import _core

current_device = 0
memory_left = 2**62
allocated = 0
_streams: list[Any] = []
_addresses = [0]  # of all streams ever made
_kept: list[Any] = []


class _StreamBase:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr

    def synchronize(self) -> None:
        _core.emulator_synchronize(self.ptr)

    def __enter__(self) -> Any:
        _streams.append(self)
        return self

    def __exit__(self, *unused: Any) -> None:
        _streams.pop()

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.ptr)


class Device:
    """The current one."""

    @property
    def id(self) -> int:
        return current_device


class Stream(_StreamBase):
    def __init__(self, non_blocking: bool = False) -> None:
        super().__init__(_core.emulator_make_stream())
        _addresses.append(self.ptr)


class ExternalStream(_StreamBase):
    pass


_null = _StreamBase(0)


def get_current_stream() -> Any:
    return _streams[-1] if _streams else _null


def _keep(memory: Any) -> None:
    """Memory outlives the work that may still use it, as in a pool that gives memory back in the order of streams."""
    if not any(_core.emulator_pending(address) for address in _addresses):
        _kept[:] = [kept for kept in _kept if sys.getrefcount(kept) > 3]  # this list, `kept` and the call
    _kept.append(memory)


def _order() -> None:
    """What is on the current stream comes before what follows."""
    _core.emulator_run(get_current_stream().ptr)


class OutOfMemoryError(MemoryError):
    pass


def _allocate(size: int) -> None:
    global allocated
    if size > memory_left:
        raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
    allocated += size
