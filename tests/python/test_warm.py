# SPDX-License-Identifier: Apache-2.0
"""Warm starts: what a handle holds, which row starts where, and what it saves."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import deqcore
from deqcore import Anderson, Broyden, Neumann, Picard, Status, Warm
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


# Forward solves


FORWARD = [
    Picard(),
    Anderson(),
    Anderson(storage="bfloat16"),
    Broyden(),
    Broyden(history=30),
    Broyden(full="compress", history=6),
]
REMEMBERING = FORWARD[1:]


def forward_case(rng, rows=6, width=40, dtype=np.float64, norm=0.9):
    """A tanh map with its native twin, a start and an injection."""
    W = weights(rng, width, norm).astype(dtype)
    x = rng.standard_normal((rows, width)).astype(dtype)
    return deqcore.maps.Dense(W), (lambda z, x: np.tanh(z @ W.T + x)), np.zeros_like(x), x


@pytest.fixture(params=["native", "callable"])
def of(request):
    """Picks one of the twins."""
    return lambda native, f: native if request.param == "native" else f


class TestForward:
    @pytest.mark.parametrize("method", FORWARD, ids=str)
    def test_off_and_keep_are_the_same_as_cold_to_the_last_bit(self, of, method, dtype, rng):
        native, f, z0, x = forward_case(rng, dtype=dtype)
        f = of(native, f)
        cold = deqcore.fixed_point(f, z0, row_args=(x,), method=method)
        kept = ["state"] + ["history"] * (method.name != "picard")
        for options in ({"warm": None}, {"ids": np.arange(6)}, *({"keep": keep} for keep in kept)):
            other = deqcore.fixed_point(f, z0, row_args=(x,), method=method, **options)
            for name in ("value", "residual", "steps", "status"):
                assert getattr(other, name).tobytes() == getattr(cold, name).tobytes()
            assert (other.nfe, other.scratch_bytes) == (cold.nfe, cold.scratch_bytes)
            assert (other.warm is None) == ("keep" not in options)

    def test_the_same_map_again_takes_one_evaluation(self, of, rng):
        native, f, z0, x = forward_case(rng)
        for method in FORWARD:
            first = deqcore.fixed_point(of(native, f), z0, row_args=(x,), method=method, keep="state")
            again = deqcore.fixed_point(of(native, f), z0 + 3, row_args=(x,), method=method, warm=first.warm)
            assert again.nfe == 1
            assert again.value.tobytes() == first.value.tobytes()

    @pytest.mark.parametrize("method", REMEMBERING, ids=str)
    def test_native_and_callable_go_on_alike(self, method, rng):
        native, _, z0, x = forward_case(rng, rows=70)
        warm = [None, None]
        for _ in range(3):
            solutions = [
                deqcore.fixed_point(g, z0, row_args=(x,), method=method, keep="history", warm=handle)
                for g, handle in zip((native, native.__call__), warm, strict=True)
            ]
            assert solutions[0].value.tobytes() == solutions[1].value.tobytes()
            warm = [solution.warm for solution in solutions]
            assert warm[0].history.memory.tobytes() == warm[1].history.memory.tobytes()
            x = x + 0.01 * rng.standard_normal(x.shape)

    @pytest.mark.parametrize("method", REMEMBERING, ids=str)
    def test_a_row_goes_on_alone_as_in_a_batch(self, method, rng):
        native, _, z0, x = forward_case(rng, rows=9)
        later = x + 0.01 * rng.standard_normal(x.shape)
        options = {"method": method, "keep": "history"}
        first = deqcore.fixed_point(native, z0, row_args=(x,), ids=np.arange(9), **options)
        together = deqcore.fixed_point(native, z0, row_args=(later,), ids=np.arange(9), warm=first.warm, **options)
        for row in (0, 4, 8):
            one = slice(row, row + 1)
            alone = deqcore.fixed_point(native, z0[one], row_args=(later[one],), ids=[row], warm=first.warm, **options)
            assert alone.value.tobytes() == together.value[one].tobytes()
            np.testing.assert_array_equal(alone.warm.history.memory[row], together.warm.history.memory[row])

    @pytest.mark.parametrize("threads", [1, 2])
    def test_looking_and_threads_change_no_bit(self, threads, rng):
        native, _, z0, x = forward_case(rng, rows=50)
        first = deqcore.fixed_point(native, z0, row_args=(x,), method="broyden", keep="history")
        later = x + 0.02 * rng.standard_normal(x.shape)
        options = {"row_args": (later,), "method": "broyden", "warm": first.warm, "keep": "history"}
        expected = deqcore.fixed_point(native.__call__, z0, threads=1, **options)
        for look_every, retire in ((1, False), (3, True), (7, "halve")):
            other = deqcore.fixed_point(
                native.__call__, z0, threads=threads, look_every=look_every, retire=retire, **options
            )
            assert other.value.tobytes() == expected.value.tobytes()
            assert other.warm.history.memory.tobytes() == expected.warm.history.memory.tobytes()

    def test_a_stream_of_frames_takes_less_than_half(self, rng):
        """Linear drift of the input: warm at most half of cold, and with the history less than with the state."""
        W = rng.standard_normal((200, 200)) * 0.9 / np.sqrt(200)
        for method in (Anderson(), Anderson(storage="bfloat16"), Broyden()):
            x, drift = rng.standard_normal((2, 4, 200))
            counts = {"cold": 0, "state": 0, "history": 0}
            warm = dict.fromkeys(counts)
            for frame in range(8):
                for keep in counts:
                    solution = deqcore.fixed_point(
                        deqcore.maps.Dense(W), np.zeros_like(x), row_args=(x,), method=method, rtol=1e-3,
                        warm=warm[keep], keep=None if keep == "cold" else keep,
                    )  # fmt: skip
                    warm[keep] = solution.warm
                    counts[keep] += solution.rows_asked if frame else 0
                x = x + 0.006 * drift
            print(f"\n{method}: {counts}")
            assert counts["state"] <= 0.5 * counts["cold"]
            assert counts["history"] <= 0.8 * counts["state"]

    def test_rows_that_did_not_converge_hand_over_nothing(self, of, rng):
        native, f, z0, x = forward_case(rng)
        f = of(native, f)
        x[:2] *= 6  # saturated: fewer steps
        steps = deqcore.fixed_point(f, z0, row_args=(x,), method="broyden").steps[:2].max()
        options = {"row_args": (x,), "method": "broyden", "on_failure": "return"}
        first = deqcore.fixed_point(f, z0, max_steps=int(steps), keep="history", **options)
        bad = first.status != 0
        assert bad.any()
        assert not bad.all()
        assert np.isnan(first.warm.value[bad]).all()
        assert not first.warm.history.memory[bad].any()
        np.testing.assert_array_equal(first.warm.value[~bad], first.value[~bad])
        again = deqcore.fixed_point(f, z0, warm=first.warm, **options)
        cold = deqcore.fixed_point(f, z0, **options)
        np.testing.assert_array_equal(again.steps, np.where(bad, cold.steps, 1))
        np.testing.assert_allclose(again.value[bad], cold.value[bad], atol=1e-12)  # a library's product: not its bits
        by_hand = deqcore.fixed_point(f, z0, warm=Warm(first.value), **options)  # hands over every row as it is
        assert (by_hand.steps[bad] < cold.steps[bad]).all()

    def test_another_scene_forgets(self, rng):
        native, _, z0, x = forward_case(rng, norm=1.5)
        for method in REMEMBERING:
            first = deqcore.fixed_point(native, z0, row_args=(x,), method=method, keep="history")
            cut = x.copy()
            cut[:3] = 5 * rng.standard_normal((3, 40))
            options = {"row_args": (cut,), "method": method}
            goes_on = deqcore.fixed_point(native, z0, warm=first.warm, **options)
            points = deqcore.fixed_point(native, z0, warm=Warm(first.warm.value), **options)
            assert goes_on.value[:3].tobytes() == points.value[:3].tobytes()
            np.testing.assert_array_equal(goes_on.rejected[:3], points.rejected[:3] + 1)
            assert goes_on.steps[3:].tolist() == [1, 1, 1]

    def test_strangers_start_at_z0_and_older_rows_stay(self, rng):
        _, f, _, x = forward_case(rng)
        z0 = rng.standard_normal(x.shape)
        options = {"method": Broyden(), "keep": "history"}
        first = deqcore.fixed_point(f, z0[:4], row_args=(x[:4],), ids=[5, 1, 9, 3], **options)
        asked = []

        def recorded(z, x):
            asked.append(z.copy())
            return f(z, x)

        second = deqcore.fixed_point(
            recorded, z0[2:], row_args=(x[2:],), ids=[9, 3, 8, 2], warm=first.warm, retire=False, **options
        )
        np.testing.assert_array_equal(asked[0], np.concatenate([first.value[2:], z0[4:]]))
        assert second.steps[:2].tolist() == [1, 1]
        np.testing.assert_array_equal(second.warm.ids, [1, 2, 3, 5, 8, 9])
        old, new = first.warm.history.memory, second.warm.history.memory
        for key in (1, 5):  # not in this batch
            np.testing.assert_array_equal(
                new[np.searchsorted(second.warm.ids, key)], old[np.searchsorted(first.warm.ids, key)]
            )
        assert deqcore.fixed_point(f, z0[:2], row_args=(x[:2],), ids=[5, 1], warm=second.warm, **options).nfe == 1
        stranger = deqcore.fixed_point(f, z0, row_args=(x,), ids=np.arange(6) + 100, warm=first.warm, **options)
        assert stranger.value.tobytes() == deqcore.fixed_point(f, z0, row_args=(x,), method=Broyden()).value.tobytes()
        points = deqcore.fixed_point(
            f, z0[:1], row_args=(x[:1],), ids=[77], keep="state", warm=second.warm, method=Broyden()
        )
        assert points.warm.history is None
        later = deqcore.fixed_point(f, z0[:1], row_args=(x[:1],), ids=[78], warm=points.warm, **options)
        assert later.warm.history.memory.any(axis=1).tolist() == [key == 78 for key in later.warm.ids]

    def test_survives_pickling_and_another_shape_of_row(self, rng):
        block = rng.standard_normal((4, 2, 3))
        for x in (block, block[0, 0]):
            first = deqcore.fixed_point(lambda z, x=x: np.cos(z + x), 0 * x, keep="history")
            assert first.warm.value.shape == x.shape
            warm = pickle.loads(pickle.dumps(first.warm))
            again = deqcore.fixed_point(lambda z, x=x: np.cos(z + x + 1e-3), 0 * x, warm=warm, keep="history")
            assert again.nfe < first.nfe
            assert repr(warm) == repr(first.warm)

    def test_the_handle_does_not_change(self, rng):
        native, f, z0, x = forward_case(rng)
        first = deqcore.fixed_point(native, z0, row_args=(x,), keep="history")
        value, memory = first.warm.value.copy(), first.warm.history.memory.copy()
        for g in (native, f):
            deqcore.fixed_point(g, z0, row_args=(x + 0.1,), warm=first.warm, keep="history")
        np.testing.assert_array_equal(first.warm.value, value)
        np.testing.assert_array_equal(first.warm.history.memory, memory)

    def test_a_ladder_hands_over_its_points(self, rng):
        _, f, z0, x = forward_case(rng)
        ladder = [Picard(), Anderson()]
        first = deqcore.fixed_point(f, z0, row_args=(x,), method=ladder, keep="state", max_steps=40)
        assert deqcore.fixed_point(f, z0, row_args=(x,), method=ladder, warm=first.warm).nfe == 1
        with pytest.raises(ValueError, match=r"^method: a ladder given with a history"):
            deqcore.fixed_point(f, z0, row_args=(x,), method=ladder, keep="history")

    def test_a_history_goes_on_with_its_own_method_only(self, rng):
        native, f, z0, x = forward_case(rng)
        warm = deqcore.fixed_point(f, z0, row_args=(x,), method=Anderson(history=4), keep="history").warm
        for method, said in (
            (Broyden(), "expected the same method"),
            (None, "they differ in history 4 and 6"),
            (Anderson(history=4, beta=0.5, growth=3), "beta 1.0 and 0.5, growth 10.0 and 3.0"),
            (Anderson(history=4, storage="bfloat16"), "they differ in storage 'full' and 'bfloat16'"),
        ):
            for g in (native, f):
                with pytest.raises(ValueError, match=f"^warm: a handle with the history of .*{said}"):
                    deqcore.fixed_point(g, z0, row_args=(x,), method=method, warm=warm)
        with pytest.raises(ValueError, match=r"^keep: 'history' given with Picard.* remembers nothing"):
            deqcore.fixed_point(f, z0, row_args=(x,), method="picard", keep="history")
        with pytest.raises(ValueError, match=r"^keep: 'all' given; expected None, 'state' or 'history'"):
            deqcore.fixed_point(f, z0, row_args=(x,), keep="all")
        torn = dataclasses.replace(warm, history=dataclasses.replace(warm.history, memory=warm.history.memory[:, 1:]))
        with pytest.raises(ValueError, match=r"^warm\.history: .* given; expected shape"):
            deqcore.fixed_point(f, z0, row_args=(x,), method=Anderson(history=4), warm=torn)
        for solve in (deqcore.adjoint, deqcore.tangent):
            with pytest.raises(ValueError, match=r"^warm: <Warm .* of a forward solve given"):
                solve(lambda z, v: v / 2, z0, x, warm=warm)
