# SPDX-License-Identifier: Apache-2.0
"""Pictures of convergence: what is drawn is what the solution holds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import deqcore
from deqcore.plot import convergence

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
matplotlib.rcParams["figure.dpi"] = 30  # drawn, and not looked at
from matplotlib import pyplot  # noqa: E402, after the backend


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def solved(rows=5, dtype=np.float64, **options):
    z0 = np.linspace(-1, 2, 3 * rows).reshape(rows, 3).astype(dtype)
    options = {"method": "picard", "trace": True, "on_failure": "return"} | options
    return deqcore.fixed_point(lambda z: np.cos(z), z0, **options)


def lines(ax, word):
    return [line for line in ax.get_lines() if str(line.get_label()).startswith(word)]


def drawn(ax):
    ax.figure.canvas.draw()
    return ax


class TestFewRows:
    def test_a_line_each_with_residuals_over_the_scale(self, dtype):
        solution = solved(dtype=dtype)
        ax = drawn(convergence(solution))
        curves = [line for line in ax.get_lines() if len(line.get_xdata()) == len(solution.trace)]
        assert len(curves) == 5
        for row, line in enumerate(curves):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(solution.trace) + 1))
            np.testing.assert_allclose(line.get_ydata(), solution.trace[:, row] / solution.scale[row])
        assert ax.get_yscale() == "log"
        assert ax.get_xlabel() == "evaluations of the map (per row)"
        assert ax.get_title() == "fixed_point, picard: 5 of 5 rows converged"

    def test_markers_where_rows_ended(self):
        solution = solved()
        (dots,) = lines(convergence(solution), "converged")
        np.testing.assert_array_equal(dots.get_xdata(), solution.steps)
        np.testing.assert_allclose(dots.get_ydata(), solution.residual / solution.scale)
        assert not lines(convergence(solution), "failed")

    def test_crosses_where_they_failed(self):
        ax = drawn(convergence(solved(max_steps=4)))
        (crosses,) = lines(ax, "failed: 5")
        assert crosses.get_marker() == "x"
        assert not lines(ax, "converged")

    def test_the_threshold(self):
        solution = solved(rtol=1e-5, atol=1e-7, scale=10.0)
        (line,) = lines(convergence(solution), "threshold")
        lengths = np.linalg.norm(solution.value, axis=1)
        np.testing.assert_allclose(line.get_ydata()[0], np.median((1e-7 + 1e-5 * lengths) / 10), rtol=1e-9)
        assert (solution.residual / solution.scale <= line.get_ydata()[0] * 1.001).all()

    def test_one_row_of_one_axis(self, dtype):
        drawn(convergence(deqcore.fixed_point(np.cos, np.ones(4, dtype), trace=True)))


class TestManyRows:
    def test_a_band_a_median_and_the_worst_row(self):
        solution = solved(rows=40, max_steps=30)
        assert (solution.status < 0).any()
        ax = drawn(convergence(solution))
        assert len(lines(ax, "median")) == 1
        assert len(ax.collections) == 1
        relative = solution.trace[-1] / np.linalg.norm(solution.value, axis=1)  # what rtol is compared with
        worst = int(np.nanargmax(np.where(solution.status < 0, relative, np.nan)))
        (line,) = lines(ax, "worst")
        np.testing.assert_allclose(line.get_ydata(), solution.trace[:, worst] / solution.scale[worst])

    def test_rows_that_ended_stay_in_the_median(self):
        solution = solved(rows=41)
        (median,) = lines(convergence(solution), "median")
        ends = solution.trace[solution.steps - 1, np.arange(41)] / solution.scale
        np.testing.assert_allclose(median.get_ydata()[-1], np.median(ends))
        assert np.isfinite(median.get_ydata()).all()

    def test_markers_are_thinned_and_counted(self):
        (dots,) = lines(convergence(solved(rows=1000)), "converged: 1000")
        assert len(dots.get_xdata()) == 300


class TestOddSolutions:
    def test_rows_that_were_not_finite(self):
        def f(z, bad):
            return np.where(bad, np.nan, np.cos(z))

        for rows in (3, 20):
            bad = (np.arange(rows) == 1)[:, None]
            solution = deqcore.fixed_point(f, np.ones((rows, 2)), row_args=(bad,), trace=True, on_failure="return")
            drawn(convergence(solution))
            everything = deqcore.fixed_point(
                f, np.ones((rows, 2)), row_args=(bad | True,), trace=True, on_failure="return"
            )
            drawn(convergence(everything))

    def test_residuals_and_scales_of_0(self):
        for rows in (2, 20):
            drawn(convergence(deqcore.fixed_point(lambda z: 0 * z, np.zeros((rows, 3)), trace=True)))

    def test_other_solves_and_norms(self, rng):
        layer = deqcore.maps.Dense(0.1 * rng.standard_normal((9, 9)))
        x = rng.standard_normal((4, 9))
        for method in ("picard", ["picard", "anderson"]):
            solution = deqcore.fixed_point(
                layer, x, row_args=(x,), trace=True, norm="inf", method=method, max_steps=9, on_failure="return"
            )
            drawn(convergence(solution))
        backward = deqcore.adjoint(layer, solution.value, x, row_args=(x,), trace=True)
        (line,) = lines(drawn(convergence(backward)), "threshold")
        np.testing.assert_allclose(line.get_ydata()[0], backward.tolerances.rtol)

    def test_images_as_states(self):
        drawn(convergence(deqcore.fixed_point(np.cos, np.ones((15, 2, 3, 4), np.float32), trace=True)))


def test_it_draws_into_the_axes_given():
    figure, axes = pyplot.subplots(1, 2)
    assert convergence(solved(), axes[1]) is axes[1]
    assert convergence(solved(), ax=axes[0]) is axes[0]
    assert pyplot.get_fignums() == [figure.number]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: convergence(solved(trace=False)),
            ValueError,
            r"^solution: it has no trace; solve with trace=True, as",
        ),
        (lambda: convergence(np.ones(3)), TypeError, "^solution: array of shape .*expected what a solve returns"),
        (lambda: convergence(solved(), ax=3), TypeError, "^ax: int given; expected a matplotlib Axes, or None"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'^plot: there is no matplotlib; pip install "deqcore\[demo\]"$'):
        convergence(solved())


def test_importing_the_module_imports_no_matplotlib():
    code = "import sys, deqcore.plot; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
