# SPDX-License-Identifier: Apache-2.0
"""Warm starts: what a handle holds, which row starts where, and what it saves."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import deqcore
from deqcore import Neumann, Picard, Status, Warm
from support.problems import Asked, relative_error, weights

METHODS = ["gmres", "bicgstab", "direct", "anderson", "picard"]
SOLVES = {"adjoint": deqcore.adjoint, "tangent": deqcore.tangent}


def case(rng, rows=6, width=40, dtype=np.float64, norm=0.9):
    """A product with a matrix for all rows, z, g."""
    A = weights(rng, width, norm).astype(dtype)
    z, g = rng.standard_normal((2, rows, width)).astype(dtype)
    return (lambda z, v: v @ A), z, g


def started_at(solve, product, *given, **options):
    """What a solve asks about first: its starting points, where it is given any."""
    asked = Asked(lambda v: product(None, v))
    solve(lambda z, v: asked(v), *given, **options)
    return asked.seen[0]


@pytest.mark.parametrize("solve", SOLVES.values(), ids=SOLVES)
class TestByPosition:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_same_system_again_takes_one_product_and_changes_no_bit(self, solve, method, dtype, rng):
        product, z, g = case(rng, dtype=dtype)
        first = solve(product, z, g, method=method, keep="state")
        again = solve(product, z, g, method=method, warm=first.warm)
        assert again.nfe == 1
        assert again.value.tobytes() == first.value.tobytes()
        assert again.warm is None

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "anderson", "picard"])
    def test_a_system_nearby_takes_fewer_products_native_too(self, solve, method, rng):
        rows, width = 6, 60
        W = weights(rng, width, 0.9)
        z, g, c = rng.standard_normal((3, rows, width))
        layer = deqcore.maps.Dense(W)
        options = {"method": method, "rtol": 1e-8, "max_steps": 500}
        first = solve(layer, z, g, row_args=(c,), keep="state", **options)
        z, g = z + 1e-4 * rng.standard_normal(z.shape), g + 1e-4 * rng.standard_normal(g.shape)
        cold = solve(layer, z, g, row_args=(c,), **options)
        warm = solve(layer, z, g, row_args=(c,), warm=first.warm, **options)
        print(f"\n{method}: products asked {cold.rows_asked} cold, {warm.rows_asked} warm")
        assert warm.rows_asked < 0.8 * cold.rows_asked
        assert relative_error(warm.value, cold.value) < 1e-6
        as_callable = layer.vjp if solve is deqcore.adjoint else layer.jvp
        dialogue = solve(as_callable, z, g, row_args=(c,), warm=first.warm, **options)
        assert dialogue.value.tobytes() == warm.value.tobytes()

    def test_off_is_the_same_as_cold_to_the_last_bit(self, solve, dtype, rng):
        product, z, g = case(rng, dtype=dtype)
        for method in METHODS:
            cold = solve(product, z, g, method=method)
            for other in (
                solve(product, z, g, method=method, keep="state"),
                solve(product, z, g, method=method, keep="state", ids=np.arange(6)),
                solve(product, z, g, method=method, warm=None, keep=None),
                solve(product, z, g, method=method, ids=np.arange(6)),
            ):
                assert other.value.tobytes() == cold.value.tobytes()
                assert (other.nfe, other.rows_asked) == (cold.nfe, cold.rows_asked)
            assert cold.warm is None

    def test_the_handle_is_a_copy_of_the_solution(self, solve, rng):
        product, z, g = case(rng)
        first = solve(product, z, g, keep="state")
        assert first.warm.ids is None
        assert not np.shares_memory(first.warm.value, first.value)
        before = first.warm.value.copy()
        first.value[:] = 0
        np.testing.assert_array_equal(first.warm.value, before)
        np.testing.assert_array_equal(started_at(solve, product, z, g, warm=first.warm), before)
        np.testing.assert_array_equal(first.warm.value, before)  # a later solve leaves it alone

    def test_one_axis_and_more_axes(self, solve, rng):
        g = rng.standard_normal((4, 2, 3))
        for right in (g, g[0, 0]):
            first = solve(lambda z, v: v / 2, 0 * right, right, keep="state")
            assert first.warm.value.shape == right.shape
            assert solve(lambda z, v: v / 2, 0 * right, right, warm=first.warm).nfe == 1

    def test_rows_that_failed_start_from_the_best_they_had(self, solve, rng):
        product, z, g = case(rng, norm=0.99)
        first = solve(product, z, g, keep="state", max_steps=4, on_failure="return", method="gmres")
        assert (first.status == Status.out_of_steps).all()
        np.testing.assert_array_equal(started_at(solve, product, z, g, warm=first.warm), first.value)

    def test_a_chain_of_steps_of_training(self, solve, rng):
        product, z, g = case(rng)
        warm, saved, products = None, 0, 0
        for _ in range(5):
            g = g + 1e-3 * rng.standard_normal(g.shape)
            solution = solve(product, z, g, warm=warm, keep="state", rtol=1e-6)
            cold = solve(product, z, g, rtol=1e-6)
            warm, saved, products = solution.warm, saved + cold.nfe - solution.nfe, products + cold.nfe
            assert relative_error(solution.value, cold.value) < 1e-4
        assert saved > 0.2 * products


@pytest.mark.parametrize("solve", SOLVES.values(), ids=SOLVES)
class TestByIds:
    def test_rows_are_matched_whatever_batch_they_come_in(self, solve, rng):
        product, z, g = case(rng)
        ids = np.array([40, -7, 3, 2**62, 0, 11])
        first = solve(product, z, g, ids=ids, keep="state")
        np.testing.assert_array_equal(first.warm.ids, np.sort(ids))
        order = rng.permutation(6)[:4]
        started = started_at(solve, product, z[order], g[order], ids=ids[order], warm=first.warm)
        np.testing.assert_array_equal(started, first.value[order])
        again = solve(product, z[order], g[order], ids=ids[order], warm=first.warm)
        assert again.nfe == 1

    def test_rows_that_it_does_not_know_start_from_zero(self, solve, rng):
        product, z, g = case(rng)
        first = solve(product, z, g, ids=np.arange(6), keep="state")
        ids = np.array([100, 2, -5, 4, 101, 0])
        order = [3, 2, 1, 4, 5, 0]
        started = started_at(solve, product, z[order], g[order], ids=ids, warm=first.warm)
        expected = first.value[order]
        expected[[0, 2, 4]] = 0
        np.testing.assert_array_equal(started, expected)
        cold = solve(product, z[order], g[order])
        warm = solve(product, z[order], g[order], ids=ids, warm=first.warm)
        assert warm.steps[[1, 3, 5]].tolist() == [1, 1, 1]
        assert relative_error(warm.value, cold.value) < 1e-9
        # none known: a cold start, to the last bit
        for method in METHODS:
            stranger = solve(product, z, g, ids=np.arange(6) + 1000, warm=first.warm, method=method)
            assert stranger.value.tobytes() == solve(product, z, g, method=method).value.tobytes()

    def test_one_axis_is_one_row_of_its_own_id(self, solve, rng):
        product, z, g = case(rng)
        warm = None
        for i in range(6):
            first = solve(product, z[i], g[i], ids=[i], keep="state", warm=warm)
            warm = first.warm
            np.testing.assert_array_equal(warm.value[i], first.value)
        np.testing.assert_array_equal(warm.ids, np.arange(6))
        assert solve(product, z[3], g[3], ids=[3], warm=warm).nfe == 1
        assert solve(product, z, g, ids=np.arange(6), warm=warm).nfe == 1
        cube = g.reshape(6, 4, 10)
        first = solve(lambda z, v: v / 2, cube, cube, ids=np.arange(6), keep="state")
        assert first.warm.value.shape == (6, 4, 10)
        assert solve(lambda z, v: v / 2, cube[1:3], cube[1:3], ids=[1, 2], warm=first.warm).nfe == 1

    def test_the_new_handle_holds_the_rows_of_both(self, solve, dtype, rng):
        product, z, g = case(rng, dtype=dtype)
        first = solve(product, z[:3], g[:3], ids=[5, 1, 9], keep="state")
        second = solve(product, z[2:], 2 * g[2:], ids=[9, 0, 7, 2], warm=first.warm, keep="state")
        np.testing.assert_array_equal(second.warm.ids, [0, 1, 2, 5, 7, 9])
        assert second.warm.ids.dtype == np.int64
        assert second.warm.value.dtype == dtype
        held = dict(zip(second.warm.ids, second.warm.value, strict=True))
        for key, row in zip([9, 0, 7, 2], second.value, strict=True):  # the newer one of 9
            np.testing.assert_array_equal(held[key], row)
        for key, row in zip([5, 1], first.value[:2], strict=True):
            np.testing.assert_array_equal(held[key], row)
        np.testing.assert_array_equal(first.warm.ids, [1, 5, 9])  # the older handle is as it was

    def test_an_epoch_of_shuffled_batches(self, solve, rng):
        A = weights(rng, 30, 0.9)
        g = rng.standard_normal((50, 30))
        product = lambda z, v: v @ A  # noqa: E731
        warm, products = None, []
        for _ in range(3):
            order, asked = rng.permutation(50), 0
            for ids in np.split(order, 5):
                solution = solve(product, 0 * g[ids], g[ids], ids=ids, warm=warm, keep="state")
                warm, asked = solution.warm, asked + solution.nfe
            products.append(asked)
            assert len(warm.ids) == min(50, len(warm.value))
        assert products[1:] == [5, 5]
        assert products[0] > 50


class TestHandles:
    def test_survive_pickling_and_copying(self, rng):
        product, z, g = case(rng)
        first = deqcore.adjoint(product, z, g, ids=np.arange(6), keep="state")
        for warm in (pickle.loads(pickle.dumps(first)).warm, copy.deepcopy(first.warm)):
            assert deqcore.adjoint(product, z, g, ids=np.arange(6), warm=warm).nfe == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            first.warm.value = None

    def test_can_be_made_by_hand_with_ids_in_any_order(self, rng):
        product, z, g = case(rng)
        u = deqcore.adjoint(product, z, g).value
        ids = np.array([30, 10, 20, 0, 50, 40])
        assert deqcore.adjoint(product, z, g, warm=Warm(u)).nfe == 1
        assert deqcore.adjoint(product, z, g, ids=ids, warm=Warm(u, ids)).nfe == 1
        merged = deqcore.adjoint(product, z[:2], g[:2], ids=ids[:2], warm=Warm(u, ids), keep="state").warm
        np.testing.assert_array_equal(merged.ids, np.sort(ids))
        np.testing.assert_array_equal(merged.value, u[np.argsort(ids)])

    def test_a_row_that_is_not_finite_starts_from_zero(self, rng):
        """As after an approximate gradient that overflowed: one bad step must not spoil every later one."""
        product, z, g = case(rng)
        with np.errstate(over="ignore", invalid="ignore"):
            first = deqcore.adjoint(
                lambda z, v: np.where(np.arange(6)[:, None] == 2, np.nan, product(z, v)),
                z, g, method=Neumann(3), keep="state", ids=np.arange(6), on_failure="return",
            )  # fmt: skip
        assert first.status.tolist() == [1, 1, Status.not_finite, 1, 1, 1]
        by_position = Warm(first.value)
        for options in ({"warm": by_position}, {"warm": first.warm, "ids": np.arange(6)}):
            again = deqcore.adjoint(product, z, g, **options)
            assert again.success
            started = started_at(deqcore.adjoint, product, z, g, **options)
            assert not started[2].any()
            np.testing.assert_array_equal(started[[0, 1, 3, 4, 5]], first.value[[0, 1, 3, 4, 5]])

    def test_go_from_one_method_and_function_to_another(self, rng):
        A = weights(rng, 20, 0.9, symmetric=True)
        A = (A + A.T) / 2  # so that adjoint and tangent have one solution
        z, g = rng.standard_normal((2, 5, 20))
        product = lambda z, v: v @ A  # noqa: E731
        warm = deqcore.adjoint(product, z, g, keep="state", rtol=1e-12).warm
        for method in METHODS:
            assert deqcore.tangent(product, z, g, warm=warm, method=method).nfe == 1
        rough = deqcore.adjoint(product, z, g, method=Neumann(5), keep="state").warm
        assert deqcore.adjoint(product, z, g, warm=rough, method=Picard(), max_steps=2000).success
