# SPDX-License-Identifier: Apache-2.0
"""A row of a backward or linear solve depends on nothing but the row, to the last bit, under every method."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import GMRES, Anderson, BiCGSTAB, Direct, Neumann, Phantom, Picard
from support.problems import independent_products, independent_rows, weights
from support.same_bits import LOOSE, same_bits, speeds

METHODS = [
    GMRES(),
    GMRES(restart=3),
    BiCGSTAB(),
    Direct(),
    Anderson(history=3),
    Picard(beta=0.7),
    Neumann(4, 0.8),
    Phantom(4, 0.8),
]
EXACT = METHODS[:4]


class Problem:
    """A map with independent rows, solved backward, forward or as A x = b; rows of very different speed."""

    def __init__(self, rng, dtype, rows=23, width=19, norm=0.95):
        W = weights(rng, width, norm).astype(dtype)
        self.f, (self.vjp, self.jvp) = independent_rows(W), independent_products(W)
        self.z, self.c = rng.standard_normal((rows, width)).astype(dtype), speeds(rng, rows, width, dtype)
        self.g = (rng.standard_normal((rows, width)) * 10.0 ** rng.integers(-3, 4, (rows, 1))).astype(dtype)
        self.start = rng.standard_normal((rows, width)).astype(dtype)

    def solve(self, how, method, rows=slice(None), **options):
        options = {"trace": True, **LOOSE, "row_args": (self.c[rows],), "method": method, **options}
        z, g, start = self.z[rows], self.g[rows], self.start[rows]
        if how == "adjoint":
            f = self.f if isinstance(method, Phantom) else None
            return deqcore.adjoint(self.vjp, z, g, f=f, **options)
        if how == "warm":
            return deqcore.adjoint(self.vjp, z, g, warm=deqcore.Warm(start), **options)
        if how == "estimate":
            return deqcore.adjoint(self.vjp, z, g, max_error=0.5, **options)
        if how == "tangent":
            return deqcore.tangent(self.jvp, z, g, t0=start, **options)
        zeros = np.zeros_like
        if how == "linear":
            return deqcore.linear_solve(lambda v, c: v - self.vjp(zeros(v), v, c), g, **options)
        return deqcore.linear_solve(
            lambda v, c: v - self.vjp(zeros(v), v, c),
            g,
            x0=start,
            preconditioner=lambda v, c: v + self.vjp(zeros(v), v, c),
            **options,
        )


WAYS = (
    [("adjoint", method) for method in METHODS]
    + [("tangent", method) for method in METHODS[:6]]
    + [(how, method) for how in ("warm", "estimate") for method in (GMRES(), Anderson())]
    + [("linear", method) for method in EXACT]
    + [("preconditioned", method) for method in EXACT[:3]]
)


@pytest.mark.parametrize(("how", "method"), WAYS, ids=lambda part: part if isinstance(part, str) else repr(part))
class TestOfACallable:
    def test_solved_twice_alone_and_permuted(self, how, method, dtype, rng):
        problem = Problem(rng, dtype)
        batch = problem.solve(how, method)
        same_bits(batch, problem.solve(how, method))
        assert len(set(batch.steps)) > 2 or isinstance(method, (Direct, Neumann))
        for i in (0, 1, 7, 12, 22):
            same_bits(batch, problem.solve(how, method, rows=slice(i, i + 1)), slice(i, i + 1))
        order = rng.permutation(len(problem.z))
        same_bits(batch, problem.solve(how, method, rows=order), order)

    def test_by_any_looks_retiring_and_threads(self, how, method, dtype, rng):
        problem = Problem(rng, dtype)
        batch = problem.solve(how, method)
        for look_every in (1, 2, 7, 1000):
            for retire in (True, False, "halve"):
                same_bits(batch, problem.solve(how, method, look_every=look_every, retire=retire))
        for threads in (1, 2, 3):
            same_bits(batch, problem.solve(how, method, threads=threads))

    def test_with_and_without_a_callback(self, how, method, dtype, rng):
        problem = Problem(rng, dtype)
        same_bits(problem.solve(how, method), problem.solve(how, method, callback=lambda progress: None))


@pytest.mark.parametrize("method", METHODS, ids=repr)
class TestOfTheNativeMap:
    def test_alone_in_a_batch_by_threads_looks_retiring_and_dialogue(self, method, dtype, rng):
        rows, width = 41, 23
        W, c = weights(rng, width, 0.95).astype(dtype), speeds(rng, rows, width, dtype)
        z, g = rng.standard_normal((2, rows, width)).astype(dtype)
        layer = deqcore.maps.Dense(W, "sin")
        for solve, product in ((deqcore.adjoint, layer.vjp), (deqcore.tangent, layer.jvp)):
            if isinstance(method, Neumann) and solve is deqcore.tangent:
                continue
            options = {"method": method, "trace": True, **LOOSE}
            f = {"f": layer} if isinstance(method, Phantom) else {}
            batch = solve(layer, z, g, row_args=(c,), **options)
            same_bits(batch, solve(layer, z, g, row_args=(c,), callback=lambda progress: None, **options))
            same_bits(batch, solve(product, z, g, row_args=(c,), **f, **options))
            for i in (0, 17, 40):
                piece = slice(i, i + 1)
                same_bits(batch, solve(layer, z[piece], g[piece], row_args=(c[piece],), **options), piece)
                one_axis = solve(layer, z[i], g[i], row_args=(c[i],), **options)
                assert one_axis.value.tobytes() == batch.value[i].tobytes()
            for threads, look_every, retire in ((1, 1, False), (2, 4, True), (3, 7, "halve"), (2, 1, True)):
                given = {"threads": threads, "look_every": look_every, "retire": retire, **options}
                same_bits(batch, solve(layer, z, g, row_args=(c,), **given))

    def test_of_many_rows_by_threads(self, method, dtype, rng):
        """Enough rows and width that tiles, and the kernels' own work, really go to other threads."""
        if isinstance(method, Direct):
            return  # 128 columns for 600 rows take a while
        W, c = weights(rng, 128, 0.97).astype(dtype), speeds(rng, 600, 128, dtype)
        z, g = rng.standard_normal((2, 600, 128)).astype(dtype)
        layer = deqcore.maps.Dense(W)
        f = {"f": layer} if isinstance(method, Phantom) else {}
        one, two = (
            deqcore.adjoint(layer, z, g, row_args=(c,), method=method, threads=n, max_steps=12, on_failure="return")
            for n in (1, 2)
        )
        same_bits(one, two)
        one, two = (
            deqcore.adjoint(
                layer.vjp, z, g, row_args=(c,), method=method, threads=n, max_steps=6, on_failure="return", **f
            )
            for n in (1, 2)
        )
        same_bits(one, two)


@given(
    rows=st.integers(1, 7),
    width=st.integers(1, 30),
    single=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    way=st.sampled_from(WAYS),
    look_every=st.integers(1, 9),
    retire=st.sampled_from([True, False, "halve"]),
    norm=st.floats(0.1, 1.5),
)
def test_any_shape_and_any_choice_gives_the_bits_of_each_row_alone(
    rows, width, single, seed, way, look_every, retire, norm
):
    problem = Problem(np.random.default_rng(seed), np.float32 if single else np.float64, rows, width, norm)
    batch = problem.solve(*way, look_every=look_every, retire=retire)
    for i in range(rows):
        same_bits(batch, problem.solve(*way, rows=slice(i, i + 1)), slice(i, i + 1))
