# SPDX-License-Identifier: Apache-2.0
"""fixed_point finds what the references find, and every option does what its docstring says."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import Anderson, AndersonTypeI, Picard, Progress, Status
from support.problems import ACTIVATIONS, SHAPES, Recorder, dense_fixed_point, dense_value, power_of_two, weights

METHODS = [Picard(), Picard(beta=0.6), Anderson(), Anderson(history=1), Anderson(history=32, beta=0.8), AndersonTypeI()]


def contraction(rng, rows, width, dtype, norm=0.8):
    """tanh(W z + x) in the given dtype, its x, and its fixed points at float64."""
    W, x = weights(rng, width, norm), rng.standard_normal((rows, width))
    W, x = W.astype(dtype), x.astype(dtype)
    return (lambda z, x: np.tanh(z @ W.T + x)), x, dense_fixed_point("tanh", W, x)


def error_bound(dtype, norm=0.8):
    """Of |z - z*| / |z*|: rtol / (1 - norm), and rounding."""
    return (math.sqrt(np.finfo(dtype).eps) + 20 * np.finfo(dtype).eps) / (1 - norm)


class TestResults:
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_agree_with_dense_newton_at_float64(self, shape, method, dtype, rng):
        f, x, expected = contraction(rng, *shape, dtype)
        z0 = rng.standard_normal(shape).astype(dtype)
        solution = deqcore.fixed_point(f, z0, row_args=(x,), method=method)
        assert solution.success
        assert solution.value.dtype == dtype
        error = np.linalg.norm(solution.value - expected, axis=1)
        assert (error <= error_bound(dtype) * np.linalg.norm(expected, axis=1)).all()

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_of_a_native_map_agree_with_dense_newton_at_float64(self, shape, activation, dtype, rng):
        width = shape[1]
        W, x = weights(rng, width).astype(dtype), rng.standard_normal(shape).astype(dtype)
        expected = dense_fixed_point(activation, W, x)
        z0 = np.zeros(shape, dtype)
        solution = deqcore.fixed_point(deqcore.maps.Dense(W, activation), z0, row_args=(x,))
        assert solution.success
        error = np.linalg.norm(solution.value - expected, axis=1)
        # relu and gelu may have fixed points much smaller than the scale
        size = np.maximum(np.linalg.norm(expected, axis=1), solution.scale)
        assert (error <= error_bound(dtype, 0.92) * size).all()

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_agree_with_scipy(self, method, rng):
        A = weights(rng, 6, 0.7)
        b = rng.standard_normal(6)

        def f(z):
            return np.cos(z @ A.T + b)

        expected = scipy.optimize.root(lambda z: f(z) - z, np.zeros(6), tol=1e-14).x
        solution = deqcore.fixed_point(f, np.zeros(6), method=method, rtol=1e-13, max_steps=500)
        np.testing.assert_allclose(solution.value, expected, rtol=1e-11, atol=1e-12)

    def test_anderson_needs_fewer_steps_than_picard_where_the_map_is_slow(self, dtype, rng):
        f, x, _ = contraction(rng, 8, 40, dtype, norm=0.999)
        z0 = np.zeros((8, 40), dtype)
        picard = deqcore.fixed_point(f, z0, row_args=(0.1 * x,), method="picard", max_steps=5000)
        anderson = deqcore.fixed_point(f, z0, row_args=(0.1 * x,), method="anderson", max_steps=5000)
        assert anderson.steps.sum() < picard.steps.sum()

    def test_anderson_with_a_full_window_solves_a_linear_map_in_width_plus_two_steps(self, rng):
        """Without rounding, Anderson on a linear map is GMRES: it ends when the window spans the space."""
        A, b = weights(rng, 5, 0.9), rng.standard_normal((4, 5))
        solution = deqcore.fixed_point(
            lambda z, b: z @ A.T + b, np.zeros((4, 5)), row_args=(b,), method=Anderson(history=10, ridge=0), rtol=1e-9
        )
        assert solution.steps.max() <= 5 + 2
        np.testing.assert_allclose(solution.value, np.linalg.solve(np.eye(5) - A, b.T).T, rtol=1e-7, atol=1e-8)

    @pytest.mark.parametrize("ridge", [0, 1e-14, Anderson().ridge])
    def test_an_accelerated_step_that_repeats_the_point_is_no_stall(self, ridge, dtype):
        """A contraction whose third point is (2, 0): the window then spans the residual (0, 1/8) exactly, but its
        points lie on one line, so their best combination is that same point. Only a plain step leads on, to (2, 1/8).
        """

        def f(z):
            return np.stack([z[:, 0] / 2 + 1, np.maximum(0, (z[:, 0] - dtype(1.5)) / 4)], axis=1)

        z0 = np.zeros((1, 2), dtype)
        assert deqcore.fixed_point(f, z0, method="picard").success
        solution = deqcore.fixed_point(f, z0, method=Anderson(ridge=ridge))
        np.testing.assert_allclose(solution.value, [[2, 0.125]], rtol=1e-3)

    @pytest.mark.parametrize("beta", [0.25, 1.0, 1.5])
    def test_picard_is_the_damped_iteration(self, beta, rng):
        f, x, _ = contraction(rng, 3, 7, np.float64, norm=0.3)
        seen = Recorder(f)
        options = {"rtol": 1e-15, "max_steps": 8, "on_failure": "return"}
        deqcore.fixed_point(seen, np.zeros((3, 7)), row_args=(x,), method=Picard(beta=beta), **options)
        z = np.zeros((3, 7))
        for point in seen.points:
            np.testing.assert_allclose(point, z, rtol=1e-12, atol=1e-14)
            z = z + beta * (f(z, x) - z)

    @pytest.mark.parametrize("beta", [0.5, 1.0])
    def test_anderson_follows_its_formula(self, beta, rng):
        """The textbook recursion with np.linalg.lstsq, for one row without ridge or safeguard."""
        f, x, _ = contraction(rng, 1, 12, np.float64, norm=0.9)
        seen = Recorder(f)
        method = Anderson(history=3, beta=beta, ridge=0, growth=math.inf)
        deqcore.fixed_point(seen, np.zeros((1, 12)), row_args=(x,), method=method, rtol=1e-6)
        z, points, images = np.zeros((1, 12)), [], []
        for point in seen.points:
            np.testing.assert_allclose(point, z, rtol=1e-6, atol=1e-9)
            points.append(point)
            images.append(f(point, x))
            images_used = np.concatenate(images[-4:])
            residuals = images_used - np.concatenate(points[-4:])
            f_now, g_now = images_used[-1], residuals[-1]
            dF, dG = np.diff(images_used, axis=0).T, np.diff(residuals, axis=0).T
            gamma = np.linalg.lstsq(dG, g_now, rcond=None)[0] if dG.size else np.zeros(0)
            z = (f_now - dF @ gamma - (1 - beta) * (g_now - dG @ gamma))[None]


class TestTheReport:
    @pytest.mark.parametrize("norm", [2, math.inf])
    def test_residual_is_that_of_the_value_returned(self, norm, dtype, rng):
        f, x, _ = contraction(rng, 9, 13, dtype)
        for max_steps in (1, 2, 5, 200):
            solution = deqcore.fixed_point(
                f, np.zeros((9, 13), dtype), row_args=(x,), norm=norm, max_steps=max_steps, on_failure="return"
            )
            again = (f(solution.value, x) - solution.value).astype(np.float64)
            # a library's product may round differently for another number of rows
            noise = 4 * np.finfo(dtype).eps * np.sqrt(13)
            np.testing.assert_allclose(solution.residual, np.linalg.norm(again, norm, axis=1), rtol=1e-6, atol=noise)

    def test_the_answer_is_the_best_point_measured(self, rng):
        """A map whose Picard iterates get worse before max_steps ends them."""
        seen = Recorder(lambda z: np.where(np.abs(z) < 1, -0.5 * z + 0.1, 2 * z))
        answers = np.array([[0.9], [1.1], [0.5]])
        solution = deqcore.fixed_point(
            seen, answers, method="picard", max_steps=4, retire=False, on_failure="return", trace=True
        )
        points, residuals = np.stack(seen.points)[:, :, 0], np.stack(seen.residuals)
        images = np.abs(points + (np.stack([seen.f(p) for p in seen.points]) - np.stack(seen.points))[:, :, 0])
        ratio = residuals / np.minimum(images, 10 * solution.scale)
        # within rounding of the smallest, and exactly a point that was measured
        for row in range(3):
            step = np.flatnonzero(points[:, row] == solution.value[row, 0])[0]
            assert ratio[step, row] <= ratio[:, row].min() * (1 + 1e-12)
            assert solution.residual[row] == pytest.approx(residuals[step, row], rel=1e-14)

    def test_scale_is_the_larger_of_start_and_image(self, dtype, rng):
        z0 = rng.standard_normal((6, 11)).astype(dtype)
        solution = deqcore.fixed_point(lambda z: dtype(0.25) * z + 1, z0)
        image = dtype(0.25) * z0 + 1
        expected = np.maximum(np.linalg.norm(z0.astype(float), axis=1), np.linalg.norm(image.astype(float), axis=1))
        np.testing.assert_allclose(solution.scale, expected, rtol=1e-6)

    def test_the_counts_are_those_of_the_calls(self, dtype, rng):
        f, x, _ = contraction(rng, 30, 9, dtype, norm=0.97)
        x *= rng.choice([0.01, 1, 30], (30, 1)).astype(dtype)
        for look_every in (1, 4):
            for retire in (True, False, "halve"):
                for method in METHODS:
                    seen = Recorder(f)
                    solution = deqcore.fixed_point(
                        seen,
                        np.zeros((30, 9), dtype),
                        row_args=(x,),
                        method=method,
                        look_every=look_every,
                        retire=retire,
                        max_steps=50,
                        on_failure="return",
                    )
                    assert solution.nfe == len(seen.counts)
                    assert solution.rows_asked == sum(seen.counts)
                    assert solution.steps.max() <= solution.nfe <= 50

    def test_the_counts_are_those_of_the_calls_when_cancelled(self, rng):
        f, x, _ = contraction(rng, 5, 9, np.float64, norm=0.99)
        for stop_at in (1, 2, 5):
            seen = Recorder(f)

            def stop(progress, stop_at=stop_at):
                if progress.steps == stop_at:
                    raise StopIteration

            solution = deqcore.fixed_point(seen, np.zeros((5, 9)), row_args=(x,), rtol=1e-12, callback=stop)
            assert (solution.status == Status.cancelled).all()
            assert solution.steps.tolist() == [stop_at] * 5
            assert solution.nfe == len(seen.counts) == stop_at
            assert solution.rows_asked == sum(seen.counts)

    def test_converged_means_what_the_docstring_says(self, dtype, rng):
        f, x, _ = contraction(rng, 20, 9, dtype)
        for rtol, atol in ((1e-2, 0.0), (1e-4, 1e-3), (None, 0.0)):
            solution = deqcore.fixed_point(
                f, np.zeros((20, 9), dtype), row_args=(x,), rtol=rtol, atol=atol, method="picard"
            )
            images = np.linalg.norm(f(solution.value, x).astype(float), axis=1)
            used = math.sqrt(np.finfo(dtype).eps) if rtol is None else rtol
            threshold = atol + used * np.minimum(images, 10 * solution.scale)
            assert (solution.residual <= threshold * (1 + 1e-5)).all()
            # and the point before it had not
            trace = deqcore.fixed_point(
                f, np.zeros((20, 9), dtype), row_args=(x,), rtol=rtol, atol=atol, method="picard", trace=True
            ).trace
            before = trace[solution.steps - 2, np.arange(20)]
            assert (before > threshold * 0.9).all()

    def test_a_row_of_nan_fails_alone(self, dtype, rng):
        f, x, _ = contraction(rng, 7, 9, dtype)
        for bad in (np.nan, np.inf, -np.inf):
            for first_bad_call in (1, 3):
                calls = [0]

                def poisoned(z, x, rows, bad=bad, first=first_bad_call, calls=calls):
                    calls[0] += 1
                    answer = f(z, x)
                    if calls[0] >= first:
                        answer[rows == 4, 2] = bad
                    return answer

                solution = deqcore.fixed_point(
                    poisoned,
                    np.zeros((7, 9), dtype),
                    row_args=(x,),
                    pass_rows=True,
                    method="anderson",
                    on_failure="return",
                )
                assert solution.status.tolist() == [0, 0, 0, 0, Status.not_finite, 0, 0]
                assert np.isfinite(solution.value).all()
                assert solution.steps[4] == first_bad_call
                assert np.isnan(solution.residual[4]) == (first_bad_call == 1)

    def test_below_the_noise_a_row_stalls(self, dtype, rng):
        """Noise of 20 eps in the map, and a tolerance below it."""
        eps = np.finfo(dtype).eps
        A = weights(rng, 6, 0.5).astype(dtype)

        def noisy(z):
            return (z @ A.T + 1 + 20 * eps * rng.standard_normal(z.shape)).astype(dtype)

        solution = deqcore.fixed_point(
            noisy, np.zeros((5, 6), dtype), rtol=4 * eps, max_steps=2000, on_failure="return"
        )
        assert set(solution.status.tolist()) <= {Status.stalled, Status.converged}
        assert (solution.status == Status.stalled).any()

    def test_a_step_that_changes_no_bit_is_a_stall(self):
        """The residual, one unit in the last place, is above the tolerance, but z + 0.3 g rounds to z, twice."""
        solution = deqcore.fixed_point(
            lambda z: np.nextafter(z, 2),
            np.ones((1, 1)),
            rtol=4 * np.finfo(float).eps,
            scale=1e-6,
            method=Picard(beta=0.3),
            on_failure="return",
        )
        assert solution.status.tolist() == [Status.stalled]
        assert solution.steps.tolist() == [3]


class TestArguments:
    def test_args_are_passed_whole_and_row_args_gathered(self, rng):
        W = weights(rng, 8, 0.9)
        x, s = rng.standard_normal((25, 8)), rng.uniform(0, 1, (25, 1))
        table = object()
        counts = []

        def f(z, given, matrix, x, s):
            assert given is table
            assert matrix is W
            assert len(z) == len(x) == len(s)
            counts.append(len(z))
            return s * np.tanh(z @ matrix.T) + x

        solution = deqcore.fixed_point(f, np.zeros((25, 8)), args=(table, W), row_args=(x, s))
        assert min(counts) < 25
        np.testing.assert_allclose(solution.value, s * np.tanh(solution.value @ W.T) + x, atol=1e-6)

    def test_row_args_of_any_dtype_and_more_axes_are_gathered(self, rng):
        labels = np.arange(12)
        names = np.array([f"row {i}" for i in labels])
        boxes = rng.uniform(0.1, 0.9, (12, 3, 2))

        def f(z, labels, names, boxes):
            assert boxes.shape == (len(z), 3, 2)
            assert [f"row {i}" for i in labels] == names.tolist()
            return boxes[:, 0, :] * z + labels[:, None]

        solution = deqcore.fixed_point(f, np.zeros((12, 2)), row_args=(labels, names, boxes))
        np.testing.assert_allclose(solution.value, labels[:, None] / (1 - boxes[:, 0, :]), rtol=1e-6)

    def test_pass_rows_names_the_rows(self, rng):
        rates = rng.uniform(0, 0.95, 40)
        sizes = []

        def f(z, rows):
            sizes.append(len(rows))
            assert rows.dtype == np.int32
            return rates[rows, None] * z + 1

        solution = deqcore.fixed_point(f, np.zeros((40, 3)), pass_rows=True, method="picard", max_steps=2000)
        np.testing.assert_allclose(solution.value, np.repeat(1 / (1 - rates[:, None]), 3, axis=1), rtol=1e-5)
        assert solution.retire == "on"
        assert sizes[-1] < 40

    def test_method_by_name_object_and_default_are_the_same(self, rng):
        f, x, _ = contraction(rng, 4, 9, np.float64)
        z0 = np.zeros((4, 9))
        for name, method in (("picard", Picard()), ("anderson", Anderson())):
            by_name = deqcore.fixed_point(f, z0, row_args=(x,), method=name)
            by_object = deqcore.fixed_point(f, z0, row_args=(x,), method=method)
            assert by_name.value.tobytes() == by_object.value.tobytes()
            assert by_name.method.tolist() == [name] * 4
        assert deqcore.fixed_point(f, z0, row_args=(x,)).method.tolist() == ["anderson"] * 4

    @pytest.mark.parametrize("max_steps", [1, 2, 3, 10])
    @pytest.mark.parametrize("look_every", [1, 4, 100])
    def test_max_steps_is_exact(self, max_steps, look_every, rng):
        f, x, _ = contraction(rng, 6, 9, np.float64)
        layer = deqcore.maps.Dense(weights(rng, 9, 0.9))
        for method in METHODS:
            seen = Recorder(f)
            options = {"method": method, "rtol": 1e-15, "max_steps": max_steps, "look_every": look_every}
            for g in (seen, layer):
                solution = deqcore.fixed_point(g, np.zeros((6, 9)), row_args=(x,), on_failure="return", **options)
                assert (solution.status == Status.out_of_steps).all()
                assert solution.steps.tolist() == [max_steps] * 6
                assert solution.nfe == max_steps
            assert len(seen.counts) == max_steps

    def test_rtol_and_atol_are_reported_as_used(self, dtype):
        solution = deqcore.fixed_point(lambda z: z * dtype(0.5), np.ones((1, 2), dtype))
        assert solution.tolerances == deqcore.Tolerances(math.sqrt(np.finfo(dtype).eps), 0.0, 200, "two", "image")
        solution = deqcore.fixed_point(
            lambda z: z * dtype(0.5), np.ones((1, 2), dtype), rtol=1e-3, atol=0.5, max_steps=7, norm=math.inf
        )
        assert solution.tolerances == deqcore.Tolerances(1e-3, 0.5, 7, "inf", "image")

    def test_atol_is_in_the_units_of_the_norm(self):
        """Halving from 1: the residual after k steps is 2^-k per element."""
        z0 = np.ones((1, 16))
        for norm, residual in ((2, 4.0), (math.inf, 1.0)):
            solution = deqcore.fixed_point(
                lambda z: z / 2, z0, method="picard", rtol=1e-15, atol=residual / 64, norm=norm, scale=1.0
            )
            # residual 2^-k * (4 or 1) <= residual / 64 first at k = 6
            assert solution.steps.tolist() == [6]
            assert solution.residual[0] == residual / 64

    def test_the_least_rtol_is_four_eps(self, dtype):
        eps = float(np.finfo(dtype).eps)
        assert deqcore.fixed_point(lambda z: z * dtype(0.5), np.ones((1, 2), dtype), rtol=4 * eps).success
        with pytest.raises(ValueError, match="rtol"):
            deqcore.fixed_point(lambda z: z * dtype(0.5), np.ones((1, 2), dtype), rtol=3.9 * eps)

    @pytest.mark.parametrize("norm", [2, 2.0, "two", math.inf, np.inf, "inf"])
    def test_every_name_of_a_norm(self, norm, rng):
        f, x, _ = contraction(rng, 4, 9, np.float64)
        solution = deqcore.fixed_point(f, np.zeros((4, 9)), row_args=(x,), norm=norm)
        order = math.inf if norm in (math.inf, "inf") else 2
        again = f(solution.value, x) - solution.value
        np.testing.assert_allclose(solution.residual, np.linalg.norm(again, order, axis=1), rtol=1e-4)

    def test_scale_given_as_number_or_per_row_is_used_and_reported(self, dtype, rng):
        f, x, _ = contraction(rng, 5, 9, dtype)
        z0 = np.zeros((5, 9), dtype)
        scales = np.array([1e-3, 1e-2, 1, 1e2, 1e3])
        layer = deqcore.maps.Dense(weights(rng, 9).astype(dtype))
        for g in (f, layer):
            for number in (2.5, 3, np.float32(2.5), scales, scales.astype(np.float32), np.arange(1, 6)):
                solution = deqcore.fixed_point(g, z0, row_args=(x,), scale=number, method="picard")
                np.testing.assert_array_equal(solution.scale, np.broadcast_to(np.asarray(number, float), 5))
        # a smaller scale means a smaller cap on the threshold: a row is solved more tightly
        solution = deqcore.fixed_point(f, z0, row_args=(x,), scale=scales, method="picard", on_failure="return")
        rtol = math.sqrt(np.finfo(dtype).eps)
        ok = solution.status == 0
        assert ok[2:].all()
        assert (solution.residual[ok] <= rtol * 10 * scales[ok] * 1.0001).all()
        assert scales[0] == 1e-3, "never written"

    def test_callback_is_called_at_each_look(self, rng):
        f, x, _ = contraction(rng, 6, 9, np.float64, norm=0.95)
        for look_every in (1, 3, 7):
            seen: list[Progress] = []
            solution = deqcore.fixed_point(
                f, np.zeros((6, 9)), row_args=(x,), look_every=look_every, callback=seen.append
            )
            assert [p.steps for p in seen] == list(range(look_every, solution.nfe + 1, look_every))
            assert all(isinstance(p, Progress) for p in seen)
            assert seen[-1].running == 0
            assert all(p.worst > 1 for p in seen[:-1])
            running = [int((solution.steps > p.steps).sum()) for p in seen]
            assert [p.running for p in seen] == running

    def test_callback_is_called_when_max_steps_ends_between_looks(self):
        seen: list[Progress] = []
        deqcore.fixed_point(
            lambda z: z + 1, np.zeros((2, 2)), look_every=4, max_steps=6, callback=seen.append, on_failure="return"
        )
        assert [p.steps for p in seen] == [4, 6]

    def test_callback_sees_the_worst_residual_over_threshold(self, rng):
        f, x, _ = contraction(rng, 6, 9, np.float64)
        worst: list[float] = []
        solution = deqcore.fixed_point(
            f, np.zeros((6, 9)), row_args=(x,), atol=1e-6, rtol=1e-15, trace=True,
            callback=lambda p: worst.append(p.worst),
        )  # fmt: skip
        expected = np.nanmax(solution.trace, axis=1) / 1e-6
        np.testing.assert_allclose(worst[:-1], expected[:-1], rtol=1e-6)

    @pytest.mark.parametrize("retire", [True, False, "halve"])
    def test_stop_iteration_in_the_callback_cancels_and_is_not_raised(self, retire, rng):
        f, x, _ = contraction(rng, 30, 9, np.float64, norm=0.95)
        x *= rng.choice([0.01, 1, 50], (30, 1))
        layer = deqcore.maps.Dense(weights(rng, 9))

        def stop(progress):
            if progress.steps == 7:
                raise StopIteration

        for g in (f, layer):
            solution = deqcore.fixed_point(g, np.zeros((30, 9)), row_args=(x,), callback=stop, retire=retire)
            assert set(solution.status.tolist()) == {Status.converged, Status.cancelled}
            assert not solution.success
            again = np.linalg.norm(g(solution.value, x) - solution.value, axis=1)
            np.testing.assert_allclose(solution.residual, again, rtol=1e-6, atol=1e-15)

    def test_any_other_exception_of_the_callback_comes_out(self):
        raised = RuntimeError("mine")

        def callback(progress):
            raise raised

        with pytest.raises(RuntimeError) as caught:
            deqcore.fixed_point(lambda z: z / 2, np.ones((1, 2)), callback=callback)
        assert caught.value is raised

    def test_trace_is_every_residual_seen_and_nan_after_the_end(self, rng):
        f, x, _ = contraction(rng, 20, 9, np.float64, norm=0.95)
        x *= rng.choice([0.01, 1, 50], (20, 1))
        for method in METHODS:
            for look_every in (1, 4):
                seen = Recorder(f)
                solution = deqcore.fixed_point(
                    seen, np.zeros((20, 9)), row_args=(x,), pass_rows=True, trace=True, method=method,
                    look_every=look_every, max_steps=300,
                )  # fmt: skip
                assert solution.trace.dtype == np.float64
                assert solution.trace.shape == (solution.steps.max(), 20)
                for step, measured in enumerate(solution.trace):
                    running = solution.steps > step
                    assert np.isnan(measured[~running]).all()
                    asked = seen.rows[step]
                    here = running[asked]
                    np.testing.assert_allclose(measured[asked[here]], seen.residuals[step][here], rtol=1e-12)
                    assert set(np.flatnonzero(running)) <= set(asked)
                last = solution.trace[solution.steps - 1, np.arange(20)]
                np.testing.assert_array_equal(last, solution.residual)
        assert deqcore.fixed_point(f, np.zeros((20, 9)), row_args=(x,)).trace is None

    def test_trace_of_a_native_solve(self, dtype, rng):
        layer = deqcore.maps.Dense(weights(rng, 33).astype(dtype))
        x = rng.standard_normal((70, 33)).astype(dtype)
        solution = deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,), trace=True, threads=2)
        assert solution.trace.shape == (solution.steps.max(), 70)
        assert (np.isnan(solution.trace) == (np.arange(len(solution.trace))[:, None] >= solution.steps)).all()
        first = np.linalg.norm(np.tanh(x).astype(float), axis=1)
        np.testing.assert_allclose(solution.trace[0], first, rtol=1e-5)

    @pytest.mark.parametrize("retire", [None, True, False, "halve"])
    def test_retire_is_on_where_that_is_safe(self, retire, rng):
        f, x, _ = contraction(rng, 21, 9, np.float64, norm=0.95)
        x *= rng.choice([0.01, 1, 50], (21, 1))
        counts = []

        def without_row_data(z):
            counts.append(len(z))
            return np.tanh(z) * 0.9 + 0.1

        plain = deqcore.fixed_point(without_row_data, x, retire=retire, rtol=1e-4)
        with_data = deqcore.fixed_point(f, np.zeros((21, 9)), row_args=(x,), retire=retire)
        native = deqcore.fixed_point(
            deqcore.maps.Dense(weights(rng, 9)), np.zeros((21, 9)), row_args=(x,), retire=retire
        )
        word = {True: "on", False: "off", "halve": "halve"}
        assert plain.retire == word.get(retire, "off")
        assert with_data.retire == native.retire == word.get(retire, "on")
        if retire == "halve":
            assert all(power_of_two(count) for count in set(counts) - {21})
        if retire in (None, False):
            assert set(counts) == {21}

    def test_threads_beyond_what_is_there_are_fine(self, rng):
        layer = deqcore.maps.Dense(weights(rng, 65))
        x = rng.standard_normal((200, 65))
        one = deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,), threads=1)
        for threads in (2, 7, 64):
            many = deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,), threads=threads)
            assert many.value.tobytes() == one.value.tobytes()

    def test_the_default_number_of_threads_can_be_set(self):
        before = deqcore.num_threads()
        try:
            deqcore.set_num_threads(3)
            assert deqcore.num_threads() == 3
            deqcore.set_num_threads(0)
            assert deqcore.num_threads() >= 1
        finally:
            deqcore.set_num_threads(before)


class TestFailure:
    def fail(self, on_failure, f=lambda z: z + 1, **options):
        return deqcore.fixed_point(f, np.zeros((3, 2)), max_steps=5, on_failure=on_failure, **options)

    def test_raises_with_the_whole_solution(self):
        with pytest.raises(deqcore.ConvergenceError, match=r"3 of 3 rows did not converge: 3 out_of_steps") as caught:
            self.fail("raise", trace=True)
        solution = caught.value.solution
        assert solution.steps.tolist() == [5, 5, 5]
        assert solution.trace.shape == (5, 3)
        assert isinstance(caught.value, ArithmeticError)

    def test_returns_quietly(self):
        assert not self.fail("return").success

    def test_warns(self):
        with pytest.warns(deqcore.ConvergenceWarning, match="out_of_steps") as caught:
            solution = self.fail("warn")
        assert not solution.success
        assert len(caught) == 1

    def test_warns_at_the_callers_line(self):
        one = np.ones((1, 2))
        with pytest.warns(deqcore.ConvergenceWarning) as forward:
            deqcore.fixed_point(lambda z: z + 1, one, max_steps=5, on_failure="warn")
        with pytest.warns(deqcore.ConvergenceWarning) as backward:
            deqcore.adjoint(lambda z, v: 2 * v, one, one, max_steps=1, on_failure="warn")
        assert [w.filename for caught in (forward, backward) for w in caught] == [__file__, __file__]

    def test_warns_once_per_cause_and_call_site(self):
        def here(f):
            deqcore.fixed_point(f, np.zeros((3, 2)), max_steps=5, on_failure="warn")

        def there(f):
            deqcore.fixed_point(f, np.zeros((3, 2)), max_steps=5, on_failure="warn")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                here(lambda z: z + 1)
            assert len(caught) == 1
            for _ in range(3):
                here(lambda z: z + np.nan)  # another cause
            assert len(caught) == 2
            for _ in range(3):
                there(lambda z: z + 1)  # another call site
            assert len(caught) == 3

    def test_a_warning_turned_into_an_error_comes_out(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(deqcore.ConvergenceWarning):
                self.fail("warn")

    def test_cancelled_never_raises(self):
        def stop(progress):
            raise StopIteration

        for on_failure in ("raise", "warn", "return"):
            assert (self.fail(on_failure, callback=stop).status == Status.cancelled).all()


class TestShapes:
    def test_one_axis_is_one_row(self, dtype, rng):
        f, x, _ = contraction(rng, 1, 9, dtype)
        shapes = []

        def one(z):
            shapes.append(z.shape)
            return f(z, x[0])

        solution = deqcore.fixed_point(one, np.zeros(9, dtype))
        assert set(shapes) == {(9,)}
        assert solution.value.shape == (9,)
        assert solution.status.shape == solution.steps.shape == solution.residual.shape == (1,)

    def test_one_axis_with_row_args_and_rows(self, rng):
        f, x, _ = contraction(rng, 1, 9, np.float64)

        def one(z, x, rows):
            assert z.shape == x.shape == (9,)
            assert rows.tolist() == [0]
            return f(z, x)

        assert deqcore.fixed_point(one, np.zeros(9), row_args=(x[0],), pass_rows=True).success

    @pytest.mark.parametrize("shape", [(4, 2, 3), (4, 3, 5, 2), (1, 1, 1, 1), (6, 1)], ids=str)
    def test_more_axes_are_seen_by_the_map_as_they_are(self, shape, dtype, rng):
        x = rng.standard_normal(shape).astype(dtype)

        def f(z, x):
            assert z.shape == x.shape
            assert z.shape[1:] == shape[1:]
            return np.tanh(dtype(0.5) * z.mean(axis=-1, keepdims=True) + x)

        solution = deqcore.fixed_point(f, np.zeros(shape, dtype), row_args=(x,))
        assert solution.value.shape == shape
        again = (f(solution.value, x) - solution.value).reshape(shape[0], -1)
        assert (np.linalg.norm(again, axis=1) <= 1.1 * solution.residual + 1e-6 * np.sqrt(again.shape[1])).all()

    def test_any_layout_of_the_start_gives_the_same_bits(self, dtype, rng):
        f, x, _ = contraction(rng, 6, 10, dtype)
        z0 = rng.standard_normal((6, 10)).astype(dtype)
        wide = np.zeros((12, 30), dtype)
        wide[::2, ::3] = z0
        backwards = np.ascontiguousarray(z0[::-1, ::-1])
        read_only = z0.copy()
        read_only.flags.writeable = False
        unaligned = np.frombuffer(b"\0" + z0.tobytes(), np.uint8)[1:].view(dtype).reshape(6, 10)
        layouts = {
            "Fortran": np.asfortranarray(z0),
            "strided": wide[::2, ::3],
            "negative": backwards[::-1, ::-1],
            "read-only": read_only,
            "transposed": np.ascontiguousarray(z0.T).T,
            "not aligned": unaligned,
        }
        expected = deqcore.fixed_point(f, z0, row_args=(x,))
        native_map = deqcore.maps.Dense(weights(rng, 10).astype(dtype))
        native = deqcore.fixed_point(native_map, z0, row_args=(x,))
        for name, start in layouts.items():
            np.testing.assert_array_equal(start, z0)
            before = start.tobytes()
            assert deqcore.fixed_point(f, start, row_args=(x,)).value.tobytes() == expected.value.tobytes(), name
            injection = np.asfortranarray(x)
            solution = deqcore.fixed_point(native_map, start, row_args=(injection,))
            assert solution.value.tobytes() == native.value.tobytes(), name
            assert start.tobytes() == before, name

    def test_broadcast_starts_work(self, dtype):
        start = np.broadcast_to(dtype(0.5), (5, 4))
        assert deqcore.fixed_point(np.cos, start).success

    def test_the_start_is_never_written(self, dtype, rng):
        f, x, _ = contraction(rng, 6, 10, dtype)
        z0 = rng.standard_normal((6, 10)).astype(dtype)
        before = z0.copy()
        layer = deqcore.maps.Dense(weights(rng, 10).astype(dtype))
        for g in (f, layer):
            for max_steps in (1, 2, 100):
                solution = deqcore.fixed_point(g, z0, row_args=(x,), max_steps=max_steps, on_failure="return")
                np.testing.assert_array_equal(z0, before)
                assert not np.shares_memory(solution.value, z0)
                assert solution.value.flags.writeable

    @given(
        shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
        single=st.booleans(),
        method=st.sampled_from(METHODS),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_any_shape_is_solved(self, shape, single, method, seed):
        rng = np.random.default_rng(seed)
        dtype = np.float32 if single else np.float64
        z0 = (10 * rng.standard_normal(shape)).astype(dtype)
        half = dtype(0.5)
        solution = deqcore.fixed_point(lambda z: half * np.sin(z) + 1, z0, method=method)
        assert solution.success
        assert solution.value.shape == shape
        np.testing.assert_allclose(solution.value, 1.4987011335, rtol=5e-3 if single else 1e-6)


class TestTheQuestion:
    def test_is_a_read_only_view(self, dtype):
        def f(z):
            assert not z.flags.writeable
            assert z.flags.c_contiguous
            assert type(z) is np.ndarray
            with pytest.raises(ValueError, match="read-only"):
                z += 1
            with pytest.raises(ValueError, match="cannot set"):
                z.flags.writeable = True
            return z * dtype(0.5)

        assert deqcore.fixed_point(f, np.ones((3, 4), dtype)).success

    def test_may_be_kept_by_who_copies_it(self):
        kept = []

        def f(z):
            kept.append(z)
            return z * 0.5

        deqcore.fixed_point(f, np.ones((3, 4)))
        assert all(np.isfinite(z).all() for z in kept)  # still memory, whatever stands in it


class TestAnswers:
    def expect(self, f, dtype, rng, rows=7, width=9):
        """Solve with f(z, W, x) and with the plain map; -> both."""
        W, x = weights(rng, width).astype(dtype), rng.standard_normal((rows, width)).astype(dtype)
        z0 = np.zeros((rows, width), dtype)
        options = {"row_args": (x,), "retire": False}
        plain = deqcore.fixed_point(lambda z, x: np.tanh(z @ W.T + x), z0, **options)
        return deqcore.fixed_point(lambda z, x: f(z, W, x), z0, **options), plain

    def test_that_are_not_contiguous_are_copied_once_and_counted(self, dtype, rng):
        solution, plain = self.expect(lambda z, W, x: np.tanh((W @ z.T).T + x.copy("F")), dtype, rng)
        assert plain.copies == 0
        assert solution.copies == solution.nfe
        np.testing.assert_allclose(solution.value, plain.value, rtol=1e-3)

    def test_only_the_copied_ones_are_counted(self, dtype, rng):
        calls = [0]

        def sometimes(z, W, x):
            calls[0] += 1
            answer = np.tanh(z @ W.T + x)
            return np.asfortranarray(answer) if calls[0] in (2, 3) else answer

        solution, plain = self.expect(sometimes, dtype, rng)
        assert solution.copies == 2
        assert solution.value.tobytes() == plain.value.tobytes()

    def test_strided_reversed_and_subclassed_answers_are_taken_by_value(self, dtype, rng):
        def strided(z, W, x):
            wide = np.full((len(z), 2 * z.shape[1]), np.nan, z.dtype)
            wide[:, ::2] = np.tanh(z @ W.T + x)
            return wide[:, ::2]

        def backwards(z, W, x):
            return np.ascontiguousarray(np.tanh(z @ W.T + x)[::-1])[::-1]

        class Mine(np.ndarray):
            pass

        for f in (strided, backwards, lambda z, W, x: np.tanh(z @ W.T + x).view(Mine)):
            solution, plain = self.expect(f, dtype, rng)
            assert solution.value.tobytes() == plain.value.tobytes()
            assert solution.copies == solution.nfe

    def test_a_reused_output_buffer_is_fine(self, dtype, rng):
        buffer = np.empty((7, 9), dtype)

        def reusing(z, W, x):
            return np.tanh(np.add(z @ W.T, x, out=buffer), out=buffer)

        solution, plain = self.expect(reusing, dtype, rng)
        assert solution.copies == 0
        assert solution.value.tobytes() == plain.value.tobytes()

    def test_a_read_only_answer_is_fine(self, dtype, rng):
        def read_only(z, W, x):
            answer = np.tanh(z @ W.T + x)
            answer.flags.writeable = False
            return answer

        solution, plain = self.expect(read_only, dtype, rng)
        assert solution.value.tobytes() == plain.value.tobytes()
        assert solution.copies == 0

    def test_its_own_input_is_a_fixed_point(self, dtype, rng):
        z0 = rng.standard_normal((4, 5)).astype(dtype)
        solution = deqcore.fixed_point(lambda z: z, z0)
        assert solution.success
        assert solution.steps.tolist() == [1, 1, 1, 1]
        assert solution.value.tobytes() == z0.tobytes()
        assert solution.copies == 1
        assert not solution.residual.any()

    def test_a_view_of_its_own_input_is_taken_by_value(self, dtype, rng):
        z0 = rng.standard_normal((4, 5)).astype(dtype)
        solution = deqcore.fixed_point(lambda z: z[:, ::-1], z0, max_steps=4, method="picard", on_failure="return")
        assert solution.copies == solution.nfe == 4
        solution = deqcore.fixed_point(lambda z: z[::-1], z0, max_steps=4, method="picard", on_failure="return")
        assert solution.copies == solution.nfe == 4

    def test_an_earlier_question_kept_and_returned_is_taken_by_value(self, dtype, rng):
        """The blocks alternate: an old view stands where the next point will be written."""
        kept = []

        def f(z):
            kept.append(z)
            return kept[0]

        solution = deqcore.fixed_point(f, np.ones((2, 3), dtype), max_steps=3, on_failure="return")
        assert solution.copies == solution.nfe


class TestMemory:
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_scratch_is_what_was_said_beforehand(self, method, dtype, rng):
        f, x, _ = contraction(rng, 6, 10, dtype)
        solution = deqcore.fixed_point(f, np.zeros((6, 10), dtype), row_args=(x,), method=method)
        assert solution.scratch_bytes == deqcore.scratch_bytes(6, 10, dtype, method=method)

    def test_is_2_history_plus_4_states_per_row_for_anderson(self, dtype):
        size = np.dtype(dtype).itemsize
        for history in (1, 6, 20):
            states = deqcore.scratch_bytes(8, 65536, dtype, method=Anderson(history=history)) / (8 * 65536 * size)
            assert 2 * history + 4 <= states <= 2 * history + 4.02

    def test_is_given_back_at_once_after_a_solve_an_exception_and_a_failure(self, rng):
        """Without the garbage collector: nothing that a solve makes refers to itself."""
        f, x, _ = contraction(rng, 50, 200, np.float64)
        z0 = np.zeros((50, 200))
        layer = deqcore.maps.Dense(weights(rng, 200))

        def fails(z, x):
            raise ZeroDivisionError

        def solves():
            deqcore.fixed_point(f, z0, row_args=(x,), trace=True)
            deqcore.fixed_point(layer, z0, row_args=(x,))
            deqcore.adjoint(layer, z0, x, row_args=(x,), callback=lambda progress: None)
            with contextlib.suppress(ZeroDivisionError):
                deqcore.fixed_point(fails, z0, row_args=(x,))
            with contextlib.suppress(deqcore.ConvergenceError):
                deqcore.fixed_point(f, z0, row_args=(x,), max_steps=2)

        solves()
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            references = sys.getrefcount(layer._native)
            for _ in range(5):
                solves()
            grown = tracemalloc.get_traced_memory()[0] - before
            held = sys.getrefcount(layer._native) - references
        finally:
            tracemalloc.stop()
            gc.enable()
        assert held == 0
        assert grown < z0.nbytes  # one solve holds some 16 times that

    def test_a_native_solve_reports_its_own(self, dtype, rng):
        layer = deqcore.maps.Dense(weights(rng, 40).astype(dtype))
        solution = deqcore.fixed_point(layer, np.zeros((500, 40), dtype), row_args=(np.ones(40, dtype),))
        assert solution.scratch_bytes > 0


def test_solves_on_two_threads_at_once_do_not_meet(rng):
    problems = [contraction(rng, 12, 30, np.float64, 0.97) for _ in range(4)]
    expected = [deqcore.fixed_point(f, np.zeros((12, 30)), row_args=(x,)).value for f, x, _ in problems]
    wrong = []

    def work(k):
        f, x, _ = problems[k % 4]
        for _ in range(5):
            value = deqcore.fixed_point(f, np.zeros((12, 30)), row_args=(x,)).value
            if value.tobytes() != expected[k % 4].tobytes():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_map_that_solves_inside_is_fine(rng):
    A, B = weights(rng, 6, 0.5), weights(rng, 6, 0.5)

    def outer(z):
        inner = deqcore.fixed_point(
            lambda y, z: np.tanh(y @ A.T + z), np.zeros_like(z), row_args=(z.copy(),), rtol=1e-13
        )
        return inner.value @ B.T + 1

    solution = deqcore.fixed_point(outer, np.zeros((5, 6)))
    assert solution.success
    np.testing.assert_allclose(outer(solution.value), solution.value, atol=1e-6)


def test_the_value_of_dense_newton_is_a_fixed_point(rng):
    """The reference itself."""
    for activation in ACTIVATIONS:
        W, c = weights(rng, 12), rng.standard_normal((5, 12))
        z = dense_fixed_point(activation, W, c)
        np.testing.assert_allclose(dense_value(activation, W, z, c), z, rtol=1e-13, atol=1e-14)
