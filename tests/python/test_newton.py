# SPDX-License-Identifier: Apache-2.0
"""Newton's methods: what they find, what they ask for, and how their rows end."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import deqcore
from deqcore import Anderson, ConvergenceError, Newton, NewtonKrylov, Status, Warm
from deqcore.maps import Dense
from support.problems import (
    ACTIVATIONS,
    SHAPES,
    dense_fixed_point,
    dense_value,
    iid,
    independent_products,
    independent_rows,
    outliers,
    weights,
)
from support.same_bits import same_bits, speeds

METHODS = [NewtonKrylov(), NewtonKrylov(restart=3, forcing=1e-3), Newton()]
KINDS = ["jvp", "differences", "native"]


def tanh_map(W):
    """tanh(W z + x) and its product."""

    def f(z, x):
        return np.tanh(z @ W.T + x)

    def jvp(z, v, x):
        return (1 - np.tanh(z @ W.T + x) ** 2) * (v @ W.T)

    return f, jvp


def solve_by(kind, W, z0, x, **options):
    """The fixed points of tanh(W z + x), with products of each kind."""
    f, jvp = tanh_map(W)
    if kind == "native":
        return deqcore.fixed_point(Dense(W), z0, row_args=(x,), **options)
    return deqcore.fixed_point(f, z0, row_args=(x,), jvp=jvp if kind == "jvp" else None, **options)


class Counting:
    """A map and its product that count their calls and rows."""

    def __init__(self, f, jvp=None):
        self.f, self.product = f, jvp
        self.values = self.products = self.rows = 0

    def __call__(self, z, *args, **named):
        assert not z.flags.writeable
        self.values += 1
        self.rows += len(z)
        return self.f(z, *args, **named)

    def jvp(self, z, v, *args, **named):
        assert not z.flags.writeable
        assert not v.flags.writeable
        assert z.shape == v.shape
        assert z.dtype == v.dtype
        self.products += 1
        self.rows += len(z)
        return self.product(z, v, *args, **named)

    def check(self, solution):
        assert (solution.nfe, solution.products, solution.rows_asked) == (self.values, self.products, self.rows)
        assert solution.nfev == solution.nfe


class TestResults:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_agree_with_a_reference_at_float64(self, shape, method, kind, dtype, rng):
        W, x = weights(rng, shape[1]).astype(dtype), rng.standard_normal(shape).astype(dtype)
        expected = dense_fixed_point("tanh", W, x)
        z0 = rng.standard_normal(shape).astype(dtype)
        before = z0.copy()
        solution = solve_by(kind, W, z0, x, method=method)
        assert solution.success
        assert solution.value.dtype == dtype
        assert z0.tobytes() == before.tobytes()
        error = np.linalg.norm(solution.value - expected, axis=1)
        rtol = math.sqrt(np.finfo(dtype).eps)
        assert (error <= 5 * (1.02 * rtol + 20 * np.finfo(dtype).eps) * np.linalg.norm(expected, axis=1)).all()
        np.testing.assert_allclose(
            solution.residual,
            np.linalg.norm(dense_value("tanh", W, solution.value, x) - solution.value.astype(float), axis=1),
            atol=40 * np.finfo(dtype).eps * math.sqrt(shape[1]),
        )
        assert solution.products == (0 if kind == "differences" else solution.products)
        assert set(solution.method) == {method.name}

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_of_native_maps_agree_with_a_reference(self, activation, method, dtype, rng):
        W, x = weights(rng, 23).astype(dtype), rng.standard_normal((5, 23)).astype(dtype)
        expected = dense_fixed_point(activation, W, x)
        solution = deqcore.fixed_point(Dense(W, activation), np.zeros_like(x), row_args=(x,), method=method)
        assert solution.success
        size = np.maximum(np.linalg.norm(expected, axis=1), solution.scale)
        assert (np.linalg.norm(solution.value - expected, axis=1) <= 20 * math.sqrt(np.finfo(dtype).eps) * size).all()

    @pytest.mark.parametrize("kind", ["jvp", "differences"])
    @pytest.mark.parametrize("method", [NewtonKrylov(), Newton()], ids=repr)
    def test_of_maps_that_stretch(self, method, kind, dtype, rng):
        """Eigenvalues from -9 to 9: plain steps run away."""
        W = weights(rng, 12, 9.0, symmetric=True)
        W, x = W.astype(dtype), rng.standard_normal((4, 12)).astype(dtype)
        exact = np.linalg.solve(np.eye(12) - W.astype(float), x.T.astype(float)).T
        jvp = (lambda z, v, x: v @ W.T) if kind == "jvp" else None
        solution = deqcore.fixed_point(
            lambda z, x: z @ W.T + x, np.zeros_like(x), row_args=(x,), method=method, jvp=jvp
        )
        worst = np.linalg.norm(np.linalg.inv(np.eye(12) - W.astype(float)), 2)
        error = np.linalg.norm(solution.value - exact, axis=1)
        assert (error <= worst * (1.01 * solution.residual + 100 * np.finfo(dtype).eps * solution.scale)).all()

    def test_a_linear_map_takes_one_step_of_newton(self, dtype, rng):
        W, x = weights(rng, 9, 0.9).astype(dtype), rng.standard_normal((6, 9)).astype(dtype)
        solution = deqcore.fixed_point(
            lambda z, x: z @ W.T + x, 0 * x, row_args=(x,), method=Newton(), jvp=lambda z, v, x: v @ W.T
        )
        assert (solution.steps == 9 + 2).all()
        assert (solution.nfe, solution.products) == (2, 9)
        assert solution.rejected.sum() == 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_newton_converges_quadratically(self, kind, rng):
        W, x = weights(rng, 7, 0.9), rng.standard_normal((1, 7))
        solution = solve_by(kind, W, 0 * x, x, method="newton", rtol=1e-13, trace=True)
        residuals = solution.trace[:, 0]
        residuals = residuals[np.flatnonzero(np.append(True, np.diff(residuals) != 0))]
        after = residuals[residuals < 1e-2]
        assert len(after) <= 4
        assert (after[1:] <= np.maximum(10 * after[:-1] ** 2, 1e-7 * after[:-1] + 1e-14)).all()

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    @pytest.mark.parametrize("kind", ["jvp", "differences"])
    def test_of_states_of_any_shape(self, method, kind, dtype, rng):
        x = rng.standard_normal((3, 4, 5)).astype(dtype)
        seen = set()

        def f(z, *x_of):
            seen.add(z.shape)
            return dtype(0.5) * np.cos(z) + (x_of[0] if x_of else x[0, 0])

        def jvp(z, v, *x_of):
            seen.add(v.shape)
            return -dtype(0.5) * np.sin(z) * v

        options = {"method": method, "jvp": jvp if kind == "jvp" else None}
        images = deqcore.fixed_point(f, 0 * x, row_args=(x,), retire=False, **options)
        assert images.success
        assert images.value.shape == x.shape
        assert seen == {(3, 4, 5)}
        seen.clear()
        row = deqcore.fixed_point(f, np.zeros(5, dtype), **options)
        assert row.success
        assert row.value.shape == (5,)
        assert seen == {(5,)}

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_the_norm_is_that_of_the_test_only(self, method, kind, dtype, rng):
        W, x = weights(rng, 20).astype(dtype), rng.standard_normal((6, 20)).astype(dtype)
        solution = solve_by(kind, W, 0 * x, x, method=method, norm=np.inf)
        assert solution.success
        residual = abs(dense_value("tanh", W, solution.value, x) - solution.value).max(axis=1)
        np.testing.assert_allclose(solution.residual, residual, atol=40 * np.finfo(dtype).eps)
        np.testing.assert_allclose(solution.scale, abs(np.tanh(x)).max(axis=1), rtol=1e-6)

    @pytest.mark.parametrize("kind", ["jvp", "native"])
    def test_of_the_monotone_layer(self, kind, rng):
        layer = deqcore.maps.Monotone(*(0.3 * rng.standard_normal((2, 8, 8))), m=0.5)
        x = rng.standard_normal((4, 8))
        for method in METHODS:
            f, jvp = (layer, None) if kind == "native" else (lambda z, x: layer(z, x), layer.jvp)
            solution = deqcore.fixed_point(f, 0 * x, row_args=(x,), method=method, jvp=jvp)
            assert solution.success
            assert solution.products > 0
            np.testing.assert_allclose(layer(solution.value, x), solution.value, atol=1e-6)


def symmetric_outliers(top, seed, width):
    W, b = outliers(top, seed, width)
    return (W + W.T) / 2, b


# evaluations and products to 1e-8 at width 400, published medians for Eisenstat and Walker's choice 2
PUBLISHED = {
    "iid 0.5": (lambda seed: iid(0.5, seed, 400), 5, 18),
    "iid 0.9": (lambda seed: iid(0.9, seed, 400), 6, 34),
    "iid 1.2": (lambda seed: iid(1.2, seed, 400), 7, 60),
    "iid 1.5": (lambda seed: iid(1.5, seed, 400), 9, 106),
    "outliers 0.9 symmetric": (lambda seed: symmetric_outliers(0.9, seed, 400), 6, 34),
    "outliers 0.99 symmetric": (lambda seed: symmetric_outliers(0.99, seed, 400), 8, 56),
    "outliers 1.05 nonsymmetric": (lambda seed: outliers(1.05, seed, 400), 11, 73),
}


class TestPublishedCounts:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_are_reached_and_the_forcing_saves_what_it_should(self, name, rng):
        draw, evaluations, products = PUBLISHED[name]
        found = []
        for _ in range(5):
            W, b = draw(rng.integers(2**32))
            options = {"row_args": (b,), "rtol": 1e-8, "on_failure": "return"}
            chosen, fixed = (
                deqcore.fixed_point(Dense(W), np.zeros(400), method=method, **options)
                for method in (NewtonKrylov(), NewtonKrylov(forcing=1e-6))
            )
            if chosen.success and fixed.success:
                found.append((chosen.nfe, chosen.products, chosen.products / fixed.products))
        assert len(found) >= 4
        medians = np.median(found, axis=0)
        print(f"\n{name}: {medians[0]:g} + {medians[1]:g}, expected about {evaluations} + {products}")
        assert medians[0] <= evaluations + 1
        assert medians[:2].sum() <= 1.2 * (evaluations + products)
        assert medians[2] <= 0.6


class TestSteepRamps:
    """clip(x / delta, 0, 1) as the fixed point of relu((1 - delta) z1 - z2 + x), relu(x - delta)."""

    def ramp(self, delta, x, dtype):
        W = np.array([[1 - delta, -1], [0, 0]], dtype)
        c = np.stack([x, x - delta], axis=1).astype(dtype)
        return W, c, np.clip(x / delta, 0, 1)

    def solve(self, kind, W, c, **options):
        def f(z, c):
            return np.maximum(z @ W.T + c, 0)

        def jvp(z, v, c):
            return (z @ W.T + c > 0) * (v @ W.T)

        if kind == "native":
            return deqcore.fixed_point(Dense(W, "relu"), 0 * c, row_args=(c,), **options)
        return deqcore.fixed_point(f, 0 * c, row_args=(c,), jvp=jvp if kind == "jvp" else None, **options)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("power", range(6, 21, 2))
    def test_take_newton_one_step(self, power, kind, rng):
        delta = 2.0**-power
        x = np.concatenate([rng.uniform(-1, 1, 40), delta * rng.uniform(0, 1, 40), delta * rng.uniform(0, 4, 40)])
        W, c, expected = self.ramp(delta, x, np.float64)
        solution = self.solve(kind, W, c, method="newton")
        assert solution.success
        whole = 4 if kind == "differences" else 1  # whose error is of the size of a steep ramp's slope
        assert solution.steps.max() <= 1 + whole * (2 + 1)  # two columns, and an evaluation of the step
        assert solution.rejected.sum() == 0
        within = 1e-9 if whole == 1 else 2e-8 / delta  # rtol through the inverse
        np.testing.assert_allclose(solution.value[:, 0], expected, atol=within)

    @pytest.mark.parametrize("power", [6, 8, 10])
    def test_take_picard_thousands(self, power, rng):
        delta = 2.0**-power
        W, c, _ = self.ramp(delta, np.array([2 * delta]), np.float64)
        calls = Counting(lambda z, c: np.maximum(z @ W.T + c, 0))
        plain = deqcore.fixed_point(
            calls, 0 * c, row_args=(c,), method="picard", rtol=1e-3 * delta, scale=1.0, max_steps=10**6
        )
        calls.check(plain)
        assert abs(calls.values / (np.log(1e3) / delta) - 1) < 0.05
        newton = self.solve("jvp", W, c, method="newton", rtol=1e-3 * delta, scale=1.0)
        assert (newton.nfe, newton.products) == (2, 2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_float32_as_far_as_it_can_tell(self, kind, rng):
        delta = 2.0**-10
        x = np.concatenate([rng.uniform(-1, 1, 40), delta * rng.uniform(0, 1, 40)])
        W, c, expected = self.ramp(delta, x, np.float32)
        solution = self.solve(kind, W, c, method="newton", scale=1.0)
        assert solution.success
        assert solution.steps.max() <= 4
        if kind != "differences":  # |f| is rounded to 6e-8, and 1 - delta is what divides it
            np.testing.assert_allclose(solution.value[:, 0], expected, atol=2e-7 / delta)

    def test_a_relu_map_takes_as_many_steps_as_it_changes_pieces(self, rng):
        W, x = weights(rng, 20, 0.95), rng.standard_normal((30, 20))
        expected = dense_fixed_point("relu", W, x)
        solution = deqcore.fixed_point(Dense(W, "relu"), np.zeros_like(x), row_args=(x,), method="newton")
        np.testing.assert_allclose(solution.value, expected, atol=1e-7)
        assert solution.steps.max() <= 8 * 21


class TestCounts:
    @pytest.mark.parametrize("retire", [True, False, "halve"])
    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_are_those_of_the_calls(self, method, given, retire, dtype, rng):
        W = weights(rng, 19, 0.95).astype(dtype)
        x = speeds(rng, 23, 19, dtype)
        calls = Counting(*tanh_map(W))
        solution = deqcore.fixed_point(
            calls, np.zeros_like(x), row_args=(x,), method=method, jvp=calls.jvp if given else None, retire=retire
        )
        calls.check(solution)
        assert (calls.products > 0) == given
        assert solution.retire == {True: "on", False: "off", "halve": "halve"}[retire]
        if retire is False:
            assert solution.rows_asked == 23 * (solution.nfe + solution.products)

    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_the_steps_of_a_row_are_its_calls(self, method, given, dtype, rng):
        W = weights(rng, 9, 0.95).astype(dtype)
        for c in speeds(rng, 8, 9, dtype):
            calls = Counting(*tanh_map(W))
            solution = deqcore.fixed_point(
                calls, np.zeros((1, 9), dtype), row_args=(c[None],), method=method, jvp=calls.jvp if given else None
            )
            assert solution.steps.tolist() == [calls.values + calls.products]
            calls.check(solution)

    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_max_steps_is_never_passed(self, method, given, rng):
        W, x = weights(rng, 6, 0.95), rng.standard_normal((3, 6))
        f, jvp = tanh_map(W)
        least = 6 + 2 if isinstance(method, Newton) else 1
        needed = deqcore.fixed_point(f, 0 * x, row_args=(x,), method=method, jvp=jvp if given else None).steps.max()
        most = int(needed) + 2
        for max_steps in range(least, most + 1):
            seen = []

            def recorded(z, x, seen=seen):
                seen.append((z.copy(), x.copy()))
                return f(z, x)

            solution = deqcore.fixed_point(
                recorded, 0 * x, row_args=(x,), method=method, jvp=jvp if given else None, max_steps=max_steps,
                on_failure="return",
            )  # fmt: skip
            assert solution.steps.max() <= max_steps
            assert set(solution.status.tolist()) <= {Status.converged, Status.out_of_steps}
            assert solution.success or max_steps < most
            assert solution.tolerances.max_steps == max_steps
            residual = np.linalg.norm(f(solution.value, x) - solution.value, axis=1)
            np.testing.assert_allclose(solution.residual, residual, rtol=1e-6, atol=1e-15)
            for value in solution.value:  # what is returned was asked about
                assert any((value == point).all(axis=1).any() for point, _ in seen)

    def test_max_steps_by_default(self, rng):
        x = rng.standard_normal((2, 7))
        short = NewtonKrylov(restart=3)
        for method, most in (("newton_krylov", 50 * 9), (short, 50 * 5), ("newton", 100 * 8), (None, 200)):
            solution = deqcore.fixed_point(np.cos, x, method=method, max_steps=None)
            assert solution.tolerances.max_steps == most
            assert solution.tolerances == deqcore.fixed_point(np.cos, x, method=method).tolerances

    def test_a_native_solve_counts_its_products(self, rng):
        W, x = weights(rng, 11), rng.standard_normal((1, 11))
        for method in METHODS:
            native = deqcore.fixed_point(Dense(W), 0 * x, row_args=(x,), method=method)
            assert native.steps.tolist() == [native.nfe + native.products]
            assert native.products > 0
        assert deqcore.fixed_point(Dense(W), 0 * x, row_args=(x,), method="anderson").products == 0

    def test_the_least_forcing_asks_for_fewer_products(self, rng):
        W, x = weights(rng, 60, 1.2), rng.standard_normal((1, 60))
        products = [
            solve_by("jvp", W, 0 * x, x, method=NewtonKrylov(forcing=forcing)).products
            for forcing in (1e-8, 1e-4, None)
        ]
        assert products[0] > products[1] > products[2]

    def test_the_memory_is_what_is_planned(self, dtype, rng):
        x = rng.standard_normal((6, 20)).astype(dtype)
        W = weights(rng, 20).astype(dtype)
        for method in METHODS:
            solution = solve_by("differences", W, 0 * x, x, method=method)
            assert deqcore.plan(6, 20, dtype, method=method).scratch_bytes == solution.scratch_bytes


PER_ROW = [NewtonKrylov(), NewtonKrylov(restart=4), NewtonKrylov(forcing=1e-2), Newton()]


class TestSameBits:
    def problem(self, rng, dtype, rows=23, width=19):
        W = weights(rng, width, 0.95).astype(dtype)
        f, jvp = independent_rows(W), independent_products(W)[1]
        z0 = rng.standard_normal((rows, width)).astype(dtype)
        return f, jvp, z0, speeds(rng, rows, width, dtype)

    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    @pytest.mark.parametrize("method", PER_ROW, ids=repr)
    def test_alone_and_in_a_batch_permuted_looked_at_and_retired(self, method, given, dtype, rng):
        f, jvp, z0, c = self.problem(rng, dtype)
        shared = {"method": method, "jvp": jvp if given else None, "trace": True, "on_failure": "return"}
        for options in (shared, shared | {"max_steps": 33}, shared | {"norm": np.inf}):
            batch = deqcore.fixed_point(f, z0, row_args=(c,), **options)
            assert len(set(batch.steps)) > 1 or "max_steps" in options
            same_bits(batch, deqcore.fixed_point(f, z0, row_args=(c,), **options))
            for i in range(0, len(z0), 3):
                piece = slice(i, i + 1)
                same_bits(batch, deqcore.fixed_point(f, z0[piece], row_args=(c[piece],), **options), piece)
            order = rng.permutation(len(z0))
            same_bits(batch, deqcore.fixed_point(f, z0[order], row_args=(c[order],), **options), order)
            for look_every, retire, threads in ((1, False, 1), (3, True, 2), (17, "halve", 1), (1000, False, 2)):
                other = deqcore.fixed_point(
                    f, z0, row_args=(c,), look_every=look_every, retire=retire, threads=threads, **options
                )
                same_bits(batch, other)

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    @pytest.mark.parametrize("method", PER_ROW, ids=repr)
    def test_of_the_native_map(self, method, activation, dtype, rng):
        _, _, z0, c = self.problem(rng, dtype, rows=41, width=23)
        layer = Dense(weights(rng, 23, 0.95).astype(dtype), activation)
        options = {"method": method, "trace": True, "on_failure": "return"}
        batch = deqcore.fixed_point(layer, z0, row_args=(c,), **options)
        for i in (0, 17, 40):
            piece = slice(i, i + 1)
            same_bits(batch, deqcore.fixed_point(layer, z0[piece], row_args=(c[piece],), **options), piece)
            one = deqcore.fixed_point(layer, z0[i], row_args=(c[i],), **options)
            assert one.value.tobytes() == batch.value[i].tobytes()
        for threads, look_every, retire in ((1, 4, False), (2, 1, "halve"), (3, 7, True)):
            other = deqcore.fixed_point(
                layer, z0, row_args=(c,), threads=threads, look_every=look_every, retire=retire, **options
            )
            same_bits(batch, other)
        dialogue = deqcore.fixed_point(layer, z0, row_args=(c,), callback=lambda progress: None, **options)
        same_bits(batch, dialogue)
        called = deqcore.fixed_point(
            lambda z, c: layer(z, c), z0, row_args=(c,), jvp=lambda z, v, c: layer.jvp(z, v, c), **options
        )
        same_bits(batch, called)

    @pytest.mark.parametrize("method", [NewtonKrylov(), NewtonKrylov(restart=2)], ids=repr)
    def test_one_thread_and_two_on_wide_rows(self, method, dtype, rng):
        z0 = rng.standard_normal((64, 8192)).astype(dtype)
        c = speeds(rng, 64, 8192, dtype)

        def f(z, c):
            y = dtype(0.9) * z[:, ::-1] + c
            return y / np.sqrt(1 + y * y)

        options = {"row_args": (c,), "method": method, "max_steps": 12, "on_failure": "return"}
        same_bits(deqcore.fixed_point(f, z0, threads=1, **options), deqcore.fixed_point(f, z0, threads=2, **options))


class TestRowData:
    @pytest.mark.parametrize("retire", [None, False, "halve"])
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_reaches_the_map_and_the_product_gathered(self, method, retire, rng):
        W, x = weights(rng, 9, 0.95), speeds(rng, 17, 9, np.float64)
        numbers, asked = rng.integers(0, 99, 17), {"f": [], "jvp": []}

        def checked(name, of_row, number, whole, rows):
            assert rows.dtype == np.int32
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(of_row, x[rows])
            np.testing.assert_array_equal(number, numbers[rows])
            assert whole is W
            asked[name].append(len(rows))

        def f(z, whole, of_row, number, rows):
            checked("f", of_row, number, whole, rows)
            return np.tanh(z @ whole.T + of_row)

        def jvp(z, v, whole, of_row, number, rows):
            checked("jvp", of_row, number, whole, rows)
            # the points stand beside their rows' data
            value = np.tanh(z @ whole.T + of_row)
            return (1 - value**2) * (v @ whole.T)

        solution = deqcore.fixed_point(
            f, np.zeros_like(x), args=(W,), row_args=(x, numbers), pass_rows=True, jvp=jvp, method=method, retire=retire
        )
        np.testing.assert_allclose(solution.value, dense_fixed_point("tanh", W, x), atol=1e-6)
        assert asked["jvp"]
        for counts in asked.values():
            assert counts[0] <= 17
            if retire is None:
                assert min(counts) < 17

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_each_product_is_asked_for_at_an_accepted_point_of_its_own_row(self, method, rng):
        x = speeds(rng, 17, 9, np.float64)
        W = weights(rng, 9, 0.95)
        f, jvp = tanh_map(W)
        points: dict[int, set[bytes]] = {i: set() for i in range(17)}

        def value(z, x, rows):
            for row, point in zip(rows, z, strict=True):
                points[row].add(point.tobytes())
            return f(z, x)

        def product(z, v, x, rows):
            for row, point in zip(rows, z, strict=True):
                assert point.tobytes() in points[row]
            assert np.isfinite(v).all()
            return jvp(z, v, x)

        for retire in (True, False, "halve"):
            assert deqcore.fixed_point(
                value, np.zeros_like(x), row_args=(x,), pass_rows=True, jvp=product, method=method, retire=retire
            ).success

    def test_the_points_of_a_product_keep_while_it_is_computed(self, rng):
        """The question's arrays are views; what a product returns may be one of them, or of the map."""
        x = rng.standard_normal((3, 5))
        for answer in (lambda z, v: v, lambda z, v: v[:], lambda z, v: np.asfortranarray(0.5 * v)):
            solution = deqcore.fixed_point(
                lambda z, x: 0.5 * z + x, 0 * x, row_args=(x,), jvp=lambda z, v, x, a=answer: a(z, v),
                method="newton_krylov", on_failure="return", max_steps=40,
            )  # fmt: skip
            assert np.isfinite(solution.value).all()
            assert solution.copies > 0


@pytest.mark.parametrize("method", METHODS, ids=repr)
class TestExceptions:
    @pytest.mark.parametrize("fails", ["f", "jvp"])
    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_come_out_unchanged_and_the_next_solve_works(self, fails, at, method, rng):
        W, x = weights(rng, 5, 0.95), rng.standard_normal((4, 5))
        f, jvp = tanh_map(W)
        for error in (RuntimeError("mine"), StopIteration(3), KeyboardInterrupt(), SystemExit(3), GeneratorExit()):
            left = [at]

            def failing(of, left=left, error=error):
                def call(*args):
                    left[0] -= 1
                    if not left[0]:
                        raise error
                    return of(*args)

                return call

            options = {"row_args": (x,), "method": method, "rtol": 1e-13}
            with pytest.raises(type(error)) as caught:
                deqcore.fixed_point(
                    failing(f) if fails == "f" else f, 0 * x, jvp=failing(jvp) if fails == "jvp" else jvp, **options
                )
            assert caught.value is error
            assert deqcore.fixed_point(f, 0 * x, jvp=jvp, **options).success
            assert deqcore.fixed_point(f, 0 * x, **options | {"rtol": 1e-8}).success

    def test_keep_their_traceback(self, method):
        def jvp(z, v):
            raise ZeroDivisionError("in the product")

        with pytest.raises(ZeroDivisionError) as caught:
            deqcore.fixed_point(np.cos, np.ones((2, 3)), method=method, jvp=jvp)
        assert caught.traceback[-1].name == "jvp"

    @pytest.mark.parametrize(
        ("words", "answer", "error", "message"),
        [
            ("None", lambda v: None, TypeError, "None"),
            ("a list", lambda v: v.tolist(), TypeError, "list"),
            ("a number", lambda v: 1.0, TypeError, "float"),
            ("a row more", lambda v: np.ones((4, 4)), ValueError, r"shape \(4, 4\).*expected shape \(3, 4\)"),
            ("the transpose", lambda v: v.T, ValueError, r"shape \(4, 3\).*expected shape \(3, 4\)"),
            ("one row to broadcast", lambda v: v[:1], ValueError, r"shape \(1, 4\).*expected shape \(3, 4\)"),
            ("0-d", lambda v: np.array(1.0), ValueError, r"shape \(\).*expected shape \(3, 4\)"),
            ("float32", lambda v: v.astype(np.float32), TypeError, "dtype float32; expected dtype float64"),
            ("integers", lambda v: v.astype(int), TypeError, "dtype int64; expected dtype float64"),
            ("complex", lambda v: v + 0j, TypeError, "dtype complex128; expected dtype float64"),
        ],
    )
    def test_wrong_answers_are_named(self, words, answer, error, message, method):
        z0 = np.full((3, 4), 0.3)
        with pytest.raises(error, match=f"(?s)^jvp .*{message}"):
            deqcore.fixed_point(np.cos, z0, method=method, jvp=lambda z, v: answer(v))
        with pytest.raises(error, match=f"(?s)^f .*{message}"):
            deqcore.fixed_point(answer, z0, method=method)
        calls = []

        def wrong_in_a_difference(z):
            calls.append(1)
            return answer(z) if len(calls) == 2 else np.cos(z)

        with pytest.raises(error, match=f"(?s)^f .*{message}"):
            deqcore.fixed_point(wrong_in_a_difference, z0, method=method)
        later = []

        def at_the_second_product(z, v):
            later.append(1)
            return answer(v) if len(later) == 2 else -np.sin(z) * v

        x = np.linspace(0, 1, 12).reshape(3, 4)
        with pytest.raises(error, match=f"(?s)^jvp .*{message}"):
            deqcore.fixed_point(lambda z: np.cos(z + x), z0, method=method, jvp=at_the_second_product, rtol=1e-13)


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"method": "picard"}, ValueError, "^jvp: given with method 'picard'; expected None: only Newton's"),
            ({"method": Anderson()}, ValueError, r"^jvp: given with method Anderson\("),
            ({"method": ["picard", "broyden"]}, ValueError, r"^jvp: given with method \['picard', 'broyden'\]"),
            ({"method": "newton", "jvp": 3}, TypeError, "^jvp: 3 given; expected a callable, or None"),
            ({"method": "newton", "jvp": np.eye(4)}, TypeError, "^jvp: array.* given; expected a callable"),
            ({"method": "newton", "jvp": True}, TypeError, "^jvp: True given; expected a callable"),
        ],
    )
    def test_a_jvp_that_nobody_would_ask(self, options, error, message):
        called = []
        with pytest.raises(error, match="(?s)" + message):
            deqcore.fixed_point(called.append, np.ones((3, 4)), **{"jvp": lambda z, v: v, **options})
        assert not called

    @pytest.mark.parametrize("layer", [Dense(0.5 * np.eye(4)), deqcore.maps.Monotone(np.eye(4), np.eye(4), m=0.5)])
    def test_a_jvp_for_a_map_that_has_its_own(self, layer):
        with pytest.raises(ValueError, match=r"^jvp: given with .*; expected None: this map has its own products"):
            deqcore.fixed_point(layer, np.ones((3, 4)), row_args=(np.ones((3, 4)),), method="newton", jvp=layer.jvp)

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: Newton(max_width=0), ValueError, "^max_width: 0 given; expected 1 to 4096"),
            (lambda: Newton(max_width=4097), ValueError, "^max_width: 4097 given; expected 1 to 4096"),
            (lambda: Newton(max_width=2.5), TypeError, r"^max_width: 2\.5 given; expected an integer"),
            (lambda: Newton(max_width=True), TypeError, "^max_width: True given; expected an integer"),
            (lambda: Newton(maxwidth=3), TypeError, r"^Newton\(\) has no option 'maxwidth'; did you mean 'max_width'"),
            (lambda: NewtonKrylov(restart=0), ValueError, "^restart: 0 given; expected 1 to 500"),
            (lambda: NewtonKrylov(restart=501), ValueError, "^restart: 501 given; expected 1 to 500"),
            (lambda: NewtonKrylov(restart="9"), TypeError, "^restart: '9' given; expected an integer"),
            (lambda: NewtonKrylov(forcing=0), ValueError, r"^forcing: 0 given; expected a number in \(0, 1\), or None"),
            (lambda: NewtonKrylov(forcing=1.0), ValueError, r"^forcing: 1\.0 given; expected a number in \(0, 1\)"),
            (lambda: NewtonKrylov(forcing=-1e-3), ValueError, r"^forcing: -0\.001 given"),
            (lambda: NewtonKrylov(forcing=math.nan), ValueError, "^forcing: nan given; expected a number"),
            (lambda: NewtonKrylov(forcing="0.1"), TypeError, r"^forcing: '0\.1' given; expected a real number"),
            (lambda: NewtonKrylov(forcing=True), TypeError, "^forcing: True given; expected a real number"),
            (lambda: NewtonKrylov(eta=0.1), TypeError, r"^NewtonKrylov\(\) has no option 'eta'"),
        ],
    )  # fmt: skip
    def test_wrong_options(self, call, error, message):
        with pytest.raises(error, match=message):
            call()

    def test_rows_too_wide_and_steps_too_few(self):
        z0 = np.ones((2, 9))
        with pytest.raises(ValueError, match=r"^width: 9 given; Newton factors rows of at most 8 .*use NewtonKrylov"):
            deqcore.fixed_point(np.cos, z0, method=Newton(max_width=8))
        with pytest.raises(ValueError, match=r"^max_steps: 10 given; Newton\(\) on rows of width 9 needs at least 11"):
            deqcore.fixed_point(np.cos, z0, method=Newton(), max_steps=10)
        ended = deqcore.fixed_point(np.cos, z0, method=Newton(), max_steps=11, on_failure="return")
        assert ended.steps.tolist() == [11, 11]

    @pytest.mark.parametrize("method", [Newton(), NewtonKrylov()], ids=repr)
    def test_by_functions_that_do_not_take_newton(self, method):
        z = np.ones((2, 3))
        for name, call in (
            ("adjoint", lambda m: deqcore.adjoint(lambda z, v: v, z, z, method=m)),
            ("tangent", lambda m: deqcore.tangent(lambda z, v: v, z, z, method=m)),
            ("linear_solve", lambda m: deqcore.linear_solve(lambda v: v, z, method=m)),
        ):
            kind = type(method).__name__
            with pytest.raises(ValueError, match=rf"^method: {kind}\(.*\) given; {name}\(\) takes one of '"):
                call(method)
            with pytest.raises(ValueError, match=f"^method: '{method.name}' given; expected one of '"):
                call(method.name)

    def test_a_history_to_keep(self, rng):
        with pytest.raises(ValueError, match=r"^keep: 'history' given with Newton.*remembers nothing"):
            deqcore.fixed_point(np.cos, np.ones((2, 3)), method="newton", keep="history")


class TestLadders:
    def folded(self, rng, rows=12, width=10):
        """Rows that Picard solves and rows that it does not."""
        A = rng.standard_normal((width, width))
        W = -A @ A.T
        x = rng.standard_normal((rows, width)) * np.linspace(0.05, 6, rows)[:, None]
        return W * (1.5 / np.linalg.norm(W, 2)), x

    @pytest.mark.parametrize("last", [NewtonKrylov(), Newton()], ids=repr)
    def test_newton_solves_what_the_first_did_not(self, last, rng):
        W, x = self.folded(rng)
        f, jvp = tanh_map(W)
        z0 = np.zeros_like(x)
        ladder = ["picard", last]

        def by_ids(z, rows):
            return f(z, x[rows])

        def product_by_ids(z, v, rows):
            return jvp(z, v, x[rows])

        solutions = [
            deqcore.fixed_point(Dense(W), z0, row_args=(x,), method=ladder),
            deqcore.fixed_point(f, z0, row_args=(x,), method=ladder),
            deqcore.fixed_point(f, z0, row_args=(x,), jvp=jvp, method=ladder),
            deqcore.fixed_point(by_ids, z0, pass_rows=True, method=ladder),
            deqcore.fixed_point(by_ids, z0, pass_rows=True, jvp=product_by_ids, method=ladder),
            deqcore.fixed_point(lambda z: f(z, x), z0, method=ladder),
            deqcore.fixed_point(lambda z: f(z, x), z0, jvp=lambda z, v: jvp(z, v, x), method=ladder),
        ]
        expected = solutions[0].method.tolist()
        assert set(expected) == {"picard", last.name}
        for solution, products in zip(solutions, (1, 0, 1, 0, 1, 0, 1), strict=True):
            assert solution.success
            assert solution.method.tolist() == expected
            assert (solution.products > 0) == bool(products)
            residual = np.linalg.norm(f(solution.value, x) - solution.value, axis=1)
            np.testing.assert_allclose(solution.residual, residual, rtol=1e-5, atol=1e-13)
            np.testing.assert_allclose(solution.scale, np.linalg.norm(np.tanh(x), axis=1), rtol=1e-13)

    def test_a_single_state(self, rng):
        W, x = self.folded(rng)
        f, jvp = tanh_map(W)
        for given in (None, lambda z, v: jvp(z, v, x[0])):
            solution = deqcore.fixed_point(lambda z: f(z, x[0]), np.zeros(10), method=["picard", "newton"], jvp=given)
            assert solution.success
            assert solution.value.shape == (10,)
            assert solution.method.tolist() == ["newton"]

    def test_a_rung_that_does_not_fit_is_passed_over(self, rng):
        W, x = self.folded(rng)
        f, _ = tanh_map(W)
        for narrow in (Newton(max_width=9), Newton()):
            steps = {} if narrow.max_width == 9 else {"max_steps": 11}
            ladder = [narrow, NewtonKrylov()]
            solution = deqcore.fixed_point(f, 0 * x, row_args=(x,), method=ladder, on_failure="return", **steps)
            assert set(solution.method) == {"newton_krylov"}
        ladder = ["picard", Newton(max_width=9), "newton_krylov"]
        assert deqcore.fixed_point(f, 0 * x, row_args=(x,), method=ladder).success
        with pytest.raises(ValueError, match=r"^width: 10 given; Newton factors rows of at most 9"):
            deqcore.fixed_point(f, 0 * x, row_args=(x,), method=[Newton(max_width=9)])
        with pytest.raises(ValueError, match=r"^method: .* none of them takes rows of width 10"):
            deqcore.fixed_point(f, 0 * x, row_args=(x,), method=[Newton(max_width=9), Newton(max_width=8)])

    def test_counts_and_traces_add_up(self, rng):
        W, x = self.folded(rng)
        calls = Counting(*tanh_map(W))
        solution = deqcore.fixed_point(
            calls, 0 * x, row_args=(x,), jvp=calls.jvp, method=["picard", "newton_krylov", "newton"], trace=True
        )
        calls.check(solution)
        for i in range(len(x)):
            assert np.count_nonzero(np.isfinite(solution.trace[:, i])) == solution.steps[i]

    @pytest.mark.parametrize("max_steps", [21, 40, 100])
    def test_the_steps_of_all_rungs_are_bounded(self, max_steps, rng):
        W, x = self.folded(rng, width=5)
        f, jvp = tanh_map(W)
        for ladder in (["picard", "newton"], ["newton", "newton_krylov"], ["newton_krylov", "picard", "newton"]):
            solution = deqcore.fixed_point(
                f, 0 * x, row_args=(x,), jvp=jvp, method=ladder, max_steps=max_steps, on_failure="return"
            )
            assert solution.steps.max() <= max_steps
            assert solution.tolerances.max_steps == max_steps

    def test_without_a_limit_each_rung_has_its_own(self, rng):
        W, x = self.folded(rng)
        f, _ = tanh_map(W)
        solution = deqcore.fixed_point(f, 0 * x, row_args=(x,), method=["picard", "newton", "newton_krylov"])
        assert solution.tolerances.max_steps in (200 + 100 * 11, 200 + 100 * 11 + 50 * 12)  # as needed


class TestStarts:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_from_an_earlier_solve(self, method, kind, rng):
        W, x = weights(rng, 8, 0.9), rng.standard_normal((5, 8))
        first = solve_by(kind, W, 0 * x, x, method=method, keep="state", rtol=1e-12)
        assert isinstance(first.warm, Warm)
        np.testing.assert_array_equal(first.warm.value, first.value)
        again = solve_by(kind, W, 0 * x, x, method=method, warm=first.warm)
        assert again.success
        assert again.steps.tolist() == [1] * 5
        later = x + 1e-3
        cold = solve_by(kind, W, 0 * x, later, method=method, rtol=1e-12)
        warm = solve_by(kind, W, 0 * x, later, method=method, rtol=1e-12, warm=first.warm)
        assert warm.success
        assert warm.steps.sum() < cold.steps.sum()
        np.testing.assert_allclose(warm.value, cold.value, rtol=1e-10, atol=1e-11)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_at_the_solution_end_at_once(self, method, dtype):
        z = np.full((3, 5), 0.25, dtype)
        solution = deqcore.fixed_point(lambda z: z.copy(), z, method=method)
        assert solution.steps.tolist() == [1, 1, 1]
        assert (solution.residual == 0).all()
        np.testing.assert_array_equal(solution.value, z)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_halving_ends_at_zero(self, method, dtype, rng):
        z0 = rng.standard_normal((20, 5)).astype(dtype)
        solution = deqcore.fixed_point(lambda z: z * dtype(0.5), z0, method=method)
        assert solution.success
        assert (np.linalg.norm(solution.value, axis=1) <= 8 * np.finfo(dtype).eps * np.linalg.norm(z0, axis=1)).all()

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    @pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3])
    def test_of_any_size_are_alike(self, method, size, dtype, rng):
        W, x = weights(rng, 6).astype(dtype), rng.standard_normal((4, 6)).astype(dtype)
        small = deqcore.fixed_point(lambda z, x: z @ W.T + x, 0 * x, row_args=(x,), method=method)
        x = x * dtype(size)
        scaled = deqcore.fixed_point(lambda z, x: z @ W.T + x, 0 * x, row_args=(x,), method=method)
        assert scaled.success
        tolerance = 20 * math.sqrt(np.finfo(dtype).eps)
        np.testing.assert_allclose(scaled.value / dtype(size), small.value, rtol=tolerance, atol=tolerance)


class TestEnds:
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_maps_that_are_not_finite_are_said_to_be(self, method, dtype, rng):
        x = rng.standard_normal((5, 4)).astype(dtype)
        bad = np.zeros((5, 4), bool)
        bad[1, 2] = bad[3, 0] = True
        for wrong in (np.nan, np.inf, -np.inf):

            def f(z, x, bad, wrong=wrong):
                return np.where(bad, dtype(wrong), dtype(0.5) * np.cos(z) + x)

            solution = deqcore.fixed_point(f, 0 * x, row_args=(x, bad), method=method, on_failure="return")
            assert solution.status.tolist() == [0, Status.not_finite, 0, Status.not_finite, 0]
            assert np.isfinite(solution.value).all()
            assert np.isnan(solution.residual[[1, 3]]).all()

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_products_that_are_not_finite_are_said_to_be(self, method, rng):
        x = rng.standard_normal((5, 4))
        for wrong in (np.nan, np.inf):

            def jvp(z, v, x, rows, wrong=wrong):
                return np.where(rows[:, None] % 2 == 1, wrong, -0.5 * np.sin(z) * v)

            solution = deqcore.fixed_point(
                lambda z, x, rows: 0.5 * np.cos(z) + x, 0 * x + 1, row_args=(x,), pass_rows=True, jvp=jvp,
                method=method, on_failure="return",
            )  # fmt: skip
            assert solution.status.tolist() == [0, Status.not_finite, 0, Status.not_finite, 0]
            assert np.isfinite(solution.residual).all()
            assert "not_finite: the map or a product is NaN or infinite" in solution.explain()

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_a_trial_outside_the_domain_is_made_shorter(self, method):
        """z = sqrt(z) - 0.2: NaN below 0, where whole steps from a large start lead."""
        with np.errstate(invalid="ignore"):
            solution = deqcore.fixed_point(
                lambda z: np.sqrt(z) - 0.2 + 0 * z, np.full((1, 3), 0.26), method=method, on_failure="return"
            )
        root = (1 + math.sqrt(1 - 0.8)) / 2
        other = (1 - math.sqrt(1 - 0.8)) / 2
        assert solution.success
        assert np.isfinite(solution.value).all()
        near = np.minimum(abs(solution.value - root**2 + 0.2), abs(solution.value - other**2 + 0.2))
        assert (near < 1).all()
        np.testing.assert_allclose(np.sqrt(solution.value) - 0.2, solution.value, atol=1e-7)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    def test_local_minima_of_the_residual_are_a_breakdown(self, method, given, rng):
        """z + z^2 + 1 has no fixed point: the residual is least at 0, where it is 1."""
        z0 = rng.uniform(0.5, 2, (6, 1))
        jvp = (lambda z, v: v + 2 * z * v) if given else None
        solution = deqcore.fixed_point(lambda z: z + z * z + 1, z0, method=method, jvp=jvp, on_failure="return")
        assert (solution.status == Status.breakdown).all()
        assert (solution.residual >= 1).all()
        assert "breakdown: no step lowers the residual: near a local minimum" in solution.explain()
        with pytest.raises(ConvergenceError, match="6 breakdown"):
            deqcore.fixed_point(lambda z: z + z * z + 1, z0, method=method, jvp=jvp)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_a_wrong_product_is_no_wrong_answer(self, method, rng):
        """Products of the wrong sign, scaled, or of noise: whatever is called converged has a true residual."""
        W, x = weights(rng, 8, 0.9), rng.standard_normal((6, 8))
        f, jvp = tanh_map(W)
        for wrong in (
            lambda z, v, x: -jvp(z, v, x),
            lambda z, v, x: 100 * jvp(z, v, x),
            lambda z, v, x: v + 1e-9 * jvp(z, v, x),
            lambda z, v, x: 0 * v,
            lambda z, v, x: rng.standard_normal(v.shape),
        ):
            solution = deqcore.fixed_point(f, 0 * x, row_args=(x,), jvp=wrong, method=method, on_failure="return")
            residual = np.linalg.norm(f(solution.value, x) - solution.value, axis=1)
            np.testing.assert_allclose(solution.residual, residual, rtol=1e-5, atol=1e-14)
            good = solution.status == Status.converged
            assert (residual[good] <= 1.01 * solution.tolerances.rtol * 10 * solution.scale[good]).all()
            assert set(solution.status[~good].tolist()) <= {Status.breakdown, Status.out_of_steps, Status.stalled}

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_no_row_converges_without_a_fixed_point(self, method, dtype, rng):
        sign = np.sign(rng.standard_normal((24, 6))).astype(dtype)
        z0 = (rng.standard_normal((24, 6)) * np.repeat([0, 1, 10], 8)[:, None]).astype(dtype)
        for f in (
            lambda z: z + sign * (1 + dtype(0.1) * np.tanh(z)),
            lambda z: z + dtype(1) + dtype(0.1) * np.sin(z),
        ):
            for rtol in (1e-3, 1e-5):
                solution = deqcore.fixed_point(f, z0, method=method, rtol=rtol, on_failure="return")
                assert (solution.status < 0).all(), solution.explain()

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_a_callback_sees_every_call_and_can_stop(self, method, rng):
        W, x = weights(rng, 6, 0.95), rng.standard_normal((3, 6))
        f, jvp = tanh_map(W)
        for look_every in (3, 1):
            seen = []
            calls = Counting(f, jvp)
            options = {"row_args": (x,), "jvp": calls.jvp, "method": method, "look_every": look_every}
            solution = deqcore.fixed_point(calls, 0 * x, callback=seen.append, **options)
            total = solution.nfe + solution.products
            assert [progress.steps for progress in seen[:-1]] == list(range(look_every, total, look_every))
            assert seen[-1].steps == total
            assert seen[-1].running == 0
            assert all(0 <= progress.running <= 3 for progress in seen)
        for stop_at in range(1, total):
            calls = Counting(f, jvp)

            def stop(progress, stop_at=stop_at):
                if progress.steps == stop_at:
                    raise StopIteration

            stopped = deqcore.fixed_point(calls, 0 * x, row_args=(x,), jvp=calls.jvp, method=method, callback=stop)
            calls.check(stopped)
            assert calls.values + calls.products == stop_at
            running = stopped.status == Status.cancelled
            assert (running | (stopped.status == Status.converged)).all()
            residual = np.linalg.norm(f(stopped.value, x) - stopped.value, axis=1)
            np.testing.assert_allclose(stopped.residual, residual, rtol=1e-6, atol=1e-15)
            assert not stopped.success or not running.any()

        def mine(progress):
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            deqcore.fixed_point(f, 0 * x, row_args=(x,), jvp=jvp, method=method, callback=mine)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_on_failure(self, method):
        def up(z):
            return z + 1

        z0 = np.zeros((2, 3))
        with pytest.raises(ConvergenceError, match=r"^fixed_point: 2 of 2 rows did not converge") as caught:
            deqcore.fixed_point(up, z0, method=method)
        assert (caught.value.solution.status < 0).all()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            deqcore.fixed_point(up, z0, method=method, on_failure="warn")
            deqcore.fixed_point(up, z0, method=[method, "picard"], on_failure="warn")
        assert [str(warning.filename) for warning in seen] == [__file__] * 2
        assert all(warning.category is deqcore.ConvergenceWarning for warning in seen)
        returned = deqcore.fixed_point(up, z0, method=method, on_failure="return")
        assert returned.status.tolist() == caught.value.solution.status.tolist()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_the_trace_has_an_entry_for_every_step(self, method, kind, rng):
        W, x = weights(rng, 7, 0.95), speeds(rng, 6, 7, np.float64)
        solution = solve_by(kind, W, np.zeros_like(x), x, method=method, trace=True)
        assert len(solution.trace) == solution.steps.max()
        for i, steps in enumerate(solution.steps):
            assert np.isfinite(solution.trace[:steps, i]).all()
            assert np.isnan(solution.trace[steps:, i]).all()
            assert solution.trace[steps - 1, i] == solution.residual[i]
            assert solution.trace[0, i] == pytest.approx(np.linalg.norm(np.tanh(x[i])))

    def test_the_words(self, rng):
        W, x = weights(rng, 7, 0.95), rng.standard_normal((6, 7))
        solution = solve_by("jvp", W, 0 * x, x, method="newton_krylov")
        assert solution.explain().startswith("fixed_point: all 6 rows converged.")
        short = solve_by("jvp", W, 0 * x, x, method="newton_krylov", max_steps=4, on_failure="return")
        assert "out_of_steps: raise max_steps, which counts products too" in short.explain()
        assert "method newton_krylov, max_steps 4" in short.message


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_methods_are_values(method):
    assert method == type(method)(**vars(method))
    assert hash(method) == hash(type(method)(**vars(method)))
    assert method != Anderson()
