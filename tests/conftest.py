# SPDX-License-Identifier: Apache-2.0
"""What every Python test shares: seeded inputs, both dtypes, hypothesis without deadlines."""

from __future__ import annotations

import importlib.util
import os
import zlib

# The tests' own matrices are small: threads that spin for them cost more than they bring. Before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

SEED = int(os.environ.get("DEQCORE_TEST_SEED", "0"))

if importlib.util.find_spec("hypothesis"):  # a machine used for its GPU may lack it; the tests of the device need none
    from hypothesis import settings

    # No database: a test run leaves nothing behind. No deadline: the machines that run this are busy.
    settings.register_profile("fresh", deadline=None, max_examples=25, database=None)
    settings.register_profile("ci", settings.get_profile("fresh"), derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "fresh")


def pytest_configure(config: pytest.Config) -> None:
    # With -n of pytest-xdist: a file stays in one process, with what it prepares, and the files come in their order,
    # because the first ones build with CMake and take longest.
    if config.getoption("dist", "no") == "load":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False


def pytest_report_header() -> str:
    return f"deqcore tests: DEQCORE_TEST_SEED={SEED} (change it for other inputs)"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Inputs of its own for every test, the same at every run with one seed."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(scope="module")
def module_rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """The same for what a module prepares once for all its tests."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param
