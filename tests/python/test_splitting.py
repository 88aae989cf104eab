# SPDX-License-Identifier: Apache-2.0
"""Splittings against the plain map, dense solves and differences; the monotone layer; explicit networks as layers."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import _splitting
from deqcore._splitting import Monotone, forward_backward, peaceman_rachford
from support.problems import ACTIVATIONS, dense_adjoint, dense_jacobians, dense_value, matvec, relative_error, weights

PROXES = ["identity", "relu", "tanh", "sigmoid", "softplus"]
SPLITTINGS = ["forward_backward", "peaceman_rachford"]


def layer_and_injection(rng, rows=1, width=100, m=0.1, size=0.7, activation="relu", dtype=np.float64):
    """The layers of the published counts: A and B normal with deviation 0.7 / sqrt(width), x standard normal."""
    A = rng.standard_normal((width, width)) * size / np.sqrt(width)
    B = rng.standard_normal((width, width)) * size / np.sqrt(width)
    x = rng.standard_normal((rows, width))
    return Monotone(A.astype(dtype), B.astype(dtype), m, activation), x.astype(dtype)


def solve(f, injection, method="picard", rtol=1e-12, max_steps=3000, **options):
    """From the state 0."""
    start = np.zeros_like(injection)
    return deqcore.fixed_point(
        f, start, row_args=(injection,), method=method, rtol=rtol, max_steps=max_steps, **options
    )


def equation_residual(activation, W, z, x):
    """|a(W z + x) - z| / |z|, the largest of the rows, at float64."""
    z = np.asarray(z, float)
    gap = dense_value(activation, np.asarray(W, float), z, np.asarray(x, float)) - z
    return float((np.linalg.norm(gap, axis=1) / np.linalg.norm(z, axis=1)).max())


class TestProx:
    @pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 3.0, 1e3])
    @pytest.mark.parametrize("name", PROXES)
    def test_solves_its_equation(self, name, alpha, rng):
        """With v in place of z: s = a(v) + alpha (v - a(v)) is what prox(s) = a(v) inverts."""
        v = np.concatenate([np.linspace(-30, 30, 601), rng.standard_normal(100), 10.0 ** -np.arange(0, 20), [0.0]])
        a = ACTIVATIONS[name][0](v)
        s = a + alpha * (v - a)
        np.testing.assert_allclose(_splitting._prox(name, s, alpha), a, rtol=1e-12, atol=1e-15 * (1 + alpha) * 30)

    @pytest.mark.parametrize("alpha", [1e-6, 0.1, 0.999, 1.001, 10.0, 1e6])
    @pytest.mark.parametrize("name", PROXES[2:])
    def test_takes_few_steps_and_does_not_expand(self, name, alpha, monkeypatch):
        monkeypatch.setattr(_splitting, "_NEWTON_STEPS", 30)
        s = np.sort(np.concatenate([np.linspace(-100, 100, 2001), 10.0 ** np.arange(-20, 5), -(10.0 ** np.arange(4))]))
        y = _splitting._prox(name, s, alpha)
        assert (np.diff(y) >= -1e-9 * (1 + np.abs(s[1:]))).all()
        assert (np.diff(y) <= np.diff(s) + 1e-9 * (1 + np.abs(s[1:]))).all()
        monkeypatch.setattr(_splitting, "_NEWTON_STEPS", 100)
        np.testing.assert_array_equal(y, _splitting._prox(name, s, alpha))

    @pytest.mark.parametrize("name", PROXES[2:])
    def test_minimises(self, name, rng):
        """(s - y)^2 / 2 + alpha F(y) with F' = a^-1(y) - y, at alpha 0.5: the slope at y is 0."""
        alpha, s = 0.5, rng.uniform(-0.5, 0.5, 50) + (0.5 if name == "sigmoid" else 0.7 * (name == "softplus"))
        y = _splitting._prox(name, s, alpha)
        inverse = {
            "tanh": np.arctanh,
            "sigmoid": lambda y: np.log(y / (1 - y)),
            "softplus": lambda y: np.log(np.expm1(y)),
        }
        np.testing.assert_allclose((y - s) + alpha * (inverse[name](y) - y), 0, atol=1e-13)

    def test_nan_and_infinity_stay_in_their_elements(self, dtype):
        s = np.array([0.5, np.nan, np.inf, -1.0], dtype)
        with np.errstate(invalid="ignore"):
            y = _splitting._prox("tanh", s, 0.5)
        clean = _splitting._prox("tanh", s[[0, 3]], 0.5)
        assert y.dtype == dtype
        np.testing.assert_allclose(y[[0, 3]], clean, rtol=1e-6)
        assert np.isnan(y[1])


class TestFixedPoints:
    @pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
    @pytest.mark.parametrize("activation", PROXES)
    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_equal_those_of_the_plain_map(self, name, activation, alpha, rng):
        W, x = weights(rng, 20, norm=0.5), rng.standard_normal((4, 20))
        f = getattr(_splitting, name)(W, activation, alpha=min(alpha, 1.0) if name == "forward_backward" else alpha)
        z = f.read(solve(f, x).value)
        plain = deqcore.fixed_point(deqcore.maps.Dense(W, activation), np.zeros_like(x), row_args=(x,), rtol=1e-13)
        np.testing.assert_allclose(z, plain.value, rtol=0, atol=1e-10)
        assert equation_residual(activation, W, z, x) < 1e-11

    @pytest.mark.parametrize("activation", PROXES)
    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_satisfy_the_equation_where_picard_runs_away(self, name, activation, rng):
        layer, x = layer_and_injection(rng, 3, 30, m=0.5, size=2.0, activation=activation)
        f = getattr(layer, name)()
        z = f.read(solve(f, x, method="anderson").value)
        assert equation_residual(activation, layer.W, z, x) < 1e-10
        assert not solve(layer, x, max_steps=300, on_failure="return").success

    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_start_is_the_fixed_point_if_z_is(self, name, dtype, rng):
        layer, x = layer_and_injection(rng, 3, 30, activation="tanh", dtype=dtype)
        f = getattr(layer, name)(alpha=0.2)
        rtol = 1e-12 if dtype == np.float64 else 1e-6
        solved = solve(f, x, rtol=rtol, method="anderson")
        state = f.start(f.read(solved.value), x)
        assert (state.dtype, state.shape) == (dtype, x.shape)
        assert relative_error(state, solved.value) < 50 * rtol
        again = deqcore.fixed_point(f, state, row_args=(x,), rtol=100 * rtol)
        assert again.steps.max() == 1

    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_one_activation_for_each_element(self, name, rng):
        """Blocks of different activations, against those of each alone."""
        names = ("identity",) * 3 + ("relu",) * 4 + ("tanh",) * 2 + ("relu",)
        layer, x = layer_and_injection(rng, 5, 10, m=0.5, activation=names)
        f = getattr(layer, name)()
        z = f.read(solve(f, x).value)
        inner = z @ layer.W.T + x
        for i, of in enumerate(names):
            np.testing.assert_allclose(z[:, i], ACTIVATIONS[of][0](inner[:, i]), atol=1e-10)
            np.testing.assert_allclose(f.slope(z, x)[:, i], ACTIVATIONS[of][1](inner[:, i]), atol=1e-9)

    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_shapes_of_state_and_injection(self, name, dtype, rng):
        layer, x = layer_and_injection(rng, 4, 12, dtype=dtype)
        f = getattr(layer, name)()
        state = rng.standard_normal((4, 12)).astype(dtype)
        whole = f(state, x)
        assert (whole.dtype, whole.shape) == (dtype, (4, 12))
        np.testing.assert_allclose(f(state[1], x[1]), whole[1], rtol=1e-5, atol=1e-5)
        for one in (x[0], x[:1]):
            np.testing.assert_allclose(f(state, one), f(state, np.tile(x[0], (4, 1))), rtol=1e-5, atol=1e-5)
            assert f(state[0], one).shape == (12,)
        for fresh in (whole, f.read(state), f.start(state, x)):
            assert not np.shares_memory(fresh, state)


# m, |I - W|, iterations to 1e-8 with A, B, x drawn in this order from default_rng(0), width 100.
PUBLISHED = (
    (0.1, 2.37, {2: 62, 1: 43, 0.5: 56, 0.2: 112, 0.1: 209}, 1946, 260),
    (0.02, 2.32, {2: 65, 1: 53, 0.5: 65, 0.2: 127, 0.1: 234}, 9417, 347),
)


class TestCounts:
    @pytest.mark.parametrize(("m", "L", "rachford", "cautious", "bold"), PUBLISHED, ids=["m=0.1", "m=0.02"])
    def test_of_the_published_table(self, m, L, rachford, cautious, bold):
        layer, x = layer_and_injection(np.random.default_rng(0), m=m)
        assert abs(layer.lipschitz - L) < 0.01
        counted = [
            (f"PR alpha={alpha}", layer.peaceman_rachford(alpha=alpha), count) for alpha, count in rachford.items()
        ]
        counted.append(("FB alpha=m/L^2", layer.forward_backward(), cautious))
        counted.append(("FB alpha=0.2", layer.forward_backward(alpha=0.2), bold))
        print(f"\nm = {m}, |I - W| = {layer.lipschitz:.2f}: evaluations to 1e-8")
        print(f"{'':16}{'published':>10}{'picard':>10}{'anderson':>10}")
        for name, f, count in counted:
            # The scale is the size of z, as in the table: the first step from 0 is small where alpha is.
            given = {"rtol": 1e-8, "max_steps": 20_000, "scale": np.linalg.norm(x)}
            picard, anderson = (int(solve(f, x, how, **given).steps[0]) for how in ("picard", "anderson"))
            print(f"{name:16}{count:10}{picard:10}{anderson:10}")
            assert abs(picard - count) <= 0.2 * count, name
            assert anderson <= picard, name

    @pytest.mark.parametrize("seed", range(8))
    def test_rachford_within_60_where_picard_fails(self, seed):
        layer, x = layer_and_injection(np.random.default_rng(seed))
        f = layer.peaceman_rachford(alpha=1.0)
        by_picard, by_anderson = (solve(f, x, method, rtol=5e-11) for method in ("picard", "anderson"))
        for solution in (by_picard, by_anderson):
            assert solution.steps[0] <= 60
            assert equation_residual("relu", layer.W, f.read(solution.value), x) <= 1e-10
        assert by_anderson.steps[0] < by_picard.steps[0]
        plain = solve(layer, x, rtol=1e-2, max_steps=2000, on_failure="return")
        assert plain.status[0] in (deqcore.Status.out_of_steps, deqcore.Status.diverged)

    @pytest.mark.parametrize("method", ["anderson", "anderson_type_i", "broyden"])
    def test_accelerated_forward_backward_takes_fewer(self, method, rng):
        layer, x = layer_and_injection(rng)
        f = layer.forward_backward(alpha=0.2)
        plain, fast = (int(solve(f, x, how, rtol=1e-8).steps[0]) for how in ("picard", method))
        assert fast < 0.75 * plain

    def test_the_default_step_contracts_as_promised(self, rng):
        layer, x = layer_and_injection(rng, 2, 40, m=0.5)
        f = layer.forward_backward()
        assert f.alpha == pytest.approx(0.5 / np.linalg.norm(np.eye(40) - layer.W, 2) ** 2)
        s, t = rng.standard_normal((2, 2, 40))
        factor = np.sqrt(1 - 2 * f.alpha * 0.5 + (f.alpha * layer.lipschitz) ** 2)
        assert np.linalg.norm(f(s, x) - f(t, x)) <= factor * np.linalg.norm(s - t)
        free = forward_backward(layer.W)
        assert free.alpha >= f.alpha * (1 - 1e-9)  # the least eigenvalue of I - W is at least m


class TestInASolve:
    @pytest.mark.parametrize("method", ["picard", "anderson", "anderson_type_i", "broyden"])
    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_rows_end_by_themselves(self, name, method, dtype, rng):
        """Rows with other injections and other starts take other counts, and retiring changes no answer."""
        layer, x = layer_and_injection(rng, 6, 40, m=0.3, dtype=dtype)
        f = getattr(layer, name)(alpha=0.3)
        exact = f.read(solve(f, x, "anderson", rtol=1e-6 if dtype == np.float32 else 1e-13).value)
        start = f.start(exact, x)
        start[3:] = 0
        given = {"row_args": (x,), "method": method, "max_steps": 1000, "rtol": 1e-4}
        kept, left = (deqcore.fixed_point(f, start, retire=retire, **given) for retire in (False, True))
        assert left.value.dtype == dtype
        assert (left.steps[:3] == 1).all()
        assert (left.steps[3:] > 1).all()
        # NumPy's products of fewer rows may round otherwise.
        np.testing.assert_allclose(kept.steps, left.steps, atol=2)
        np.testing.assert_allclose(kept.value, left.value, rtol=0, atol=1e-3)
        assert left.rows_asked < kept.rows_asked
        short = deqcore.fixed_point(f, start, **given | {"max_steps": 2}, on_failure="return")
        assert [deqcore.Status(s).name for s in short.status] == ["converged"] * 3 + ["out_of_steps"] * 3

    def test_float32_reaches_rounding(self, rng):
        layer, x = layer_and_injection(rng, 4, dtype=np.float32)
        f = layer.peaceman_rachford()
        z = f.read(solve(f, x, rtol=1e-6).value)
        assert z.dtype == layer(z, x).dtype == np.float32
        assert equation_residual("relu", layer.W, z, x) < 5e-6

    def test_a_step_too_long_ends_as_diverged_without_a_warning(self, dtype, rng):
        layer, x = layer_and_injection(rng, 3, 30, size=3.0, activation="identity", dtype=dtype)
        ended = solve(layer.forward_backward(alpha=5.0), x, rtol=1e-4, on_failure="return")
        assert (ended.status == deqcore.Status.diverged).all()
        huge = np.full_like(x, np.finfo(dtype).max)
        assert not np.isfinite(layer.peaceman_rachford()(huge, x)).all()
        assert not np.isfinite(layer(huge, x)).all()


class TestMonotone:
    def test_the_weights(self, dtype, rng):
        A, B = rng.standard_normal((7, 12)).astype(dtype), rng.standard_normal((12, 12)).astype(dtype)
        layer = Monotone(A, B, 0.2, "tanh")
        W = 0.8 * np.eye(12) - A.astype(float).T @ A + (B.astype(float) - B.T)
        assert layer.W.dtype == layer.dtype == dtype
        np.testing.assert_allclose(layer.W, W, rtol=1e-6, atol=1e-5 if dtype == np.float32 else 1e-14)
        tolerance = 1e-12 if dtype == np.float64 else 1e-4
        assert np.linalg.eigvalsh(np.eye(12) - (layer.W + layer.W.T) / 2)[0] >= 0.2 - tolerance
        assert (layer.m, layer.width, layer.activation) == (0.2, 12, "tanh")
        assert layer.norm == pytest.approx(np.linalg.norm(W, 2), rel=1e-5)
        assert layer.lipschitz == pytest.approx(np.linalg.norm(np.eye(12) - W, 2), rel=1e-5)
        A[:], B[:] = 0, 0
        np.testing.assert_allclose(layer.W, W, rtol=1e-6, atol=1e-5 if dtype == np.float32 else 1e-14)
        for held in (layer.W, layer.A, layer.B):
            assert not held.flags.writeable

    @pytest.mark.parametrize("activation", PROXES)
    def test_value_and_products(self, activation, dtype, rng):
        layer, x = layer_and_injection(rng, 5, 17, activation=activation, dtype=dtype)
        z, v = rng.standard_normal((2, 5, 17)).astype(dtype)
        W, near = layer.W.astype(float), {"rtol": 1e-5, "atol": 1e-5 if dtype == np.float32 else 1e-13}
        J = dense_jacobians(activation, W, z.astype(float), x.astype(float))
        np.testing.assert_allclose(layer(z, x), dense_value(activation, W, z, x), **near)
        np.testing.assert_allclose(layer.jvp(z, v, x), matvec(v, J), **near)
        np.testing.assert_allclose(layer.vjp(z, v, x), matvec(v, J.swapaxes(1, 2)), **near)
        assert layer(z, x).dtype == layer.jvp(z, v, x).dtype == layer.vjp(z, v, x).dtype == dtype
        for product in (layer.jvp, layer.vjp):
            np.testing.assert_allclose(product(z[0], v[0], x[0]), product(z, v, x)[0], **near)

    def test_tangent_takes_its_jvp(self, rng):
        layer, x = layer_and_injection(rng, 2, 15, activation="tanh")
        f, dx = layer.peaceman_rachford(), rng.standard_normal((2, 15))
        z, plus, minus = (f.read(solve(f, x + e * dx).value) for e in (0, 1e-6, -1e-6))
        t = deqcore.tangent(layer.jvp, z, layer.slope(z, x) * dx, row_args=(x,)).value
        assert relative_error(t, (plus - minus) / 2e-6) < 1e-8

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softplus"])
    @pytest.mark.parametrize("shared", [False, True], ids=["a row each", "one row for all"])
    def test_gradients_through_the_fixed_point(self, activation, shared, rng):
        """A, B and x against central differences of whole solves."""
        width, m = 4, 0.3
        A, B = rng.standard_normal((2, width, width)) * 0.6
        x, g = rng.standard_normal((2, 3, width))
        x = (x[0] if shared else x) + 0.5  # relu: not all of it off

        def at(A, B, x):
            layer = Monotone(A, B, m, activation)
            f, c = layer.peaceman_rachford(alpha=0.7), np.broadcast_to(x, (3, width)).copy()
            z = f.read(solve(f, c, "anderson", rtol=1e-14, max_steps=500).value)
            return layer, z, float((g * z).sum())

        layer, z, _ = at(A, B, x)
        c = np.broadcast_to(x, z.shape).copy()
        u = deqcore.adjoint(layer.vjp, z, g, row_args=(c,), rtol=1e-13).value
        gradients = layer.parameter_gradients(z, x, u)
        for i, gradient in enumerate(gradients):
            assert gradient.shape == (A, B, x)[i].shape
            differences = np.empty_like(gradient)
            for place in np.ndindex(gradient.shape):
                plus, minus = ([a.copy() for a in (A, B, x)] for _ in range(2))
                plus[i][place] += 1e-6
                minus[i][place] -= 1e-6
                differences[place] = (at(*plus)[2] - at(*minus)[2]) / 2e-6
            np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-8 * (1 + np.abs(differences).max()))

    def test_gradients_of_float32(self, rng):
        layer, x = layer_and_injection(rng, 5, 30, activation="tanh", dtype=np.float32)
        z, u = rng.standard_normal((2, 5, 30)).astype(np.float32)
        wide = Monotone(layer.A.astype(float), layer.B.astype(float), layer.m, "tanh")
        expected = wide.parameter_gradients(*(a.astype(float) for a in (z, x, u)))
        for got, right in zip(layer.parameter_gradients(z, x, u), expected, strict=True):
            assert got.dtype == np.float32
            assert relative_error(got, right) < 1e-5


class TestAdjoint:
    @pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
    @pytest.mark.parametrize("activation", PROXES)
    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_solves_the_backward_equation(self, name, activation, alpha, rng):
        layer, x = layer_and_injection(rng, 4, 25, m=0.5, activation=activation)
        f = getattr(layer, name)(alpha=min(alpha, 0.2) if name == "forward_backward" else alpha)
        z = f.read(solve(f, x, "anderson").value)
        g = rng.standard_normal((4, 25))
        expected = dense_adjoint(activation, layer.W, z, x, g)
        slope = f.slope(z, x)
        for method in ("picard", "anderson"):
            s = deqcore.fixed_point(
                f.adjoint, np.zeros_like(g), row_args=(slope, g), method=method, rtol=1e-13, max_steps=2000
            ).value
            u = f.adjoint.read(s, slope, g)
            assert relative_error(u, expected) < 1e-10
        np.testing.assert_allclose(f.adjoint.start(u, slope, g), s, atol=1e-10)
        assert relative_error(deqcore.adjoint(layer.vjp, z, g, row_args=(x,)).value, expected) < 1e-8

    def test_elements_of_slope_0_are_held_at_0(self, dtype, rng):
        """u = W' w + g with w = 0 there, from any state."""
        layer, x = layer_and_injection(rng, 3, 20, dtype=dtype)
        f = layer.peaceman_rachford(alpha=0.5)
        slope = np.zeros_like(x)
        state, g = rng.standard_normal((2, 3, 20)).astype(dtype)
        u = f.adjoint.read(state, slope, g)
        assert u.dtype == dtype
        np.testing.assert_array_equal(u, g)

    def test_iterations_at_small_m(self):
        """The backward solve costs what the forward one does."""
        layer, x = layer_and_injection(np.random.default_rng(0))
        f = layer.peaceman_rachford()
        z = f.read(solve(f, x, rtol=1e-10).value)
        data = layer.slope(z, x), np.random.default_rng(1).standard_normal((1, 100))
        backward = deqcore.fixed_point(f.adjoint, np.zeros_like(z), row_args=data, method="picard", rtol=1e-10)
        assert backward.steps[0] <= 70


def sll_chain(rng, layers, width, hidden):
    """Residual layers h <- h - A' T relu(A h + c) as one layer z = a(W z + U x + b), y = G z (SLL, Araujo et al. 2023).

    -> W, U, b, G, the activations, Lambda, and the explicit network.
    """
    blocks, layers = [], range(layers)
    for _ in layers:
        A = rng.standard_normal((hidden, width)) * rng.uniform(0.3, 1.0)
        q = rng.uniform(0.5, 2.0, hidden)
        T = 2 / (np.abs(A @ A.T) * q / q[:, None]).sum(axis=1)
        blocks.append((A, T, rng.standard_normal(hidden)))
    G = np.hstack([np.eye(width), *(-A.T * T for A, T, _ in blocks)])
    size = G.shape[1]
    W, b = np.zeros((size, size)), np.zeros(size)
    for j, (A, _, c) in enumerate(blocks):
        at = slice(width + j * hidden, width + (j + 1) * hidden)
        W[at, : at.start] = A @ G[:, : at.start]
        b[at] = c
    U = np.vstack([np.eye(width), np.zeros((size - width, width))])
    names = ("identity",) * width + ("relu",) * (size - width)
    Lambda = np.concatenate([np.ones(width), *(T for _, T, _ in blocks)])

    def network(x):
        for A, T, c in blocks:
            x = x - (np.maximum(x @ A.T + c, 0) * T) @ A
        return x

    return W, U, b, G, names, Lambda, network


class TestExplicitNetworks:
    """In LBEN form W is strictly block lower triangular; papers solve it by Peaceman-Rachford with alpha = 1."""

    @pytest.mark.parametrize("layers", [1, 3, 6])
    def test_a_lipschitz_bounded_chain_takes_blocks_and_1_steps(self, layers, rng):
        """One block for the skip connection and one for each layer, in order; the last step sees that it is done."""
        W, U, b, G, names, Lambda, network = sll_chain(rng, layers, width=8, hidden=10)
        M = Lambda[:, None] * (np.eye(len(W)) - W) - (G.T @ G + Lambda[:, None] * (U @ U.T) * Lambda) / 2
        assert np.linalg.eigvalsh((M + M.T) / 2)[0] > -1e-12  # so it is an LBEN with Lipschitz constant 1
        x = rng.standard_normal((5, 8))
        c, blocks = x @ U.T + b, layers + 1
        f = peaceman_rachford(W, names, alpha=1.0)

        def plain(z, c):
            inner = z @ W.T + c
            return np.concatenate([inner[:, :8], np.maximum(inner[:, 8:], 0)], axis=1)

        for solution, read in ((solve(f, c), f.read), (solve(plain, c), np.copy)):
            assert solution.steps.max() <= blocks + 1
            np.testing.assert_allclose(read(solution.value) @ G.T, network(x), atol=1e-12)
        assert solve(peaceman_rachford(W, names, alpha=0.5), c).steps.max() > 3 * blocks

    def test_a_plain_network_in_monotone_form_takes_blocks_and_1_steps(self, rng):
        """Norms below 1 make I - W monotone, so A and B exist; the sum of their products is W to rounding."""
        sizes, layers = [9, 7, 8, 5], []
        W = np.zeros((sum(sizes),) * 2)
        at = np.cumsum([0, *sizes])
        for j in range(1, len(sizes)):
            layers.append(weights(rng, max(sizes), norm=0.95)[: sizes[j], : sizes[j - 1]])
            W[at[j] : at[j + 1], at[j - 1] : at[j]] = layers[-1]
        values, vectors = np.linalg.eigh(np.eye(len(W)) - (W + W.T) / 2)
        m = 0.5 * values[0]
        assert m > 0
        layer = Monotone((vectors * np.sqrt(values - m)).T.copy(), W / 2, m)
        skew = layer.B - layer.B.T
        np.testing.assert_allclose(skew, (W - W.T) / 2, atol=1e-15)
        np.testing.assert_allclose(layer.W, W, atol=1e-14)
        x = np.zeros((4, len(W)))
        x[:, : sizes[0]] = rng.standard_normal((4, sizes[0]))
        expected = [np.maximum(x[:, : sizes[0]], 0)]
        for weight in layers:
            expected.append(np.maximum(expected[-1] @ weight.T, 0))
        for f in (layer.peaceman_rachford(alpha=1.0), peaceman_rachford(W)):
            solution = solve(f, x)
            assert solution.steps.max() <= len(sizes) + 1
            np.testing.assert_allclose(f.read(solution.value), np.hstack(expected), atol=1e-12)


def bad(array, value=np.nan):
    array = array.copy()
    array.flat[1] = value
    return array


EYE = np.eye(3)


class TestWrongInput:
    @pytest.mark.parametrize("make", [forward_backward, peaceman_rachford])
    @pytest.mark.parametrize(
        ("args", "options", "error", "text"),
        [
            ((EYE.tolist(),), {}, TypeError, "W: "),
            ((EYE.astype(int),), {}, TypeError, "W: .*float32 or float64"),
            ((EYE[:2],), {}, ValueError, "W: .*square"),
            ((EYE[0],), {}, ValueError, "W: .*square"),
            ((np.empty((0, 0)),), {}, ValueError, "W: "),
            ((bad(EYE),), {}, ValueError, r"W: nan at index \(0, 1\)"),
            ((bad(EYE, np.inf),), {}, ValueError, "W: inf"),
            ((EYE / 2, "gelu"), {}, ValueError, "activation: 'gelu' given"),
            ((EYE / 2, 3), {}, TypeError, "activation: 3 given"),
            ((EYE / 2, ("relu", "tanh")), {}, ValueError, "activation: 2 names given; expected 3"),
            ((EYE / 2, ("relu", "tanh", 1)), {}, TypeError, "activation: "),
            ((EYE / 2, ()), {}, ValueError, "activation: 0 names"),
            ((EYE / 2,), {"alpha": 0.0}, ValueError, "alpha: 0 given"),
            ((EYE / 2,), {"alpha": -1}, ValueError, "alpha: -1 given"),
            ((EYE / 2,), {"alpha": np.nan}, ValueError, "alpha: nan given"),
            ((EYE / 2,), {"alpha": "1"}, TypeError, "alpha: '1' given"),
            ((EYE / 2,), {"alphas": 1.0}, TypeError, "no option 'alphas'; did you mean 'alpha'"),
        ],
    )
    def test_of_the_functions(self, make, args, options, error, text):
        with pytest.raises(error, match=text):
            make(*args, **options)

    def test_a_resolvent_that_does_not_exist(self):
        with pytest.raises(ValueError, match=r"W, alpha: .*singular with alpha = 1"):
            peaceman_rachford(2 * EYE)

    def test_a_default_step_that_does_not_exist(self):
        with pytest.raises(ValueError, match=r"alpha: None given, and I - W is not strongly monotone"):
            forward_backward(2 * EYE)
        with pytest.raises(ValueError, match=r"alpha: None given"):
            forward_backward(EYE)

    @pytest.mark.parametrize(
        ("args", "error", "text"),
        [
            ((EYE.tolist(), EYE, 1.0), TypeError, "A: "),
            ((EYE, EYE.astype(np.float32), 1.0), TypeError, "B: .*that of A"),
            ((EYE.astype(np.float16), EYE, 1.0), TypeError, "A: "),
            ((EYE[0], EYE, 1.0), ValueError, "A: .*matrix"),
            ((EYE, EYE[:2], 1.0), ValueError, "B: .*square"),
            ((EYE, np.eye(2), 1.0), ValueError, r"B: .*\(3, 3\), as wide as A"),
            ((bad(EYE), EYE, 1.0), ValueError, "A: nan"),
            ((EYE, bad(EYE), 1.0), ValueError, "B: nan"),
            ((EYE, EYE, 0.0), ValueError, "m: 0 given"),
            ((EYE, EYE, -0.1), ValueError, "m: -0.1 given"),
            ((EYE, EYE, np.inf), ValueError, "m: inf given"),
            ((EYE, EYE, None), TypeError, "m: None given"),
            ((EYE, EYE, 1.0, "sin"), ValueError, "activation: 'sin' given"),
            ((EYE * 1e200, EYE, 1.0), ValueError, "A, B, m: .*beyond the range of float64"),
        ],
    )
    def test_of_the_layer(self, args, error, text):
        with pytest.raises(error, match=text):
            Monotone(*args)

    @pytest.mark.parametrize("name", SPLITTINGS)
    def test_of_the_layer_s_splittings(self, name):
        split = getattr(Monotone(EYE, EYE, 1.0), name)
        for options, error, text in (
            ({"alpha": 0}, ValueError, "alpha: 0 given"),
            ({"alpha": True}, TypeError, "alpha: True given"),
            ({"alphas": 1}, TypeError, "did you mean 'alpha'"),
        ):
            with pytest.raises(error, match=text):
                split(**options)

    @pytest.mark.parametrize("name", [*SPLITTINGS, "layer"])
    def test_of_a_call(self, name):
        layer = Monotone(EYE, EYE, 1.0)
        f, state = (layer, "z") if name == "layer" else (getattr(layer, name)(), "state")
        good = np.ones((2, 3))
        for args, error, text in (
            ((good.astype(np.float32), good), TypeError, f"{state}: .*float64"),
            ((good.tolist(), good), TypeError, f"{state}: "),
            ((np.ones((2, 4)), good), ValueError, f"{state}: .*rows, 3"),
            ((np.ones((2, 1, 3)), good), ValueError, f"{state}: "),
            ((np.empty((0, 3)), good), ValueError, f"{state}: "),
            ((good, good.astype(np.float32)), TypeError, "injection: .*float64"),
            ((good, np.ones((3, 3))), ValueError, "injection: .*one row of 3"),
            ((good, np.ones(2)), ValueError, "injection: "),
            ((good, bad(good)), ValueError, "injection: nan at index"),
            ((good, None), TypeError, "injection: "),
        ):
            with pytest.raises(error, match=text):
                f(*args)

    def test_of_reading_and_starting(self):
        f, good = peaceman_rachford(EYE / 2), np.ones((2, 3))
        for call, text in (
            (lambda: f.read(np.ones((2, 4))), "state: "),
            (lambda: f.start(bad(good), good), "z: nan"),
            (lambda: f.start(good, bad(good)), "injection: nan"),
            (lambda: f.slope(bad(good), good), "z: nan"),
            (lambda: f.adjoint(good, 2 * good, good), "slope: 2 to 2 given"),
            (lambda: f.adjoint(good, -good, good), "slope: -1 to -1 given"),
            (lambda: f.adjoint(good, bad(good), good), "slope: nan"),
            (lambda: f.adjoint(good, good, bad(good)), "g: nan"),
            (lambda: f.adjoint(np.ones((2, 4)), good, good), "state: "),
            (lambda: f.adjoint.read(good, good, np.ones(4)), "g: "),
            (lambda: f.adjoint.start(bad(good), good, good), "u: nan"),
        ):
            with pytest.raises(ValueError, match=text):
                call()

    def test_of_products_and_gradients(self):
        layer, good = Monotone(EYE, EYE, 1.0), np.ones((2, 3))
        for call in (layer.jvp, layer.vjp):
            with pytest.raises(ValueError, match="v: "):
                call(good, good[0], good)
            with pytest.raises(TypeError, match="v: "):
                call(good, good.astype(np.float32), good)
        with pytest.raises(ValueError, match="u: nan"):
            layer.parameter_gradients(good, good, bad(good))
        with pytest.raises(ValueError, match="z: nan"):
            layer.parameter_gradients(bad(good), good, good)
        with pytest.raises(ValueError, match="u: "):
            layer.parameter_gradients(good, good, good[:1])


def test_reprs():
    layer = Monotone(EYE, EYE, 0.5, ("relu", "tanh", "relu"))
    assert repr(layer) == "Monotone(width=3, m=0.5, activation=3 names, dtype=float64)"
    f = peaceman_rachford(EYE.astype(np.float32) / 2, alpha=2)
    assert repr(f) == "<peaceman_rachford: alpha=2, activation='relu', width=3, float32>"
    assert repr(f.adjoint) == f"<adjoint of {f!r}>"
    assert (f.alpha, f.activation, f.width, f.dtype) == (2.0, "relu", 3, np.float32)
