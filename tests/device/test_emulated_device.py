# SPDX-License-Identifier: Apache-2.0
"""What only an emulated device shows exactly: waits, allocations, thread orders, and devices that fail."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest

import deqcore
from support.building import ROOT

ROWS, WIDTH = 6, 50


@pytest.fixture
def solve(cp, rng):
    slopes = cp.asarray(np.linspace(0.1, 0.9, ROWS)[:, None])
    x = cp.asarray(rng.standard_normal((ROWS, WIDTH)))

    def run(**options):
        options = {"row_args": (slopes, x), **options}
        return deqcore.fixed_point(lambda z, s, x: s * cp.tanh(z) + x, cp.zeros((ROWS, WIDTH)), **options)

    return run


@pytest.mark.parametrize("look_every", [1, 4, 7, 1000])
def test_the_host_waits_at_its_looks_only(emulator, solve, look_every):
    before = emulator.emulator_waits()
    solution = solve(look_every=look_every, max_steps=60, on_failure="return")
    waits = emulator.emulator_waits() - before
    assert waits == math.ceil(int(solution.steps.max()) / look_every)


def test_nothing_is_allocated_while_it_iterates(emulator, cp):
    answers = [cp.zeros((ROWS, WIDTH)) for _ in range(2)]
    allocated = []

    def f(z):
        allocated.append(cp.cuda.allocated)
        answer = answers[len(allocated) % 2]
        answer[...] = z * 0.5 + 1
        return answer

    solution = deqcore.fixed_point(f, cp.zeros((ROWS, WIDTH)), retire=False)
    assert solution.success
    assert len(set(np.diff(allocated))) == 1, "what the map itself makes, the same at every step"
    z = cp.zeros((ROWS, WIDTH))
    before = cp.cuda.allocated
    z * 0.5 + 1
    assert np.diff(allocated)[0] == cp.cuda.allocated - before


def test_no_thread_order_changes_a_bit(emulator, solve):
    values = []
    for seed in (1, 2, 3):
        emulator.emulator_seed(seed)
        values.append(solve().value.get())
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_why_there_is_no_device_is_said(emulator, solve):
    for driver, devices, said in (
        (0, 0, "device: no CUDA driver on this machine"),
        (12080, 1, r"device: the CUDA driver supports 12\.8, this build of deqcore needs 13\.0 or newer"),
        (13000, 0, "device: .*cudaErrorNoDevice"),
    ):
        emulator.emulator_driver(driver, devices)
        with pytest.raises(deqcore.DeviceError, match=said):
            solve()
    emulator.emulator_driver(13000, 2)
    assert solve().success


def test_an_array_on_another_device_is_refused(emulator, cp):
    z = cp.zeros((3, 4))
    z.device.id = 1
    with pytest.raises(ValueError, match="z0: array on device 1 given; expected device 0, the current one"):
        deqcore.fixed_point(lambda z: z, z)
    x = cp.zeros((3, 4))
    x.device.id = 1
    with pytest.raises(ValueError, match=r"row_args\[0\]: array on device 1 given; expected device 0"):
        deqcore.fixed_point(lambda z, x: z, cp.zeros((3, 4)), row_args=(x,))


def test_out_of_memory_releases_everything(emulator, cp, solve):
    z0 = cp.zeros((ROWS, WIDTH))
    there = weakref.ref(z0)
    cp.cuda.memory_left = 1000
    with pytest.raises(MemoryError, match="Out of memory"):
        deqcore.fixed_point(lambda z: z * 0.5, z0)
    cp.cuda.memory_left = 2**62
    del z0
    cp.zeros(1)  # the stand-in lets go of memory when the next is made
    gc.collect()
    assert there() is None, "the failed solve holds nothing"
    assert solve().success


def test_a_build_without_cuda_says_so(emulator, cp, monkeypatch):
    z = cp.zeros((3, 4))
    monkeypatch.setattr(emulator, "has_cuda", False)
    with pytest.raises(TypeError, match=r"z0: .*on a CUDA device given; .*this build of deqcore has no CUDA backend"):
        deqcore.fixed_point(lambda z: z, z)


def test_the_benchmark_of_a_step_runs(emulator, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from harness.measure import Plan
    from python import device

    lines = list(device.cases(Plan(quick=True)))
    assert {line["method"] for line in lines} == {"picard", "anderson"}
    assert all(line["queue"] == "cuda" and line["over_floor"] > 0 for line in lines)


def test_streams_without_the_protocol_and_of_other_devices(emulator, cp):
    class Old:
        def __init__(self, ptr, device_id=-1):
            self.ptr, self.device_id = ptr, device_id

    z0 = cp.zeros((3, 4))
    stream = cp.cuda.Stream()
    assert deqcore.fixed_point(lambda z: z * 0.5 + 1, z0, stream=Old(stream.ptr)).success
    with pytest.raises(ValueError, match="stream: a stream of device 1 given; expected one of device 0"):
        deqcore.fixed_point(lambda z: z * 0.5 + 1, z0, stream=Old(stream.ptr, 1))


def test_a_stream_lives_as_long_as_a_solve_that_was_given_up(emulator, cp):
    class Owner:
        def __init__(self, ptr):
            self.ptr = ptr

    stream = cp.cuda.Stream()
    owner = Owner(stream.ptr)
    there = weakref.ref(owner)

    def f(z):
        raise KeyError

    try:
        deqcore.fixed_point(f, cp.zeros((3, 4)), stream=owner)
    except KeyError as error:
        del owner
        gc.collect()
        assert there() is not None, "the traceback holds the solver, and it the stream"
        error.__traceback__ = None
    gc.collect()
    assert there() is None
