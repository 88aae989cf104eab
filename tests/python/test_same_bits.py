# SPDX-License-Identifier: Apache-2.0
"""A row's result depends on nothing but the row: not on the batch, the looks, retiring or threads, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import Anderson, AndersonTypeI, Picard
from support.problems import ACTIVATIONS, independent_rows, weights
from support.same_bits import LOOSE, same_bits, speeds

METHODS = [
    Picard(),
    Picard(beta=0.7),
    Anderson(),
    Anderson(history=3, beta=0.9),
    Anderson(history=12, growth=1.1),
    Anderson(history=4, storage="bfloat16"),
    AndersonTypeI(history=4),
    AndersonTypeI(safeguard=1),
]


def problem(rng, dtype, rows=23, width=19, norm=0.95):
    W = weights(rng, width, norm).astype(dtype)
    return W, independent_rows(W), rng.standard_normal((rows, width)).astype(dtype), speeds(rng, rows, width, dtype)


@pytest.mark.parametrize("method", METHODS, ids=repr)
class TestOfACallable:
    def test_solved_twice(self, method, dtype, rng):
        _, f, z0, c = problem(rng, dtype)
        first = deqcore.fixed_point(f, z0, row_args=(c,), method=method, trace=True, **LOOSE)
        second = deqcore.fixed_point(f, z0, row_args=(c,), method=method, trace=True, **LOOSE)
        same_bits(first, second)
        assert len(set(first.steps)) > 3

    def test_a_row_alone_equals_the_row_in_a_batch(self, method, dtype, rng):
        _, f, z0, c = problem(rng, dtype)
        batch = deqcore.fixed_point(f, z0, row_args=(c,), method=method, trace=True, **LOOSE)
        for i in range(len(z0)):
            piece = slice(i, i + 1)
            alone = deqcore.fixed_point(f, z0[piece], row_args=(c[piece],), method=method, trace=True, **LOOSE)
            same_bits(batch, alone, piece)

    def test_permuted_rows_give_permuted_results(self, method, dtype, rng):
        _, f, z0, c = problem(rng, dtype)
        order = rng.permutation(len(z0))
        batch = deqcore.fixed_point(f, z0, row_args=(c,), method=method, trace=True, **LOOSE)
        permuted = deqcore.fixed_point(f, z0[order], row_args=(c[order],), method=method, trace=True, **LOOSE)
        same_bits(batch, permuted, order)

    @pytest.mark.parametrize("look_every", [1, 2, 5, 17, 1000])
    def test_any_look_every(self, method, look_every, dtype, rng):
        _, f, z0, c = problem(rng, dtype)
        batch = deqcore.fixed_point(f, z0, row_args=(c,), method=method, trace=True, **LOOSE)
        other = deqcore.fixed_point(
            f, z0, row_args=(c,), method=method, trace=True, look_every=look_every, retire=True, **LOOSE
        )
        same_bits(batch, other)

    @pytest.mark.parametrize("retire", [True, False, "halve"])
    def test_any_retiring(self, method, retire, dtype, rng):
        _, f, z0, c = problem(rng, dtype)
        batch = deqcore.fixed_point(f, z0, row_args=(c,), method=method, trace=True, **LOOSE)
        for look_every in (1, 3):
            other = deqcore.fixed_point(
                f, z0, row_args=(c,), method=method, trace=True, retire=retire, look_every=look_every, **LOOSE
            )
            same_bits(batch, other)

    def test_one_thread_and_two(self, method, dtype, rng):
        # wide enough that the solver cuts its own work over threads
        z0 = rng.standard_normal((64, 8192)).astype(dtype)
        c = speeds(rng, 64, 8192, dtype)

        def f(z, c):
            y = dtype(0.9) * z[:, ::-1] + c
            return y / np.sqrt(1 + y * y)

        options = {"row_args": (c,), "method": method, "max_steps": 12, "on_failure": "return"}
        one = deqcore.fixed_point(f, z0, threads=1, **options)
        two = deqcore.fixed_point(f, z0, threads=2, **options)
        same_bits(one, two)


@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestOfTheNativeMap:
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_solved_twice_alone_in_a_batch_by_threads_looks_and_retiring(self, activation, method, dtype, rng):
        W, _, z0, c = problem(rng, dtype, rows=41, width=23)
        layer = deqcore.maps.Dense(W, activation)
        options = {"method": method, "trace": True, **LOOSE}
        batch = deqcore.fixed_point(layer, z0, row_args=(c,), **options)
        same_bits(batch, deqcore.fixed_point(layer, z0, row_args=(c,), **options))
        for i in (0, 1, 17, 40):
            piece = slice(i, i + 1)
            same_bits(batch, deqcore.fixed_point(layer, z0[piece], row_args=(c[piece],), **options), piece)
            one_axis = deqcore.fixed_point(layer, z0[i], row_args=(c[i],), **options)
            assert one_axis.value.tobytes() == batch.value[i].tobytes()
        for threads in (1, 2, 3):
            same_bits(batch, deqcore.fixed_point(layer, z0, row_args=(c,), threads=threads, **options))
        for look_every, retire in ((1, False), (4, True), (7, "halve"), (64, False)):
            same_bits(
                batch,
                deqcore.fixed_point(layer, z0, row_args=(c,), look_every=look_every, retire=retire, **options),
            )

    def test_a_native_solve_equals_the_dialogue(self, activation, dtype, rng):
        W, _, z0, c = problem(rng, dtype, rows=29, width=33)
        layer = deqcore.maps.Dense(W, activation)
        for method in METHODS:
            for injection in (c, c[:1], c[0]):
                options = {"method": method, "trace": True, "row_args": (injection,), **LOOSE}
                native = deqcore.fixed_point(layer, z0, **options)
                dialogue = deqcore.fixed_point(layer, z0, callback=lambda progress: None, **options)
                same_bits(native, dialogue)
                own_rows = np.broadcast_to(injection, z0.shape)
                as_callable = deqcore.fixed_point(lambda z, c: layer(z, c), z0, **{**options, "row_args": (own_rows,)})
                same_bits(native, as_callable)

    def test_the_adjoint_too(self, activation, dtype, rng):
        W, _, z, c = problem(rng, dtype, rows=41, width=23)
        g = rng.standard_normal(z.shape).astype(dtype)
        layer = deqcore.maps.Dense(W, activation)
        options = {"trace": True, **LOOSE}
        batch = deqcore.adjoint(layer, z, g, row_args=(c,), **options)
        same_bits(batch, deqcore.adjoint(layer, z, g, row_args=(c,), **options))
        same_bits(batch, deqcore.adjoint(layer, z, g, row_args=(c,), callback=lambda progress: None, **options))
        same_bits(batch, deqcore.adjoint(lambda z, v, c: layer.vjp(z, v, c), z, g, row_args=(c,), **options))
        for threads in (1, 2):
            for look_every, retire in ((1, False), (4, True), (7, "halve")):
                same_bits(
                    batch,
                    deqcore.adjoint(
                        layer, z, g, row_args=(c,), threads=threads, look_every=look_every, retire=retire, **options
                    ),
                )
        for i in (0, 13, 40):
            piece = slice(i, i + 1)
            same_bits(batch, deqcore.adjoint(layer, z[piece], g[piece], row_args=(c[piece],), **options), piece)

    def test_products_of_a_row_alone_and_in_a_batch(self, activation, dtype, rng):
        W, _, z, c = problem(rng, dtype, rows=41, width=37)
        v = rng.standard_normal(z.shape).astype(dtype)
        layer = deqcore.maps.Dense(W, activation)
        for i in (0, 5, 40):
            assert layer(z, c)[i].tobytes() == layer(z[i], c[i]).tobytes()
            assert layer.jvp(z, v, c)[i].tobytes() == layer.jvp(z[i], v[i], c[i]).tobytes()
            assert layer.vjp(z, v, c)[i].tobytes() == layer.vjp(z[i], v[i], c[i]).tobytes()
            assert (
                layer.parameter_gradients(z, c, v)[1][i].tobytes()
                == layer.parameter_gradients(z[i], c[i], v[i])[1].tobytes()
            )


def test_a_large_native_solve_by_threads(dtype, rng):
    """Enough rows and width that tiles really go to other threads."""
    W = weights(rng, 128, 0.97).astype(dtype)
    c = speeds(rng, 600, 128, dtype)
    layer = deqcore.maps.Dense(W)
    z0 = np.zeros((600, 128), dtype)
    one = deqcore.fixed_point(layer, z0, row_args=(c,), threads=1, trace=True, **LOOSE)
    for threads in (2, 4):
        same_bits(one, deqcore.fixed_point(layer, z0, row_args=(c,), threads=threads, trace=True, **LOOSE))
    u1 = deqcore.adjoint(layer, one.value, c, row_args=(c,), threads=1, **LOOSE)
    u2 = deqcore.adjoint(layer, one.value, c, row_args=(c,), threads=2, **LOOSE)
    same_bits(u1, u2)
    gradients = [layer.parameter_gradients(one.value, c, u1.value) for _ in range(2)]
    assert gradients[0][0].tobytes() == gradients[1][0].tobytes()


@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 40),
    single=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    method=st.sampled_from(METHODS),
    look_every=st.integers(1, 9),
    retire=st.sampled_from([True, False, "halve"]),
    threads=st.integers(1, 2),
    norm=st.floats(0.1, 1.5),
)
def test_any_shape_and_any_choice_gives_the_bits_of_each_row_alone(
    rows, width, single, seed, method, look_every, retire, threads, norm
):
    rng = np.random.default_rng(seed)
    dtype = np.float32 if single else np.float64
    W, f, z0, c = problem(rng, dtype, rows, width, norm)
    options = {"method": method, "look_every": look_every, "retire": retire, "threads": threads, **LOOSE}
    batch = deqcore.fixed_point(f, z0, row_args=(c,), **options)
    native = deqcore.fixed_point(deqcore.maps.Dense(W, "sin"), z0, row_args=(c,), **options)
    for i in range(rows):
        piece = slice(i, i + 1)
        same_bits(batch, deqcore.fixed_point(f, z0[piece], row_args=(c[piece],), method=method, **LOOSE), piece)
        same_bits(
            native,
            deqcore.fixed_point(deqcore.maps.Dense(W, "sin"), z0[piece], row_args=(c[piece],), method=method, **LOOSE),
            piece,
        )
