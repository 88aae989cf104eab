# SPDX-License-Identifier: Apache-2.0
"""A batch costs the sum of what its rows need, not rows x the slowest. Run with -s to see the figures."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from support.problems import Recorder, power_of_two, weights

ROWS, WIDTH = 256, 128


def uneven(rng):
    """z = s_i tanh(W z) + x_i, with rows of very different speed."""
    W = weights(rng, WIDTH, norm=1.0, symmetric=True)
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
