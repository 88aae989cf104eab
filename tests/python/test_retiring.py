# SPDX-License-Identifier: Apache-2.0
"""A batch costs the sum of what its rows need, not rows x the slowest. Run with -s to see the figures."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from support.problems import Recorder, power_of_two, weights

ROWS, WIDTH = 256, 128


def uneven(rng, W=None):
    """z = s_i tanh(W z) + x_i, with rows of very different speed."""
    W = weights(rng, WIDTH, norm=1.0, symmetric=True) if W is None else W
    s = rng.uniform(0.1, 0.999, (ROWS, 1))
    x = 0.1 * rng.standard_normal((ROWS, WIDTH))
    return (lambda z, s, x: s * np.tanh(z @ W) + x), s, x


@pytest.mark.parametrize("method", ["anderson", "picard"])
def test_rows_asked_are_within_15_percent_of_what_the_rows_need_alone(method, rng):
    f, s, x = uneven(rng)
    counted = Recorder(f)
    options = {"rtol": 1e-6, "max_steps": 20_000, "method": method}
    solution = deqcore.fixed_point(counted, np.zeros((ROWS, WIDTH)), row_args=(s, x), **options)
    alone = np.array(
        [
            deqcore.fixed_point(f, np.zeros((1, WIDTH)), row_args=(s[i : i + 1], x[i : i + 1]), **options).nfe
            for i in range(ROWS)
        ]
    )
    print(
        f"\n{method}: rows asked of the map {sum(counted.counts)}, sum over rows alone {alone.sum()} "
        f"({sum(counted.counts) / alone.sum():.3f} of it), rows x slowest {ROWS * alone.max()}"
    )
    assert solution.success
    assert solution.retire == "on"
    assert solution.rows_asked == sum(counted.counts)
    assert solution.nfe == len(counted.counts)
    assert alone.sum() <= sum(counted.counts) * 1.01
    assert sum(counted.counts) <= 1.15 * alone.sum()
    assert alone.max() > 1.5 * alone.mean()  # else this shows nothing


@pytest.mark.parametrize("look_every", [1, 4])
def test_the_native_map_asks_no_more(look_every, rng):
    W = weights(rng, WIDTH, norm=1.0, symmetric=True)
    x = rng.standard_normal((ROWS, WIDTH)) * rng.uniform(0, 3, (ROWS, 1))  # large injections saturate: fast rows
    layer = deqcore.maps.Dense(W)
    solution = deqcore.fixed_point(
        layer, np.zeros((ROWS, WIDTH)), row_args=(x,), rtol=1e-6, max_steps=2000, look_every=look_every
    )
    looked = -(-solution.steps // look_every) * look_every
    print(f"\nnative: rows asked {solution.rows_asked}, needed {solution.steps.sum()}, with looks {looked.sum()}")
    assert looked.sum() <= solution.rows_asked <= 1.15 * looked.sum()
    assert solution.rows_asked < 0.8 * ROWS * solution.steps.max()


def test_without_retiring_every_row_is_asked_until_the_slowest_is_done(rng):
    f, s, x = uneven(rng)
    counted = Recorder(f)
    solution = deqcore.fixed_point(
        counted, np.zeros((100, WIDTH)), row_args=(s[:100], x[:100]), rtol=1e-6, max_steps=2000, retire=False
    )
    assert solution.retire == "off"
    assert set(counted.counts) == {100}
    assert solution.nfe == solution.steps.max() == len(counted.counts)
    assert "row_args" in solution.explain()  # says what would have been cheaper


def test_halving_shows_the_map_powers_of_two_only(rng):
    f, s, x = uneven(rng)
    for rows in (256, 100):
        counted = Recorder(f)
        solution = deqcore.fixed_point(
            counted, np.zeros((rows, WIDTH)), row_args=(s[:rows], x[:rows]), rtol=1e-6, max_steps=2000, retire="halve"
        )
        assert solution.success
        assert solution.retire == "halve"
        assert counted.counts[0] == rows
        assert all(power_of_two(count) for count in set(counted.counts) - {rows})
        assert len(set(counted.counts)) > 3
        assert solution.rows_asked == sum(counted.counts) < rows * solution.steps.max()


def test_rows_stay_in_order_and_carry_their_own_data(rng):
    f, s, x = uneven(rng)
    for retire in (True, False, "halve"):
        asked = np.zeros(100, int)

        def checked(z, s_now, x_now, rows, asked=asked):
            assert rows.dtype == np.int32
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(s_now, s[rows])
            np.testing.assert_array_equal(x_now, x[rows])
            asked[rows] += 1
            return f(z, s_now, x_now)

        solution = deqcore.fixed_point(
            checked,
            np.zeros((100, WIDTH)),
            row_args=(s[:100], x[:100]),
            pass_rows=True,
            rtol=1e-6,
            max_steps=2000,
            retire=retire,
        )
        assert (asked >= solution.steps).all()
        assert asked.sum() == solution.rows_asked


class TestBackward:
    """The linear systems of the same batch: (I - s W' D)' u = g, whose rows need very different numbers of products."""

    def system(self, rng):
        W = weights(rng, WIDTH, norm=1.0, symmetric=True)
        f, s, x = uneven(rng, W)
        z = deqcore.fixed_point(f, np.zeros((ROWS, WIDTH)), row_args=(s, x), rtol=1e-6, max_steps=20_000).value

        def vjp(z, v, s, x):
            return (s * (1 - np.tanh(z @ W) ** 2) * v) @ W

        return vjp, z, rng.standard_normal((ROWS, WIDTH)), s, x

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "direct", "anderson", "picard"])
    def test_products_asked_are_within_15_percent_of_what_the_rows_need_alone(self, method, rng):
        vjp, z, g, s, x = self.system(rng)
        counts = []

        def counted(z, v, s, x):
            counts.append(len(v))
            return vjp(z, v, s, x)

        options = {"rtol": 1e-3 if method == "picard" else 1e-6, "max_steps": 20_000, "method": method}
        solution = deqcore.adjoint(counted, z, g, row_args=(s, x), **options)
        pieces = [slice(i, i + 1) for i in range(0, ROWS, 16 if method == "direct" else 1)]
        alone = [deqcore.adjoint(vjp, z[i], g[i], row_args=(s[i], x[i]), **options).nfe for i in pieces]
        asked, needed = sum(counts), sum(alone) * ROWS / len(pieces)
        print(
            f"\n{method}: products asked {asked}, sum over rows alone {needed:g} "
            f"({asked / needed:.3f} of it), rows x slowest {ROWS * max(alone)}"
        )
        assert solution.success
        assert solution.retire == "on"
        assert (solution.rows_asked, solution.nfe) == (asked, len(counts))
        assert 0.99 * needed <= asked <= 1.15 * needed
        if method != "direct":
            assert max(alone) > 1.4 * np.mean(alone)  # else this shows nothing

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "anderson", "picard"])
    def test_the_native_map_asks_no_more(self, method, rng):
        W = weights(rng, WIDTH, norm=0.999, symmetric=True)
        x = rng.standard_normal((ROWS, WIDTH)) * rng.uniform(0, 3, (ROWS, 1))  # large injections saturate: fast rows
        z, g = np.tanh(x), rng.standard_normal((ROWS, WIDTH))
        layer = deqcore.maps.Dense(W)
        options = {"row_args": (x,), "rtol": 1e-6, "max_steps": 20_000, "method": method}
        for look_every in (1, 4):
            for solve in (deqcore.adjoint, deqcore.tangent):
                solution = solve(layer, z, g, look_every=look_every, **options)
                looked = -(-solution.steps // look_every) * look_every
                assert solution.success
                assert solution.nfe >= solution.steps.max()
                assert looked.sum() <= solution.rows_asked <= 1.15 * looked.sum()
        print(f"\n{method}, native: products asked {solution.rows_asked}, needed {solution.steps.sum()}")
        assert solution.rows_asked < 0.8 * ROWS * solution.steps.max()

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "anderson"])
    def test_halving_and_no_retiring_show_the_product_what_they_say(self, method, rng):
        vjp, z, g, s, x = self.system(rng)
        for retire in (False, "halve"):
            counts = []

            def counted(z, v, s, x, counts=counts):
                counts.append(len(v))
                return vjp(z, v, s, x)

            piece = slice(0, 100)
            solution = deqcore.adjoint(
                counted, z[piece], g[piece], row_args=(s[piece], x[piece]), method=method, rtol=1e-6, max_steps=20_000,
                retire=retire,
            )  # fmt: skip
            assert solution.success
            assert solution.rows_asked == sum(counts)
            if retire:
                assert counts[0] == 100
                assert all(power_of_two(count) for count in set(counts) - {100})
                assert len(set(counts)) > 2
            else:
                assert set(counts) == {100}
                assert solution.nfe == solution.steps.max()
                assert "row_args" in solution.explain()
