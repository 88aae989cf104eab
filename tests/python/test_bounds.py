# SPDX-License-Identifier: Apache-2.0
"""Error bounds against fixed points known to 18 digits: never too small, and how much too large (shown with -s)."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from deqcore import fixed_point, maps
from deqcore._bounds import _SHARPEST, _STEEPEST, _VALUES, ErrorBound, error_bound
from deqcore._regularisers import _slope_and_curvature
from deqcore.maps import Dense
from support.problems import dense_jacobians, weights

MAPS, ROWS = 50, 20  # of each kind and dtype: 1000 trials
Wide = np.longdouble


def _wide_sigmoid(x):
    return 1 / (1 + np.exp(-x))


#: At the widest precision there is; gelu has no such formula here.
WIDE = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": _wide_sigmoid,
    "softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    "silu": lambda x: x * _wide_sigmoid(x),
    "sin": np.sin,
}


def exact_roots(activation, W, z, c):
    """Fixed points near z, to far below an eps of float64: Newton whose residuals are computed at long double."""
    W, c, z = (np.asarray(a, Wide) for a in (W, c, z))
    W64 = W.astype(float)
    for _ in range(60):
        g = WIDE[activation](z @ W.T + c) - z
        J = dense_jacobians(activation, W64, z.astype(float), c.astype(float))
        z = z + np.linalg.solve(np.eye(len(W)) - J, g.astype(float)[:, :, None])[:, :, 0]
        if np.abs(g).max() < 1e-18:
            return z
    raise AssertionError(f"no root found: {np.abs(g).max()}")


def planted(rng, activation, W, rows, dtype):
    """Injections for which the fixed points are known to double precision, and those points."""
    c = rng.standard_normal((rows, len(W)))
    inner = rng.standard_normal((rows, len(W)))
    z = np.asarray(WIDE[activation](inner), float)
    c = (inner - z @ W.T).astype(dtype)
    return c, exact_roots(activation, W.astype(dtype), z, c)


def displaced(rng, roots, dtype, largest=1.0):
    """Points at distances from the dtype's rounding up to ``largest``, along random directions."""
    v = rng.standard_normal(roots.shape)
    sizes = largest * 10.0 ** rng.uniform(np.log10(np.finfo(dtype).eps), 0, (len(roots), 1))
    return (roots.astype(float) + sizes * v / np.linalg.norm(v, axis=1, keepdims=True)).astype(dtype)


def true_errors(at, roots):
    return np.sqrt(((at.astype(Wide) - roots) ** 2).sum(axis=1))


class Tally:
    """Bound / error over the trials, and whether one was ever below 1."""

    def __init__(self, name):
        self.name, self.ratios, self.trials, self.without = name, [], 0, 0

    def add(self, bound, roots):
        errors = true_errors(bound.at, roots)
        assert (errors <= bound.bound).all(), (self.name, errors[errors > bound.bound], bound.bound)
        known = np.isfinite(bound.bound) & (errors > 1e-6)
        self.ratios += list((bound.bound[known] / errors[known]).astype(float))
        self.trials, self.without = self.trials + len(errors), self.without + int(np.isinf(bound.bound).sum())

    def report(self, dtype):
        low, median, high = np.quantile(self.ratios, [0.01, 0.5, 0.99])
        print(
            f"\n{self.name} {dtype.__name__}: {self.trials} trials, 0 violations, {self.without} without a bound; "
            f"bound / error, errors above 1e-6: 1 % {low:.4g}, median {median:.4g}, 99 % {high:.4g}",
            end="",
        )
        assert self.trials >= 1000


def callables(activation, W):
    """f and jvp in plain NumPy, at the dtype of z."""

    def f(z, c):
        return np.asarray(_VALUES[activation](z @ W.T + c), z.dtype)

    def jvp(z, v, c):
        return _slope_and_curvature(activation, z @ W.T + c)[0] * (v @ W.T)

    return f, jvp


@pytest.mark.parametrize("native", [True, False], ids=["native", "callable"])
class TestNeverViolated:
    def test_contraction(self, native, dtype, rng):
        tally = Tally("contraction")
        for i in range(MAPS):
            activation = sorted(WIDE)[i % len(WIDE)]
            width, L = int(rng.integers(1, 24)), rng.uniform(0.05, 0.99)
            W = weights(rng, width, L / (1.0999 if activation == "silu" else 1)).astype(dtype)
            c, roots = planted(rng, activation, W, ROWS, dtype)
            z = displaced(rng, roots, dtype)
            if native:
                bound = error_bound(Dense(W, activation), z, row_args=(c,), contraction="weights")
            else:
                bound = error_bound(callables(activation, W)[0], z, row_args=(c,), contraction=min(L * 1.000001, 0.999))
            tally.add(bound, roots)
        tally.report(dtype)

    @pytest.mark.parametrize("m", [0.1, 0.02])
    def test_monotone(self, native, m, dtype, rng):
        tally = Tally(f"monotone, m = {m}")
        for i in range(MAPS):
            activation = ("relu", "tanh", "identity", "softplus", "sigmoid")[i % 5]
            width = int(rng.integers(2, 24))
            A, B = rng.standard_normal((2, width, width)) / width**0.5
            A[0] = 0  # so that no m is larger
            W = ((1 - m) * np.eye(width) - A.T @ A + B - B.T).astype(dtype)
            c, roots = planted(rng, activation, W, ROWS, dtype)
            z = displaced(rng, roots, dtype)
            if native:
                bound = error_bound(Dense(W, activation), z, row_args=(c,), monotone="weights")
                np.testing.assert_allclose(bound.constants["m"], m, rtol=1e-3)
            else:
                constants = (m * (1 - 1e-4), np.linalg.norm(W.astype(float), 2) * 1.000001)
                bound = error_bound(callables(activation, W)[0], z, row_args=(c,), monotone=constants)
            assert (bound.at.dtype, bound.at.shape) == (dtype, z.shape)
            tally.add(bound, roots)
        tally.report(dtype)

    def test_kantorovich(self, native, dtype, rng):
        tally = Tally("kantorovich")
        for i in range(MAPS):
            activation = ("tanh", "tanh", "sigmoid", "softplus", "silu", "sin", "identity")[i % 7]
            width, gain = int(rng.integers(1, 24)), rng.uniform(0.5, 1.2)
            W = (gain / width**0.5 * rng.standard_normal((width, width))).astype(dtype)
            c, roots = planted(rng, activation, W, ROWS, dtype)
            z = displaced(rng, roots, dtype, 0.1)
            if native:
                bound = error_bound(Dense(W, activation), z, row_args=(c,), kantorovich="weights")
            else:
                f, jvp = callables(activation, W)
                norms = np.linalg.norm(W.astype(float), 2), np.linalg.norm(W.astype(float), axis=1).max()
                gamma = 1.000001 * _SHARPEST[activation] * norms[0] * norms[1]
                bound = error_bound(f, z, row_args=(c,), kantorovich=gamma, jvp=jvp)
            known = np.isfinite(bound.bound)
            np.testing.assert_array_equal(known, bound.constants["h"] <= 0.5)
            assert (bound.unique_within[known] >= bound.bound[known]).all()
            assert (bound.unique_within[~known] == 0).all()
            # Some root is within the bound; where the planted one is not, it must lie beyond the radius of uniqueness.
            errors = true_errors(z, roots)
            planted_is_near = errors < bound.unique_within
            assert (errors[known & ~planted_is_near] >= bound.bound[known & ~planted_is_near]).all()
            kept = planted_is_near | ~known
            tally.add(
                ErrorBound(bound.bound[kept], "", "", z[kept], bound.unique_within[kept], bound.noise, {}), roots[kept]
            )
            tally.trials += int((~kept).sum())
        tally.report(dtype)
        assert tally.without < 0.5 * tally.trials


def test_gelu_against_a_tight_solve(rng):
    for _ in range(20):
        W = weights(rng, 9, 0.8)
        c = rng.standard_normal((10, 9))
        layer = Dense(W, "gelu")
        roots = fixed_point(layer, c, row_args=(c,), rtol=2e-15, max_steps=2000, on_failure="return").value
        z = displaced(rng, roots, np.float64, 1e-2)
        z = np.where(true_errors(z, roots)[:, None] > 1e-9, z, roots + 1e-9)
        for options in ({"contraction": "weights"}, {"kantorovich": "weights"}):
            bound = error_bound(layer, z, row_args=(c,), **options)
            assert (true_errors(z, roots) <= bound.bound).all()


class TestConstants:
    def test_the_tables_cover_the_activations(self):
        assert set(_STEEPEST) == set(maps.activations) == set(_SHARPEST) | {"relu"} == set(_VALUES)

    @pytest.mark.parametrize("activation", sorted(_STEEPEST))
    def test_they_are_the_largest_slope_and_curvature(self, activation):
        x = np.linspace(-30, 30, 300_001)
        slope, curvature = _slope_and_curvature(activation, x)
        for table, values in ((_STEEPEST, slope), (_SHARPEST, curvature)):
            if activation in table:
                assert np.abs(values).max() <= table[activation] * (1 + 1e-9)
                assert np.abs(values).max() >= table[activation] * (1 - 1e-6)

    def test_the_values_are_those_of_the_native_map(self, rng):
        z = 3 * rng.standard_normal((40, 5))
        for activation, a in _VALUES.items():
            native = Dense(np.eye(5), activation)(z, np.zeros(5))
            np.testing.assert_allclose(native, a(z), rtol=1e-13, atol=1e-16)

    def test_from_the_weights(self, rng):
        W, c = weights(rng, 6, 0.5), rng.standard_normal((2, 6))
        bound = error_bound(Dense(W, "sigmoid"), c, row_args=(c,), contraction="weights")
        np.testing.assert_allclose(bound.constants["L"], 0.125, rtol=1e-8)
        bound = error_bound(Dense(W), c, row_args=(c,), kantorovich="weights")
        gamma = 4 / 3**1.5 * 0.5 * np.linalg.norm(W, axis=1).max()
        np.testing.assert_allclose(bound.constants["gamma"], gamma, rtol=1e-8)
        J = dense_jacobians("tanh", W, c, c)
        np.testing.assert_allclose(
            bound.constants["beta"], [1 / np.linalg.svd(np.eye(6) - j)[1][-1] for j in J], rtol=1e-10
        )


class TestRows:
    @pytest.mark.parametrize("shape", [(6,), (1, 6), (3, 2, 3)], ids=str)
    def test_shapes(self, shape, dtype):
        z = np.full(shape, 2, dtype) + dtype(0.25)
        bound = error_bound(lambda z: 0.5 * z + 1, z, contraction=0.5, noise=0)
        rows = shape[0] if len(shape) > 1 else 1
        assert (bound.bound.dtype, bound.bound.shape, bound.at.shape) == (np.float64, (rows,), shape)
        np.testing.assert_allclose(bound.bound, 0.25 * 6**0.5, rtol=1e-12)
        assert (bound.unique_within == math.inf).all()

    def test_constants_and_noise_per_row(self):
        z = np.array([[2.0], [3.0], [4.0]])
        bound = error_bound(lambda z: z - 1, z, contraction=np.array([0, 0.5, 0.75]), noise=np.array([0, 0, 1.0]))
        np.testing.assert_allclose(bound.bound, [1, 2, 8], rtol=1e-12)

    def test_rows_that_are_not_finite_have_no_bound(self):
        z = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])

        def f(z):
            return np.where(z[:, :1] == 2, np.nan, np.where(z[:, :1] == 3, np.inf, 0.5 * z))

        for options in (
            {"contraction": 0.5},
            {"monotone": (0.5, 1)},
            {"kantorovich": 0.1, "jvp": lambda z, v: 0 * f(z) + 0.5 * v},
        ):
            bound = error_bound(f, z, **options)
            assert np.isfinite(bound.bound).tolist() == [True, False, False]
            assert (bound.bound[1:] == math.inf).all()
            assert (bound.unique_within[1:] == 0).all()
            assert "No bound in 2 of them (rows 1, 2)." in str(bound)
            assert "no bound in any of 2 rows" in str(error_bound(f, z[1:], **options))

    def test_far_sizes_neither_vanish_nor_overflow(self):
        for size in (1e-200, 1e-160, 1e160, 1e300):
            z = np.full((1, 4), size)
            bound = error_bound(lambda z: 0.5 * z, z, contraction=0.5, noise=0.0)
            np.testing.assert_allclose(bound.bound, 2 * size, rtol=1e-12)

    def test_beyond_one_half_there_is_no_bound(self):
        """f(z) = z + z^2 + d has roots for d <= 0 only: at z = 1/2, J = 2, beta = 1, gamma = 2, eta = 1/4 + d."""
        d = np.array([-0.25, -0.01, 0.0, 1e-6, 0.1])[:, None]
        bound = error_bound(
            lambda z, d: z + z * z + d,
            np.full((5, 1), 0.5),
            row_args=(d,),
            jvp=lambda z, v, d: v + 2 * z * v,
            kantorovich=2,
            noise=0.0,
        )
        np.testing.assert_allclose(bound.constants["h"], 2 * np.abs(0.25 + d[:, 0]), rtol=1e-6, atol=1e-12)
        assert np.isfinite(bound.bound).tolist()[:2] == [True, True]
        assert np.isinf(bound.bound[3:]).all()
        np.testing.assert_allclose(bound.bound[1], 0.5 - 0.1, rtol=1e-5)  # a quadratic attains the theorem's bound
        np.testing.assert_allclose(bound.unique_within[1], 0.5 + 0.1, rtol=1e-5)

    def test_a_singular_row_has_no_bound(self):
        layer = Dense(np.eye(3), "identity")
        bound = error_bound(layer, np.zeros((2, 3)), row_args=(np.ones(3),), kantorovich="weights")
        assert np.isinf(bound.bound).all()

    def test_vjp_is_as_good_as_jvp(self, rng):
        W, z = weights(rng, 5), rng.standard_normal((3, 5))
        f, jvp = callables("tanh", W)

        def vjp(z, v, c):
            return (_slope_and_curvature("tanh", z @ W.T + c)[0] * v) @ W

        by = [error_bound(f, z, row_args=(z,), kantorovich=0.01, **{n: p}) for n, p in (("jvp", jvp), ("vjp", vjp))]
        np.testing.assert_allclose(by[0].bound, by[1].bound, rtol=1e-10)

    def test_it_can_be_pickled_and_printed(self):
        bound = error_bound(lambda z: 0.5 * z, np.ones((2, 3)), contraction=0.5)
        assert pickle.loads(pickle.dumps(bound)).bound.tolist() == bound.bound.tolist()
        assert repr(bound) == f"<ErrorBound {str(bound).splitlines()[0]}>"
        assert bound.kind == "contraction"
        assert "contraction with factor L" in bound.assumption

    def test_inputs_are_not_written(self, rng):
        z, c = rng.standard_normal((2, 3, 4))
        before = z.copy(), c.copy()
        bound = error_bound(Dense(weights(rng, 4)), z, row_args=(c,), kantorovich="weights")
        assert (z == before[0]).all()
        assert (c == before[1]).all()
        assert not np.shares_memory(bound.at, z)


z, x, W = np.zeros((3, 4)), np.ones((3, 4)), 0.5 * np.eye(4)


def half(z, *args):
    return 0.5 * z


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: error_bound(1, z, contraction=0.5), TypeError, "^f: int given; expected a callable"),
        (lambda: error_bound(half, [0.0], contraction=0.5), TypeError, "^z: list given; expected a NumPy array"),
        (lambda: error_bound(half, z), ValueError, "^contraction, monotone, kantorovich: none given; expected one"),
        (
            lambda: error_bound(half, z, contraction=0.5, kantorovich=1),
            ValueError,
            "contraction and kantorovich given; expected one",
        ),
        (lambda: error_bound(half, z, contraction=1.0), ValueError, "^contraction: L = 1 given; expected below 1"),
        (lambda: error_bound(half, z, contraction=-0.1), ValueError, r"^contraction: -0\.1 given; expected L"),
        (lambda: error_bound(half, z, contraction=math.nan), ValueError, "^contraction: nan given"),
        (lambda: error_bound(half, z, contraction=np.ones(2)), ValueError, r"^contraction: .*shape \(3,\)"),
        (lambda: error_bound(half, z, contraction=True), TypeError, "^contraction: bool given"),
        (lambda: error_bound(half, z, contraction=[[1], [1, 2]]), TypeError, "^contraction: list given"),
        (lambda: error_bound(half, z, contraction="weight"), ValueError, "^contraction: 'weight' given"),
        (
            lambda: error_bound(half, z, contraction="weights"),
            ValueError,
            "^contraction: 'weights' given with a callab",
        ),
        (lambda: error_bound(half, z, monotone=0.1), TypeError, r"^monotone: float given; expected \(m, norm\)"),
        (lambda: error_bound(half, z, monotone=(0, 1)), ValueError, "^monotone: m = 0 given; expected a finite num"),
        (lambda: error_bound(half, z, monotone=(1, -1)), ValueError, "^monotone: norm = -1 given"),
        (lambda: error_bound(half, z, monotone=("a", 1)), TypeError, "^monotone, m: 'a' given; expected a real"),
        (lambda: error_bound(half, z, kantorovich=-1, jvp=half), ValueError, "^kantorovich: -1 given; expected gamma"),
        (lambda: error_bound(half, z, kantorovich=1), ValueError, "^jvp, vjp: neither given"),
        (lambda: error_bound(half, z, kantorovich=1, jvp=half, vjp=half), ValueError, "^jvp, vjp: both given"),
        (lambda: error_bound(half, z, kantorovich=1, jvp=3), TypeError, "^jvp: int given"),
        (lambda: error_bound(half, z, contraction=0.5, jvp=half), ValueError, "^jvp: given; expected None"),
        (lambda: error_bound(half, z, contraction=0.5, noise=-1), ValueError, "^noise: -1 given; expected a finite"),
        (
            lambda: error_bound(half, z, contraction=0.5, noises=1),
            TypeError,
            "no option 'noises'; did you mean 'noise'",
        ),
        (lambda: error_bound(half, z, args=x, contraction=0.5), TypeError, "^args: .*expected a tuple"),
        (lambda: error_bound(half, z, row_args=(x[:2],), contraction=0.5), ValueError, r"^row_args\[0\]: .*3 rows"),
        (lambda: error_bound(lambda z: None, z, contraction=0.5), TypeError, "^f returned None"),
        (
            lambda: error_bound(Dense(W), z, row_args=(x,), contraction=0.5, noise=1.0),
            ValueError,
            "^noise: given with a native map",
        ),
        (
            lambda: error_bound(Dense(2.5 * W), z, row_args=(x,), contraction="weights"),
            ValueError,
            r"^contraction: the weights have sup\|a'\| \|W\| = 1\.25; expected below 1",
        ),
        (
            lambda: error_bound(Dense(2.5 * W), z, row_args=(x,), monotone="weights"),
            ValueError,
            r"^monotone: the weights have m = -0\.25; expected above 0",
        ),
        (
            lambda: error_bound(Dense(W, "gelu"), z, row_args=(x,), monotone="weights"),
            ValueError,
            r"^monotone: 'weights' given with activation 'gelu', whose slopes leave \[0, 1\]",
        ),
        (
            lambda: error_bound(Dense(W, "relu"), z, row_args=(x,), kantorovich="weights"),
            ValueError,
            "^kantorovich: 'weights' given with activation 'relu', whose slope jumps",
        ),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
