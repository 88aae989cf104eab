# SPDX-License-Identifier: Apache-2.0
"""The hard problems are what they say: derivatives, known solutions, rows that are independent, no false promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from support.catalogue import CATALOGUE, HALVES, REPORTING, SCALES, TUNING, Problem, minus_laplacian

# 256 x 256 repeats the formulas of 16 x 16
SMALL = [entry for entry in CATALOGUE if " on 64" not in entry.name and " on 256" not in entry.name]


@pytest.fixture(params=SMALL, ids=lambda entry: entry.name.replace(" ", "-"))
def problem(request, rng) -> Problem:
    return request.param.draw(rng)


def near_start(problem, rng):
    """Points where nothing overflows, off the kinks and cuts."""
    return problem.start() + 0.3 * rng.standard_normal(problem.standard.shape)


def test_names_are_unique_and_the_halves_split_every_family():
    names = [entry.name for entry in CATALOGUE]
    assert len(set(names)) == len(names)
    assert set(TUNING) | set(REPORTING) == set(CATALOGUE)
    assert not set(TUNING) & set(REPORTING)
    assert set(HALVES) == {"tuning", "reporting", "both"}
    for family in {entry.family for entry in CATALOGUE}:
        counts = [sum(entry.family == family for entry in half) for half in (TUNING, REPORTING)]
        assert 0 <= counts[0] - counts[1] <= 1


def test_shapes_and_starts(problem):
    for scale in SCALES:
        z = problem.start(scale)
        assert z.shape == (problem.rows, problem.width)
        assert z.dtype == np.float64
        assert problem.f(z, *problem.row_args).shape == z.shape
        if problem.standard.any():
            np.testing.assert_array_equal(z, scale * problem.standard)
        else:
            assert (z == (0 if scale == 1 else scale)).all()
    assert np.isfinite(problem.residual(problem.start())).all()
    assert all(len(argument) == problem.rows for argument in problem.row_args)
    assert problem.kind in ("fixed_point", "root")
    assert problem.source


def test_jvp_is_the_slope_of_f(problem, rng):
    z = near_start(problem, rng)
    v = rng.standard_normal(z.shape)
    h = 1e-6
    slope = (problem.f(z + h * v, *problem.row_args) - problem.f(z - h * v, *problem.row_args)) / (2 * h)
    product = problem.jvp(z, v, *problem.row_args)
    np.testing.assert_allclose(product, slope, rtol=1e-5, atol=1e-7 * (1 + np.abs(slope).max()))


def test_vjp_is_the_transpose_of_jvp(problem, rng):
    z = near_start(problem, rng)
    v, w = rng.standard_normal((2, *z.shape))
    forward = np.einsum("ri,ri->r", w, problem.jvp(z, v, *problem.row_args))
    backward = np.einsum("ri,ri->r", v, problem.vjp(z, w, *problem.row_args))
    size = np.linalg.norm(problem.jvp(z, v, *problem.row_args), axis=1) * np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(forward, backward, atol=1e-12 * size.max())


def test_jacobian_has_the_columns_of_jvp(problem, rng):
    if problem.jacobian is None:
        assert problem.width > 100
        return
    z = near_start(problem, rng)
    v = rng.standard_normal(z.shape)
    product = problem.jvp(z, v, *problem.row_args)
    J = problem.jacobian(z, *problem.row_args)
    np.testing.assert_allclose(np.einsum("rij,rj->ri", J, v), product, atol=1e-12 * np.abs(product).max())


def test_known_solutions_are_solutions(problem):
    for solution in problem.solutions:
        size = 1 + np.abs(solution).max() + np.abs(problem.start()).max()
        assert np.abs(problem.residual(solution)).max() <= 1e-11 * size
    assert problem.solvable or not problem.solutions


def test_rows_do_not_influence_each_other(problem, rng):
    z = near_start(problem, rng)
    arguments = problem.row_args
    if len(z) == 1:
        z = np.vstack([z, 1.1 * z, 0.9 * z])
        assert not arguments
    v = rng.standard_normal(z.shape)
    whole, products = problem.f(z, *arguments), problem.jvp(z, v, *arguments)
    transposed = problem.vjp(z, v, *arguments)
    for i in range(len(z)):
        only = slice(i, i + 1)
        args = [argument[only] for argument in arguments]
        np.testing.assert_allclose(problem.f(z[only], *args), whole[only], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(problem.jvp(z[only], v[only], *args), products[only], rtol=1e-12, atol=1e-11)
        np.testing.assert_allclose(problem.vjp(z[only], v[only], *args), transposed[only], rtol=1e-12, atol=1e-11)


def test_without_a_solution_the_residual_is_bounded_below(rng):
    unsolvable = [entry.draw(rng) for entry in CATALOGUE if entry.family == "no fixed point"]
    assert unsolvable
    for problem in unsolvable:
        assert not problem.solvable
        for size in (0, 1, 10, 1e3):
            for _ in range(50):
                z = size * rng.standard_normal(problem.standard.shape)
                residual = np.linalg.norm(problem.residual(z), axis=1)
                assert (residual >= problem.bound * (1 - 1e-12)).all()
                assert (residual > 0).all()
    assert all(entry.draw(rng).solvable for entry in SMALL if entry.family != "no fixed point")


def test_draws_are_fresh_where_anything_is_random_and_repeat_with_the_seed():
    for entry in SMALL:
        first, again, other = (entry.draw(np.random.default_rng(seed)) for seed in (0, 0, 1))
        z = near_start(first, np.random.default_rng(2))
        np.testing.assert_array_equal(first.f(z, *first.row_args), again.f(z, *again.row_args))
        assert entry.random == (not np.array_equal(first.f(z, *first.row_args), other.f(z, *other.row_args)))


class TestPublishedValues:
    """Facts of the systems beside their formulas."""

    def named(self, name, rng):
        return next(entry for entry in CATALOGUE if entry.name == name).draw(rng)

    @pytest.mark.parametrize(("width", "least"), [(6, 2.28767e-3), (9, 1.39976e-6)])
    def test_watson_is_the_gradient_of_its_sum_of_squares(self, width, least, rng):
        """Newton from 0 reaches the published minimum."""
        problem = self.named(f"watson {width}", rng)
        t = np.arange(1, 30)[:, None] / 29
        k = np.arange(width)

        def half_sum_of_squares(z):
            rest = (k * t ** np.maximum(k - 1.0, 0)) @ z - (t**k @ z) ** 2 - 1
            return 0.5 * ((rest**2).sum() + z[0] ** 2 + (z[1] - z[0] ** 2 - 1) ** 2)

        z, h = rng.standard_normal(width), 1e-6
        differences = [
            (half_sum_of_squares(z + h * e) - half_sum_of_squares(z - h * e)) / (2 * h) for e in np.eye(width)
        ]
        np.testing.assert_allclose(problem.f(z[None])[0], differences, rtol=1e-5, atol=1e-4)
        z = problem.start()
        for _ in range(30):
            z = z - np.linalg.solve(problem.jacobian(z), problem.f(z)[:, :, None])[:, :, 0]
        assert 2 * half_sum_of_squares(z[0]) == pytest.approx(least, rel=1e-5)

    @pytest.mark.parametrize("width", [5, 6, 7, 9])
    def test_chebyquad_points_integrate_polynomials(self, width, rng):
        """At a root, the mean over the points is the integral for every polynomial up to the width."""
        problem = self.named(f"chebyquad {width}", rng)
        z = optimize.root(lambda z: problem.f(z[None])[0], problem.start()[0], tol=1e-14).x[None]
        assert np.abs(problem.f(z)).max() < 1e-12
        for degree in range(width + 1):
            assert (z**degree).mean() == pytest.approx(1 / (degree + 1), abs=1e-11)

    def test_bratu_has_the_published_height(self, rng):
        """max u is 0.078 at strength 1 on the lower branch."""
        problem = self.named("preconditioned bratu 1 on 16", rng)
        u = problem.start()
        for _ in range(50):
            u = problem.f(u)
        assert np.abs(problem.residual(u)).max() < 1e-13
        assert u.max() == pytest.approx(0.078, abs=1e-3)
        root = self.named("bratu 1 on 16", rng)
        assert np.abs(root.residual(u)).max() < 1e-13

    def test_preconditioned_maps_have_the_roots_of_their_equations(self, rng):
        for n in (16, 64):
            equations, problem = (
                self.named(f"convection on {n}", rng),
                self.named(f"preconditioned convection on {n}", rng),
            )
            u = rng.standard_normal(problem.standard.shape)
            np.testing.assert_allclose(-minus_laplacian(problem.residual(u)), equations.f(u), atol=1e-11)

    def test_steep_ramps_and_sawtooths_are_the_functions_they_are_named_after(self, rng):
        for exponent in (6, 20):
            problem = self.named(f"delta 2^-{exponent}", rng)
            x = problem.row_args[0][:, 0]
            np.testing.assert_array_equal(problem.solutions[0][:, 0], np.clip(x * 2.0**exponent, 0, 1))
        problem = self.named("sawtooth 2^5", rng)
        tent = t = problem.row_args[0][:, 0]
        for _ in range(5):
            tent = 1 - np.abs(2 * tent - 1)
        last = problem.solutions[0][:, -2:] @ [2, -4]
        assert t.shape == (2,)
        np.testing.assert_allclose(last, tent, atol=1e-12)
