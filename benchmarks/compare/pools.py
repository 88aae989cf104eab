# SPDX-License-Identifier: Apache-2.0
"""Thread pools of several libraries in one process, each with as many threads as the case has.

A pool that waits by spinning slows whoever comes next: OpenMP spins some 10 ms after its last loop, OpenBLAS 30 to more
than 100 ms after its last product on several threads. So before each contestant BLAS goes back to one thread, which
ends its spinning, and there is a pause until this process takes no time; then one untimed call wakes the contestant's
own pool.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

LOOK, QUIET, PATIENCE = 0.002, 0.1, 0.25  # seconds between looks; share of them at work that is quiet; seconds at most
WAKE_BELOW = 0.02  # seconds: longer calls wake their pools themselves


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


def find_again() -> None:
    """After another BLAS was loaded."""
    _controller.cache_clear()


def blas_libraries() -> list[str]:
    """Where the loaded ones lie."""
    controller = _controller()
    return [] if controller is None else [library.filepath for library in controller.lib_controllers]


def described() -> str:
    """The BLAS libraries that are loaded, and the CPU that each takes this one for."""
    controller = _controller()
    if controller is None:
        return "unknown without threadpoolctl"
    found = (library.info() for library in controller.lib_controllers)
    return "; ".join(f"{one['internal_api']} {one['version']} {one.get('architecture', '')}".strip() for one in found)


def set_threads(blas: int, torch: int) -> None:
    controller = _controller()
    if controller is not None:
        for library in controller.lib_controllers:
            library.set_num_threads(blas)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(torch)


def wait_until_quiet() -> None:
    """Sleep until no thread of this process spins."""
    for _ in range(int(PATIENCE / LOOK)):
        worked, start = time.process_time(), time.perf_counter()
        time.sleep(LOOK)
        if time.process_time() - worked < QUIET * (time.perf_counter() - start):
            return


def before(blas: int, torch: int, body: Callable[[], Any], seconds: float) -> Callable[[], None]:
    """What a contestant needs before it is timed."""

    def ready() -> None:
        set_threads(1, torch)
        wait_until_quiet()
        set_threads(blas, torch)
        if seconds < WAKE_BELOW:
            body()

    return ready
