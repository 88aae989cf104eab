# SPDX-License-Identifier: Apache-2.0
"""The short way of native solves: what takes it, that it gives the same bits, and that it refuses what it must."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import deqcore
from deqcore import _adjoint, _fixed_point, maps
from deqcore.maps import Dense


class Odd(np.ndarray):
    """A subclass, which is solved like any array, but not by the short way."""


def unaligned(array):
    moved = np.frombuffer(bytearray(array.nbytes + 1), array.dtype, array.size, 1).reshape(array.shape)
    moved[...] = array
    return moved


USUAL = {
    "as it is": lambda array: array,
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}
UNUSUAL = {
    "a subclass": lambda array: array.view(Odd),
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "unaligned": unaligned,
    "a dtype with metadata": lambda array: array.view(np.dtype(array.dtype, metadata={"unit": "m"})),
}
SHAPES = [((7, 12), (7, 12)), ((7, 12), (12,)), ((7, 12), (1, 12)), ((12,), (12,)), ((12,), (1, 12)), ((1, 12), (12,))]


@pytest.fixture
def problem(rng):
    """A map, its injection, its start and a right side, by dtype and shapes."""

    def make(dtype=np.float64, shape=(7, 12), of_injection=(7, 12)):
        W = rng.standard_normal((12, 12))
        numbers = (rng.standard_normal(s) for s in (of_injection, shape, shape))
        return Dense((W * (0.8 / np.linalg.norm(W, 2))).astype(dtype)), *(array.astype(dtype) for array in numbers)

    return make


@pytest.fixture
def only_short(problem, monkeypatch):
    """As ``problem``; then the long ways are closed."""

    def closed(*given: Any, **options: Any) -> None:
        raise AssertionError("the long way was taken")

    def make(*given):
        made = problem(*given)
        monkeypatch.setattr(_fixed_point, "_fixed_point", closed)
        monkeypatch.setattr(_adjoint, "_linearised", closed)
        monkeypatch.setattr(maps, "check_state", closed)
        return made

    return make


def solves(layer, x, z0, g, **options):
    z = deqcore.fixed_point(layer, z0, row_args=(x,), method="anderson", **options)
    u = deqcore.adjoint(layer, np.ascontiguousarray(z.value) if z0.flags.c_contiguous else z.value, g, row_args=(x,))
    return z, u, layer.value_and_gradients(z0, x, g=g)


def assert_same(one, other):
    for field in dataclasses.fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert type(ours) is type(theirs) is np.ndarray, field.name
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), field.name
            assert ours.tobytes() == theirs.tobytes(), field.name
        else:
            assert ours == theirs, field.name


class TestWhatTakesIt:
    @pytest.mark.parametrize("usual", USUAL.values(), ids=USUAL)
    @pytest.mark.parametrize("shapes", SHAPES, ids=str)
    def test_plain_arrays_do(self, usual, shapes, dtype, only_short):
        layer, *arrays = only_short(dtype, *shapes)
        z, u, step = solves(layer, *map(usual, arrays))
        assert z.success
        assert u.success
        assert step.forward.success
        assert step.dinjection.shape == shapes[1]

    def test_plain_options_do(self, only_short):
        layer, x, z0, g = only_short()
        for method in (None, "picard", deqcore.Anderson(history=3), "broyden", "newton_krylov", deqcore.Newton()):
            assert deqcore.fixed_point(layer, z0, row_args=(x,), method=method, threads=2, norm=np.inf).success
        for method in (None, "bicgstab", deqcore.Direct(), "anderson", deqcore.JacobianFree()):
            deqcore.adjoint(layer, z0, g, row_args=(x,), method=method, retire=False, on_failure="return")

    def test_a_solve_that_failed_did_not_need_the_long_way_to_say_so(self, only_short):
        layer, x, z0, g = only_short()
        for method in ("picard", "newton_krylov"):
            with pytest.raises(deqcore.ConvergenceError, match=r"^fixed_point: 7 of 7 rows did not converge"):
                deqcore.fixed_point(layer, z0, row_args=(x,), method=method, max_steps=2)
        with pytest.raises(deqcore.ConvergenceError, match=r"^adjoint: 7 of 7"):
            deqcore.adjoint(layer, z0, g, row_args=(x,), max_steps=2)
        with pytest.raises(deqcore.ConvergenceError, match=r"^adjoint: 7 of 7"):
            layer.value_and_gradients(z0, x, g=g, adjoint_max_steps=2)
        with pytest.raises(deqcore.ConvergenceError, match=r"^fixed_point: 7 of 7"):
            layer.value_and_gradients(z0, x, g=g, max_steps=2, method="picard")


class TestTheLongWay:
    @pytest.mark.parametrize("unusual", UNUSUAL.values(), ids=UNUSUAL)
    @pytest.mark.parametrize("shapes", SHAPES, ids=str)
    def test_gives_the_same(self, unusual, shapes, dtype, problem):
        layer, *arrays = problem(dtype, *shapes)
        short, long = solves(layer, *arrays), solves(layer, *map(unusual, arrays))
        for one, other in zip(short[:2], long[:2], strict=True):
            assert_same(one, other)
        assert_same(short[2].forward, long[2].forward)
        assert_same(short[2].backward, long[2].backward)
        assert short[2].dW.tobytes() == long[2].dW.tobytes()
        assert short[2].dinjection.tobytes() == long[2].dinjection.tobytes()
        assert short[2].dinjection.shape == long[2].dinjection.shape

    @pytest.mark.parametrize("method", ["picard", "broyden", "newton"])
    def test_gives_the_same_to_options_that_are_not_remembered(self, method, problem):
        layer, x, z0, _ = problem()
        one, other = (
            deqcore.fixed_point(layer, z0, row_args=(x,), method=method, rtol=rtol) for rtol in (1e-7, np.float64(1e-7))
        )
        assert_same(one, other)

    def test_states_of_more_axes_keep_their_shape(self, problem):
        layer, x, z0, g = (array if isinstance(array, Dense) else array.reshape(7, 3, 4) for array in problem())
        z, u, step = solves(layer, x, z0, g)
        for array in (z.value, u.value, step.forward.value, step.backward.value, step.dinjection):
            assert array.shape == (7, 3, 4)

    def test_a_rescue_goes_on_from_what_the_short_way_left(self, problem):
        _, x, z0, _ = problem()
        shift = Dense(3 * np.roll(np.eye(12), 1, axis=0), activation="identity")  # a window of 6 columns stagnates
        short, long = (
            deqcore.fixed_point(shift, start, row_args=(x,), on_failure="return") for start in (z0, z0.view(Odd))
        )
        assert "anderson" not in short.method
        assert short.method.tolist() == long.method.tolist()
        assert_same(*(dataclasses.replace(solution, _method="") for solution in (short, long)))


class TestErrors:
    def test_are_those_of_the_long_way_whatever_was_remembered(self, problem):
        layer, x, z0, _ = problem()
        solve = lambda **options: deqcore.fixed_point(layer, z0, row_args=(x,), **options)  # noqa: E731
        solve(max_steps=100, look_every=1, rtol=1e-3)
        for options, error, message in [
            ({"max_steps": True}, TypeError, "^max_steps: True given; expected an integer"),
            ({"max_steps": 100.0}, TypeError, r"^max_steps: 100\.0 given; expected an integer"),
            ({"look_every": True}, TypeError, "^look_every: True given"),
            ({"trace": 0}, TypeError, "^trace: 0 given; expected True or False"),
            ({"pass_rows": 0}, TypeError, "^pass_rows: 0 given; expected True or False"),
            ({"args": []}, TypeError, "^args: list given; expected a tuple"),
            ({"on_failure": "raises"}, ValueError, "^on_failure: 'raises' given"),
            ({"rtol": 1e-20}, ValueError, "^rtol: "),
        ]:
            with pytest.raises(error, match=message):
                solve(**options)
            with pytest.raises(error, match=message):  # and again
                solve(**options)

    def test_of_arrays_come_before_those_of_options(self, problem):
        layer, x, z0, g = problem()
        bad = z0.copy()
        bad[2, 3] = np.nan
        for call in (
            lambda z0: deqcore.fixed_point(layer, z0, row_args=(x,), method="piccard"),
            lambda z0: layer.value_and_gradients(z0, x, g=g, method="piccard"),
        ):
            with pytest.raises(ValueError, match=r"^z0: nan at index \(2, 3\); expected finite numbers"):
                call(bad)
            with pytest.raises(ValueError, match=r"^method: 'piccard' given"):
                call(z0)

    def test_of_the_other_arrays(self, problem):
        layer, x, z0, g = problem()
        wrong = x.copy()
        wrong[6, 11] = np.inf
        for call in (
            lambda x: deqcore.fixed_point(layer, z0, row_args=(x,)),
            lambda x: deqcore.adjoint(layer, z0, g, row_args=(x,)),
            lambda x: layer.value_and_gradients(z0, x, g=g),
        ):
            with pytest.raises(ValueError, match=r"^injection: inf at index \(6, 11\)"):
                call(wrong)
            with pytest.raises(ValueError, match=r"^injection: array of shape \(6, 12\)"):
                call(x[:6])
        for call in (
            lambda g: deqcore.adjoint(layer, z0, g, row_args=(x,)),
            lambda g: layer.value_and_gradients(z0, x, g=g),
        ):
            with pytest.raises(ValueError, match=r"^g: inf at index \(6, 11\)"):
                call(wrong)
            with pytest.raises(ValueError, match=r"^g: array of shape \(6, 12\)"):
                call(g[:6])


class TestItsSolution:
    def made(self, problem):
        layer, x, z0, _ = problem()
        return deqcore.fixed_point(layer, z0, row_args=(x,))

    @pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_can_be_copied_and_pickled_before_anything_was_looked_at(self, through, problem):
        solution = self.made(problem)
        other = through(solution)
        assert_same(solution, other)
        assert other.success is True
        assert other.explain() == solution.explain()

    def test_is_as_frozen_as_any(self, problem):
        solution = self.made(problem)
        with pytest.raises(dataclasses.FrozenInstanceError):
            solution.status = None
        with pytest.raises(AttributeError, match=r"^'Solution' object has no attribute 'values'"):
            solution.values  # noqa: B018

    def test_success_follows_the_statuses_that_replace_its_own(self, problem):
        solution = self.made(problem)
        assert solution.success is True
        assert dataclasses.replace(solution, status=np.full(7, -1, np.int8)).success is False

    def test_has_one_array_per_field_whoever_asks_first(self, problem):
        for _ in range(20):
            solution, found, ready = self.made(problem), [], threading.Barrier(4)

            def look(solution=solution, found=found, ready=ready):
                ready.wait()
                found.append(solution.steps)

            askers = [threading.Thread(target=look) for _ in range(4)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()
            assert all(steps is solution.steps for steps in found)

    def test_takes_no_more_memory_than_its_report(self, problem):
        solution = self.made(problem)
        arrays = {name: getattr(solution, name) for name in ("residual", "scale", "steps", "rejected", "singular")}
        assert sum(array.nbytes for array in (*arrays.values(), solution.status)) == 7 * 29
        for array in (*arrays.values(), solution.status):
            assert array.flags.writeable
            assert array.flags.aligned


def test_the_default_number_of_threads_is_that_of_the_call(rng):
    W = rng.standard_normal((300, 300))
    layer, z0, x = Dense(W * (0.5 / np.linalg.norm(W, 2))), np.zeros((64, 300)), np.ones((64, 300))
    before = deqcore.num_threads()
    held = []
    try:
        for threads in (1, 2, 1):
            deqcore.set_num_threads(threads)
            held.append(deqcore.fixed_point(layer, z0, row_args=(x,)).scratch_bytes)
            long = deqcore.fixed_point(layer, z0, row_args=(x,), trace=True)
            assert held[-1] == long.scratch_bytes
    finally:
        deqcore.set_num_threads(before)
    assert held[0] == held[2] != held[1]


def test_newtons_methods_go_forward_in_a_training_step(problem):
    layer, x, z0, g = problem()
    step = layer.value_and_gradients(z0, x, g=g, method="newton_krylov", rtol=1e-12)
    alone = deqcore.fixed_point(layer, z0, row_args=(x,), method="newton_krylov", rtol=1e-12, max_steps=200)
    assert_same(step.forward, alone)
    assert step.forward.products > 0


@pytest.mark.parametrize("missing", range(3), ids=["x", "z0", "g"])
def test_none_is_named(missing, problem):
    layer, *arrays = problem()
    arrays[missing] = None
    x, z, g = arrays
    expected = ["injection", "z", "g"][missing]
    with pytest.raises(TypeError, match=f"^{expected}: NoneType given|^{expected}: None given"):
        deqcore.adjoint(layer, z, g, row_args=(x,))
    if missing < 2:
        with pytest.raises(TypeError, match=r"^(injection|z0): None"):
            deqcore.fixed_point(layer, z, row_args=(x,))
        with pytest.raises(TypeError, match=r"^(injection|z0): None"):
            layer.value_and_gradients(z, x, g=g)
