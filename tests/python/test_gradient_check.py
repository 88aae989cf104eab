# SPDX-License-Identifier: Apache-2.0
"""The gradient check against dense references of its own, and what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

import deqcore
from deqcore import Anderson, Picard, Status, check_gradient
from deqcore.maps import Dense
from support.problems import ACTIVATIONS, SHAPES, dense_adjoint, dense_jacobians, relative_error, weights

SMOOTH = [name for name in ACTIVATIONS if name != "relu"]


def case(rng, shape, activation="tanh", dtype=np.float64, norm=0.8):
    """W, injection, z, g; z need not be a fixed point."""
    W = weights(rng, shape[-1], norm)
    return tuple(array.astype(dtype) for array in (W, *rng.standard_normal((3, *shape))))


def rounded(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


class TestAgainstReferences:
    @pytest.mark.parametrize("against", ["dense", "differences"])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_of_a_native_map(self, shape, against, dtype, rng):
        W, c, z, g = case(rng, shape, dtype=dtype)
        check = check_gradient(Dense(W), z, g, row_args=(c,), against=against)
        exact = dense_adjoint("tanh", *rounded(W, z, c, g))
        eps = np.finfo(dtype).eps
        assert relative_error(check.exact, exact) <= (100 * eps if against == "dense" else 100 * eps ** (2 / 3))
        assert (check.status == Status.converged).all()
        assert (check.relative_error <= 1e-3 if dtype == np.float32 else check.relative_error <= 1e-8).all()
        assert (check.cosine > 1 - 1e-5).all()

    @pytest.mark.parametrize("activation", SMOOTH)
    def test_differences_of_a_callable(self, activation, rng):
        W, c, z, g = case(rng, (3, 9), activation)
        a, slope = ACTIVATIONS[activation]
        check = check_gradient(
            lambda z, v, W, c: (slope(z @ W.T + c) * v) @ W,
            z,
            g,
            args=(W,),
            row_args=(c,),
            f=lambda z, W, c: a(z @ W.T + c),
            against="differences",
        )
        assert relative_error(check.exact, dense_adjoint(activation, W, z, c, g)) <= 1e-8
        assert (check.relative_error <= 1e-8).all()

    def test_the_numbers_are_what_they_are_called(self, rng):
        W, c, z, g = case(rng, (4, 11))
        for method in (Picard(), Picard(beta=0.5), Anderson(history=2), "anderson"):
            check = check_gradient(Dense(W), z, g, row_args=(c,), method=method, rtol=0.03)
            solution = deqcore.adjoint(Dense(W), z, g, row_args=(c,), method=method, rtol=0.03)
            exact = dense_adjoint("tanh", W, z, c, g)
            lengths = np.linalg.norm(solution.value, axis=1) * np.linalg.norm(exact, axis=1)
            errors = np.linalg.norm(solution.value - exact, axis=1) / np.linalg.norm(exact, axis=1)
            np.testing.assert_array_equal(check.u, solution.value)
            np.testing.assert_allclose(check.relative_error, errors, rtol=1e-9)
            np.testing.assert_allclose(check.cosine, (solution.value * exact).sum(axis=1) / lengths, rtol=1e-12)
            J = dense_jacobians("tanh", W, z, c)
            np.testing.assert_allclose(check.condition, np.linalg.cond(np.eye(11) - J), rtol=1e-8)
            assert check.products == solution.nfe
            assert type(check.products) is int

    def test_a_wrong_product_shows_against_differences_alone(self, rng):
        W, c, z, g = case(rng, (3, 6))
        wrong = {"map_or_vjp": lambda z, v, c: 0.5 * v @ W, "z": z, "g": g, "row_args": (c,)}
        f = Dense(W)
        assert (check_gradient(**wrong).relative_error < 1e-8).all()
        assert (check_gradient(**wrong, f=f, against="differences").relative_error > 0.01).all()

    @pytest.mark.parametrize("shape", [(5,), (2, 3, 2), (1, 1, 7)], ids=str)
    def test_shapes(self, shape, dtype, rng):
        scale = (0.8 * rng.uniform(-1, 1, shape)).astype(dtype)
        z, g = rng.standard_normal((2, *shape)).astype(dtype)
        check = check_gradient(
            lambda z, v: np.cos(z) * scale * v, z, g, f=lambda z: scale * np.sin(z), against="differences"
        )
        rows = 1 if len(shape) == 1 else shape[0]
        assert check.exact.shape == check.u.shape == shape
        assert (
            check.cosine.shape == check.relative_error.shape == check.condition.shape == check.status.shape == (rows,)
        )
        assert (check.u.dtype, check.exact.dtype) == (dtype, np.float64)
        tolerance = 1e-3 if dtype == np.float32 else 1e-8
        np.testing.assert_allclose(check.exact, g / (1 - np.cos(z) * scale), rtol=tolerance, atol=tolerance)


class TestEdges:
    def test_a_singular_row_has_no_reference(self, rng):
        J = np.stack([0.5 * np.eye(3), np.diag([0.2, 1.0, 0.0]), np.full((3, 3), np.nan), np.zeros((3, 3))])
        g = rng.standard_normal((4, 3))
        check = check_gradient(lambda z, v, J: np.einsum("rij,ri->rj", J, v), np.zeros((4, 3)), g, row_args=(J,))
        assert np.isnan(check.exact).all(axis=1).tolist() == [False, True, True, False]
        assert np.isnan(check.relative_error).tolist() == np.isnan(check.cosine).tolist() == [False, True, True, False]
        assert np.isinf(check.condition).tolist() == [False, True, False, False]
        assert check.status[2] == Status.not_finite
        assert str(check) == check.explain()
        assert "I - J is singular in 1 row (row 1): there is no gradient" in str(check)
        assert "J is not finite in 1 row (row 2)" in str(check)
        assert "ended as not_finite in 1 row (row 2)" in str(check)
        assert repr(check) == "<GradientCheck " + str(check).splitlines()[0] + ">"

    @pytest.mark.parametrize("against", ["dense", "differences"])
    def test_a_rotated_singular_row(self, against, dtype, rng):
        Q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
        W = (Q * np.append(1, rng.uniform(-0.5, 0.5, 11)) @ Q.T).astype(dtype)
        z, g = rng.standard_normal((2, 2, 12)).astype(dtype)
        layer, zero = Dense(W, "identity"), np.zeros(12, dtype)
        check = check_gradient(layer, z, g, row_args=(zero,), against=against)
        assert np.isinf(check.condition).all()
        layer.update(W * dtype(0.99))
        check = check_gradient(layer, z, g, row_args=(zero,), against=against)
        assert (np.abs(check.condition / check.condition[0] - 1) < 0.1).all()

    def test_gradients_of_zero(self):
        check = check_gradient(lambda z, v: 0.5 * v, np.zeros((2, 3)), np.array([[0.0, 0, 0], [1, 0, 0]]))
        np.testing.assert_allclose(check.cosine, 1)
        assert check.relative_error[0] == 0

    def test_failures_are_reported_not_raised(self, rng):
        W, c, z, g = case(rng, (3, 8), norm=0.95)
        check = check_gradient(Dense(W), z, g, row_args=(c,), method="picard", max_steps=2)
        assert (check.status == Status.out_of_steps).all()
        assert check.products == 2
        assert "ended as out_of_steps in 3 rows (rows 0, 1, 2)" in check.explain()

    def test_inputs_are_never_written_and_arrive_read_only(self, rng):
        z, g = rng.standard_normal((2, 2, 4))
        kept = z.copy(), g.copy()

        def vjp(z, v):
            assert not v.flags.writeable
            return 0.5 * v

        check_gradient(vjp, z, g, f=lambda z: 0.5 * z, against="differences")
        np.testing.assert_array_equal((z, g), kept)
        with pytest.raises(ValueError, match="read-only"):
            check_gradient(vjp, z, g, f=lambda z: np.sin(z, out=z), against="differences")


z, x = np.zeros((3, 4)), np.ones((3, 4))
layer = Dense(0.5 * np.eye(4))
DIFFERENCES = {"against": "differences", "f": np.cos}


def half(z, v, *args):
    return 0.5 * v


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ((None, z, x), {}, TypeError, r"^map_or_vjp: NoneType given; expected vjp\(z, v, \.\.\.\)"),
        ((half, [0.0], x), {}, TypeError, "^z: list given; expected a NumPy array"),
        ((half, z.astype(int), x), {}, TypeError, "^z: .*int64 given; expected dtype float32 or float64"),
        ((half, z + np.nan, x), {}, ValueError, r"^z: nan at index \(0, 0\)"),
        ((half, z, x[:2]), {}, ValueError, r"^g: array of shape \(2, 4\).*expected shape \(3, 4\)"),
        ((half, z, x.astype(np.float32)), {}, TypeError, "^g: .*float32 given; expected dtype float64"),
        ((half, z, x), {"args": x}, TypeError, "^args: .*expected a tuple"),
        ((half, z, x), {"row_args": (x[:2],)}, ValueError, r"^row_args\[0\]: .*expected 3 rows"),
        ((layer, z, x), {}, TypeError, r"^row_args: 0 arrays given; expected \(injection,\)"),
        ((layer, z, x), {"row_args": (x[:, :3],)}, ValueError, "^injection: "),
        ((lambda z, v: v[:2], z, x), {}, ValueError, "^vjp returned .*expected shape"),
        ((half, z, x), {"against": "dens"}, ValueError, "^against: 'dens' given; expected 'dense' or 'differences'"),
        ((half, z, x), {"against": None}, ValueError, "^against: None given"),
        ((half, z, x), {"against": "differences"}, TypeError, "^f: NoneType given with against='differences'"),
        ((half, z, x), {"f": np.cos}, ValueError, "^f: given with against='dense'; expected None"),
        ((half, z, x), {"step": 1e-3}, ValueError, "^step: given with against='dense'; expected None"),
        ((half, z, x), {**DIFFERENCES, "step": 0.0}, ValueError, "^step: 0 given; expected a finite number > 0"),
        ((half, z, x), {**DIFFERENCES, "step": math.nan}, ValueError, "^step: nan given; expected a finite"),
        ((half, z, x), {**DIFFERENCES, "step": "1"}, TypeError, "^step: '1' given; expected a real number"),
        ((half, z, x), {**DIFFERENCES, "f": lambda z: None}, TypeError, "^f returned None; expected an array"),
        ((half, z, x), {"rtol": -1.0}, ValueError, "^rtol: -1 given"),
        ((half, z, x), {"max_steps": 0}, ValueError, "^max_steps: 0 given"),
        ((half, z, x), {"method": "newto"}, ValueError, "^method: 'newto' given"),
        ((half, z, x), {"tol": 1e-3}, TypeError, r"^check_gradient\(\) has no option 'tol'; did you mean 'rtol'"),
        (
            (half, z, x),
            {"max_step": 9},
            TypeError,
            r"^check_gradient\(\) has no option 'max_step'; did you mean 'max_steps'",
        ),
    ],
)
def test_wrong_input(given, options, error, message):
    with pytest.raises(error, match=message):
        check_gradient(*given, **options)
