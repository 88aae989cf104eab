# SPDX-License-Identifier: Apache-2.0
"""CuPy for the tests of the device door: the real one where there is a GPU, a stand-in where CUDA is emulated.

``DEQCORE_REQUIRE_GPU=1`` turns "no GPU here" from a skip into a failure. ``DEQCORE_EMULATED=1`` is set by
``test_emulated.py``, which runs this folder once more on an extension built for the emulation.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

EMULATED = os.environ.get("DEQCORE_EMULATED") == "1"
if EMULATED:  # the staged package, not one that is installed in place
    sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]


def found() -> tuple[Any, str]:
    """-> (cupy or None, why not)."""
    from deqcore import _core

    if not _core.has_cuda:
        return None, "deqcore was built without CUDA"
    try:
        import cupy
    except ImportError:
        return None, "cupy is not installed"
    if not EMULATED and not _core.cuda_devices():
        return None, _core.cuda_summary()
    return cupy, ""


@pytest.fixture(scope="session")
def cp() -> Any:
    cupy, why = found()
    if cupy is None:
        (pytest.fail if os.environ.get("DEQCORE_REQUIRE_GPU") == "1" else pytest.skip)(why)
    return cupy


@pytest.fixture
def emulator(cp: Any) -> Any:
    """The controls of the emulated run time, put back afterwards."""
    if not EMULATED:
        pytest.skip("only where CUDA is emulated")
    from deqcore import _core

    yield _core
    _core.emulator_driver(13000, 2)
    _core.emulator_seed(1)
    cp.cuda.memory_left = 2**62
