# SPDX-License-Identifier: Apache-2.0
"""The dense map and its derivatives against NumPy formulas at float64."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore.maps import Dense
from support.problems import ACTIVATIONS, SHAPES, dense_jacobians, dense_value, weights


def case(rng, rows, width, dtype, one_row=False, spread=1.0):
    """W, injection, z, v of the given dtype, and the same numbers at float64."""
    arrays = (
        weights(rng, width, 0.9),
        spread * rng.standard_normal((1 if one_row else rows, width)),
        rng.standard_normal((rows, width)),
        rng.standard_normal((rows, width)),
    )
    arrays = tuple(a.astype(dtype) for a in arrays)
    return arrays, tuple(a.astype(np.float64) for a in arrays)


def close(got, expected, dtype, terms=1):
    """Within some units in the last place of the largest element: sums of ``terms`` products."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    bound = 16 * np.finfo(dtype).eps * np.sqrt(terms + 1) * (1 + np.abs(expected).max())
    assert np.abs(got - expected).max() <= bound


def test_the_activations_are_those_documented():
    assert deqcore.maps.activations == tuple(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("one_row", [False, True], ids=["per row", "one row"])
class TestAgainstFormulas:
    def test_value(self, activation, one_row, dtype, rng):
        for rows, width in SHAPES:
            (W, c, z, _), (W64, c64, z64, _) = case(rng, rows, width, dtype, one_row)
            close(Dense(W, activation)(z, c), dense_value(activation, W64, z64, c64), dtype, width)

    def test_jvp_and_vjp(self, activation, one_row, dtype, rng):
        for rows, width in SHAPES:
            (W, c, z, v), (W64, c64, z64, v64) = case(rng, rows, width, dtype, one_row)
            J = dense_jacobians(activation, W64, z64, np.broadcast_to(c64, z64.shape))
            layer = Dense(W, activation)
            close(layer.jvp(z, v, c), np.einsum("rij,rj->ri", J, v64), dtype, width)
            close(layer.vjp(z, v, c), np.einsum("rij,ri->rj", J, v64), dtype, width)

    def test_parameter_gradients(self, activation, one_row, dtype, rng):
        for rows, width in SHAPES:
            (W, c, z, u), (W64, c64, z64, u64) = case(rng, rows, width, dtype, one_row)
            du = ACTIVATIONS[activation][1](z64 @ W64.T + c64) * u64
            dW, dc = Dense(W, activation).parameter_gradients(z, c, u)
            close(dW, du.T @ z64, dtype, rows)
            close(dc, du.sum(axis=0, keepdims=True) if one_row else du, dtype, rows)

    def test_vjp_is_the_transpose_of_jvp(self, activation, one_row, rng):
        (W, c, z, v), _ = case(rng, 6, 17, np.float64, one_row)
        u = rng.standard_normal(z.shape)
        layer = Dense(W, activation)
        left, right = (layer.jvp(z, v, c) * u).sum(axis=1), (v * layer.vjp(z, u, c)).sum(axis=1)
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_far_from_zero_the_activations_stay_right(activation, dtype):
    """The map of width 1 with W = 0 is the activation itself."""
    x = np.concatenate([-np.geomspace(1e-6, 80, 200)[::-1], [0], np.geomspace(1e-6, 80, 200)]).astype(dtype)[:, None]
    layer = Dense(np.zeros((1, 1), dtype), activation)
    a, slope = ACTIVATIONS[activation]
    zero = np.zeros_like(x)
    eps = np.finfo(dtype).eps
    x64 = x.astype(np.float64)
    value, expected = layer(zero, x), a(x64)
    # relative to the larger of the value and its slope times x: the rounding of x itself
    bound = 16 * eps * np.maximum(np.abs(expected), np.abs(slope(x64) * x64)) + np.finfo(dtype).tiny
    assert (np.abs(value - expected) <= bound).all()
    one = np.ones((1, 1), dtype)
    slopes = Dense(one, activation).vjp(zero, np.ones_like(x), x)
    assert (np.abs(slopes - slope(x64)) <= 32 * eps * (1 + np.abs(slope(x64)))).all()


def test_the_slope_of_relu_at_its_kink_is_zero(dtype):
    layer = Dense(np.eye(2, dtype=dtype), "relu")
    zero, one = np.zeros((1, 2), dtype), np.ones((1, 2), dtype)
    assert not layer.jvp(zero, one, zero).any()
    assert not layer.vjp(zero, one, zero).any()


class TestShapes:
    @pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129])
    def test_widths_beside_the_vector_lengths(self, width, dtype, rng):
        for rows in (1, 2, 3, 4, 5, 7, 8, 13):
            (W, c, z, v), (W64, c64, z64, v64) = case(rng, rows, width, dtype)
            layer = Dense(W, "identity")
            close(layer(z, c), z64 @ W64.T + c64, dtype, width)
            close(layer.vjp(z, v, c), v64 @ W64, dtype, width)
            close(layer.parameter_gradients(z, c, v)[0], v64.T @ z64, dtype, rows)

    @given(rows=st.integers(1, 40), width=st.integers(1, 80), single=st.booleans(), seed=st.integers(0, 2**32 - 1))
    def test_any_size(self, rows, width, single, seed):
        dtype = np.float32 if single else np.float64
        (W, c, z, v), (W64, c64, z64, v64) = case(np.random.default_rng(seed), rows, width, dtype)
        layer = Dense(W, "sin")
        close(layer(z, c), np.sin(z64 @ W64.T + c64), dtype, width)
        close(layer.jvp(z, v, c), np.cos(z64 @ W64.T + c64) * (v64 @ W64.T), dtype, width)

    def test_one_axis_is_one_row(self, dtype, rng):
        (W, c, z, v), _ = case(rng, 1, 9, dtype)
        layer = Dense(W)
        assert layer(z[0], c[0]).shape == (9,)
        assert layer(z[0], c[0]).tobytes() == layer(z, c).tobytes()
        assert layer.jvp(z[0], v[0], c[0]).shape == layer.vjp(z[0], v[0], c[0]).shape == (9,)
        dW, dc = layer.parameter_gradients(z[0], c[0], v[0])
        assert (dW.shape, dc.shape) == ((9, 9), (9,))

    def test_more_axes_are_flattened_to_the_width(self, rng):
        (W, c, z, v), _ = case(rng, 4, 12, np.float64)
        layer, shape = Dense(W), (4, 3, 4)
        value = layer(z.reshape(shape), c.reshape(shape))
        assert value.shape == shape
        assert value.tobytes() == layer(z, c).tobytes()
        dW, dc = layer.parameter_gradients(z.reshape(shape), c.reshape(shape), v.reshape(shape))
        assert (dW.shape, dc.shape) == ((12, 12), shape)
        assert deqcore.fixed_point(layer, z.reshape(shape), row_args=(c.reshape(shape),)).value.shape == shape

    @pytest.mark.parametrize("shape", [(9,), (1, 9)], ids=str)
    def test_one_injection_serves_all_rows_and_its_gradient_is_the_sum(self, shape, dtype, rng):
        (W, _, z, v), _ = case(rng, 6, 9, dtype)
        c = rng.standard_normal(shape).astype(dtype)
        spread = np.broadcast_to(c.reshape(1, 9), (6, 9))
        layer = Dense(W)
        assert layer(z, c).tobytes() == layer(z, spread).tobytes()
        dc = layer.parameter_gradients(z, c, v)[1]
        assert dc.shape == shape
        close(dc.reshape(-1), layer.parameter_gradients(z, spread, v)[1].astype(np.float64).sum(axis=0), dtype, 6)

    def test_any_layout_will_do_and_nothing_is_written(self, dtype, rng):
        (W, c, z, v), _ = case(rng, 6, 9, dtype)
        layer = Dense(np.asfortranarray(W))
        plain = Dense(W)
        for of in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a[::-1].copy()[::-1]):
            z2, c2, v2 = of(z), of(c), of(v)
            for array in (z2, c2, v2):
                array.flags.writeable = False
            assert layer(z2, c2).tobytes() == plain(z, c).tobytes()
            assert layer.jvp(z2, v2, c2).tobytes() == plain.jvp(z, v, c).tobytes()
            assert layer.vjp(z2, v2, c2).tobytes() == plain.vjp(z, v, c).tobytes()
            for got, expected in zip(
                layer.parameter_gradients(z2, c2, v2), plain.parameter_gradients(z, c, v), strict=True
            ):
                assert got.tobytes() == expected.tobytes()


class TestTheObject:
    def test_says_what_it_is(self, dtype):
        layer = Dense(np.zeros((3, 3), dtype), "relu")
        assert layer.width == 3
        assert layer.dtype == np.dtype(dtype)
        assert layer.activation == "relu"
        assert repr(layer) == f"Dense(width=3, activation='relu', dtype={np.dtype(dtype).name})"

    def test_copies_the_weights(self, dtype, rng):
        (W, c, z, _), _ = case(rng, 3, 5, dtype)
        layer = Dense(W)
        before = layer(z, c)
        backward = layer.vjp(z, z, c)
        W[:] = 0
        assert layer(z, c).tobytes() == before.tobytes()
        assert layer.vjp(z, z, c).tobytes() == backward.tobytes()
        fresh = Dense(weights(rng, 5).astype(dtype))
        W[:] = weights(rng, 5)
        fresh = Dense(W)
        expected = fresh.vjp(z, z, c)
        lazy = Dense(W)
        W[:] = 0  # the transpose is packed when it is first needed: from the copy
        assert lazy.vjp(z, z, c).tobytes() == expected.tobytes()

    def test_update_takes_new_weights(self, dtype, rng):
        (W, c, z, v), _ = case(rng, 3, 5, dtype)
        new = weights(rng, 5, 0.7).astype(dtype)
        layer, other = Dense(W, "silu"), Dense(new, "silu")
        layer.vjp(z, v, c)
        layer.update(np.asfortranarray(new))
        assert layer(z, c).tobytes() == other(z, c).tobytes()
        assert layer.vjp(z, v, c).tobytes() == other.vjp(z, v, c).tobytes()
        assert layer.width == 5

    def test_a_refused_update_leaves_the_old_weights(self, dtype, rng):
        (W, c, z, _), _ = case(rng, 3, 5, dtype)
        layer = Dense(W)
        before = layer(z, c)
        poisoned = W.copy()
        poisoned[1, 2] = np.nan
        other = {np.float32: np.float64, np.float64: np.float32}[dtype]
        for bad, error in (
            (poisoned, ValueError),
            (np.zeros((4, 4), dtype), ValueError),
            (np.zeros((5, 4), dtype), ValueError),
            (W.astype(other), TypeError),
            (W.tolist(), TypeError),
        ):
            with pytest.raises(error, match=r"^W: "):
                layer.update(bad)
            assert layer(z, c).tobytes() == before.tobytes()

    def test_pickling_is_refused_with_a_reason(self):
        with pytest.raises(TypeError, match="pickle W"):
            pickle.dumps(Dense(np.zeros((2, 2))))

    def test_results_are_new_writable_arrays(self, dtype, rng):
        (W, c, z, v), _ = case(rng, 3, 5, dtype)
        layer = Dense(W, "identity")
        results = [layer(z, c), layer.jvp(z, v, c), layer.vjp(z, v, c), *layer.parameter_gradients(z, c, v)]
        for i, result in enumerate(results):
            assert result.flags.writeable
            for other in (*results[:i], z, c, v, W):
                assert not np.shares_memory(result, other)


class TestThreads:
    def run(self, *targets):
        errors = []

        def guarded(target):
            try:
                target()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def test_many_solves_at_once_on_one_map(self, rng):
        layer = Dense(weights(rng, 80, 0.95))
        xs = [rng.standard_normal((150, 80)) for _ in range(6)]
        start = np.zeros((150, 80))
        expected = [deqcore.fixed_point(layer, start, row_args=(x,)).value for x in xs]
        backward = [deqcore.adjoint(layer, z, z, row_args=(x,)).value for z, x in zip(expected, xs, strict=True)]

        def work(i):
            for threads in (1, 2, 3):
                z = deqcore.fixed_point(layer, start, row_args=(xs[i],), threads=threads).value
                assert z.tobytes() == expected[i].tobytes()
                u = deqcore.adjoint(layer, z, z, row_args=(xs[i],), threads=threads).value
                assert u.tobytes() == backward[i].tobytes()

        self.run(*(lambda i=i: work(i) for i in range(6)))

    def test_update_while_solving_gives_the_old_or_the_new_solution_and_no_mixture(self, rng):
        pair = [weights(rng, 64, 0.95), weights(rng, 64, 0.95)]
        x = rng.standard_normal((100, 64))
        start = np.zeros_like(x)
        allowed = {deqcore.fixed_point(Dense(W), start, row_args=(x,)).value.tobytes() for W in pair}
        assert len(allowed) == 2
        layer = Dense(pair[0])
        over = threading.Event()

        def update():
            k = 0
            while not over.is_set():
                k += 1
                layer.update(pair[k % 2])

        def solve():
            try:
                for _ in range(15):
                    assert deqcore.fixed_point(layer, start, row_args=(x,), threads=2).value.tobytes() in allowed
            finally:
                over.set()

        self.run(update, solve, solve)

    def test_a_native_solve_lets_other_python_threads_run(self, rng):
        """A solve of some tenths of a second, and a thread that counts meanwhile."""
        layer = Dense(np.linalg.qr(rng.standard_normal((64, 64)))[0], "identity")
        ticks = []
        over = threading.Event()

        def tick():
            while not over.wait(0.002):
                ticks.append(1)

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            deqcore.fixed_point(
                layer, np.ones((64, 64)), row_args=(np.ones(64),), method="picard", rtol=1e-15, max_steps=4000,
                on_failure="return", threads=1,
            )  # fmt: skip
        finally:
            over.set()
            thread.join()
        assert len(ticks) > 5
