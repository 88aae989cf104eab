# SPDX-License-Identifier: Apache-2.0
"""Thread pools of several libraries in one process, each with as many threads as the case has.

A pool that waits by spinning slows whoever comes next: OpenBLAS spins some 27 ms after its last product, OpenMP for
some milliseconds. So there is a pause before each contestant, and one untimed call that wakes its own pool.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

PAUSE, AFTER_BLAS = 0.004, 0.035
WAKE_BELOW = 0.02  # seconds: longer calls wake their pools themselves
_last_blas = 1


def prepare(threads: int) -> None:
    """Before JAX is imported: its pool has one size for the process."""
    os.environ["PJRT_NPROC"] = os.environ["NPROC"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("EQX_ON_ERROR", "nan")  # of optimistix: a solve that fails answers NaN, and is judged so


@lru_cache(maxsize=1)
def _controller() -> Any:
    """Of every BLAS that is loaded; found once, when all libraries are."""
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def blas_libraries() -> list[str]:
    """Where the loaded ones lie."""
    controller = _controller()
    return [] if controller is None else [library.filepath for library in controller.lib_controllers]


def set_threads(blas: int, torch: int) -> None:
    controller = _controller()
    if controller is not None:
        for library in controller.lib_controllers:
            library.set_num_threads(blas)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(torch)


def before(blas: int, torch: int, body: Callable[[], Any], seconds: float) -> Callable[[], None]:
    """What a contestant needs before it is timed."""

    def ready() -> None:
        global _last_blas
        time.sleep(AFTER_BLAS if _last_blas > 1 else PAUSE)
        set_threads(blas, torch)
        _last_blas = blas
        if seconds < WAKE_BELOW:
            body()

    return ready
