# SPDX-License-Identifier: Apache-2.0
"""The rules about who includes whom hold, and the script that checks them finds a breach of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import check_floors
import pytest


def test_every_include_goes_down():
    assert check_floors.violations(check_floors.ROOT) == []


PLANTED = [
    ("cpp/deqcore/base/rows.hpp", '#include "deqcore/device/pool.hpp"', "device is not below base"),
    ("cpp/deqcore/adjoint/adjoint.hpp", '#include "deqcore/newton/newton.hpp"', "newton is not below adjoint"),
    ("cpp/deqcore/maps/dense.cpp", '#include "deqcore/deqcore.hpp"', "includes the front door"),
    ("cpp/deqcore/fixed_point/picard.cpp", '#include "deqcore/kernels/cpu/lanes.hpp"', "a backend's folder is its own"),
    ("cpp/deqcore/device/map.hpp", "#include <cuda_runtime.h>", "includes the CUDA header"),
    ("cpp/deqcore/kernels/step.hpp", '#include "deqcore/kernels/cuda/launch.cuh"', "only .cu and .cuh files"),
    ("python/bindings/maps.cpp", '#include "deqcore/kernels/step.hpp"', "is not installed"),
    ("python/deqcore/errors.py", "from . import _core", "imports _core"),
    ("python/deqcore/_options.py", "import cupy", "imports cupy at module level"),
]


@pytest.mark.parametrize(("file", "line", "said"), PLANTED, ids=[entry[2] for entry in PLANTED])
def test_a_planted_breach_is_found(tmp_path: Path, file: str, line: str, said: str):
    for folder in ("cpp", "python"):
        shutil.copytree(check_floors.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    planted = tmp_path / file
    planted.write_text(line + "\n" + planted.read_text())
    found = check_floors.violations(tmp_path)
    assert len(found) >= 1
    assert all(file.removeprefix("cpp/") in each for each in found)
    assert any(said in each for each in found)
