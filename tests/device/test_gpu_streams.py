# SPDX-License-Identifier: Apache-2.0
"""On a real GPU: work of a solve waits for what stands before it on its stream, and for nothing else."""

from __future__ import annotations

import os

import numpy as np
import pytest

import deqcore

pytestmark = pytest.mark.skipif(os.environ.get("DEQCORE_EMULATED") == "1", reason="needs time that passes")

DELAY = 100_000_000  # clock ticks: tens of milliseconds


@pytest.fixture
def delay(cp):
    """A kernel that keeps its stream busy."""
    return cp.RawKernel(
        "extern C __global__ void delay(long long ticks) {"
        "  const long long start = clock64(); while (clock64() - start < ticks) {} }".replace("extern C", 'extern "C"'),
        "delay",
    )


def solve_behind_a_delay(cp, delay, stream_address, set_x):
    """x is written behind the delay; a solve that started too early would see what it held before."""
    delay((1,), (1,), (np.int64(DELAY),))
    x = set_x()
    return deqcore.fixed_point(lambda z, x: z * 0.5 + x, cp.zeros((4, 8)), row_args=(x,), stream=stream_address)


def test_of_cupy(cp, delay):
    stream = cp.cuda.Stream(non_blocking=True)
    x = cp.full((4, 8), 7.0)
    cp.cuda.Device().synchronize()
    with stream:

        def set_x():
            x.fill(1.0)
            return x

        solution = solve_behind_a_delay(cp, delay, stream, set_x)
    stream.synchronize()
    np.testing.assert_allclose(solution.value.get(), 2.0, rtol=1e-6)


def test_of_torch(cp, delay):
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream()
    x = torch.full((4, 8), 7.0, dtype=torch.float64, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), cp.cuda.ExternalStream(stream.cuda_stream):

        def set_x():
            x.fill_(1.0)
            return cp.asarray(x)

        solution = solve_behind_a_delay(cp, delay, stream.cuda_stream, set_x)
    stream.synchronize()
    np.testing.assert_allclose(solution.value.get(), 2.0, rtol=1e-6)


def test_another_stream_is_not_waited_for(cp, delay):
    busy, free = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    cp.zeros(1)
    cp.cuda.Device().synchronize()
    with busy:
        delay((1,), (1,), (np.int64(20 * DELAY),))
    with free:
        solution = deqcore.fixed_point(lambda z: z * 0.5 + 1, cp.zeros((4, 8)))
        assert bool(solution.success)
    assert not busy.done
    busy.synchronize()
