# SPDX-License-Identifier: Apache-2.0
"""Broyden and type I against published counts, and ladders: methods tried in order on the rows that failed."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import Anderson, AndersonTypeI, Broyden, Picard, Status


def spectrum(rng, top, width=400, nonsymmetric=False):
    """Twelve outlying eigenvalues from ``top`` down, every third negative; the rest within 0.3."""
    Q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    leading = np.linspace(top, 0.6 * top, 12)
    leading[2::3] *= -1
    W = (Q * np.concatenate([leading, rng.uniform(-0.3, 0.3, width - 12)])) @ Q.T
    if nonsymmetric:
        A = rng.standard_normal((width, width))
        W += 0.2 * (A - A.T) / np.sqrt(2 * width)
    return W, 0.1 * rng.standard_normal(width)


def gaussian(rng, gain, width=400):
    return gain * rng.standard_normal((width, width)) / np.sqrt(width), rng.standard_normal(width)


PROBLEMS = {
    "iid 1.5": (lambda rng: gaussian(rng, 1.5), 100, 83),
    "outliers 0.9 symmetric": (lambda rng: spectrum(rng, 0.9), 38, 36),
    "outliers 0.99 symmetric": (lambda rng: spectrum(rng, 0.99), 55, 48),
    "outliers 0.99 nonsymmetric": (lambda rng: spectrum(rng, 0.99, nonsymmetric=True), 46, 41),
}


class TestBroyden:
    @pytest.mark.parametrize("full", ["restart", "compress"])
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_solves_every_draw_in_about_as_many_evaluations_as_the_literature(self, name, full, rng):
        draw, restart, compress = PROBLEMS[name]
        counts = []
        for _ in range(5):
            W, b = draw(rng)
            layer = deqcore.maps.Dense(W)
            solution = deqcore.fixed_point(
                layer, np.zeros(400), row_args=(b,), method=Broyden(full=full), rtol=1e-8, max_steps=500
            )
            counts.append(solution.nfe)
        expected = restart if full == "restart" else compress
        print(f"\n{name}, {full}: median {np.median(counts):g} of 5 draws, expected about {expected}")
        assert np.median(counts) <= 1.3 * expected

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("width", [1, 2, 7, 64])
    def test_agrees_with_anderson(self, width, dtype, rng):
        W = (0.3 * rng.standard_normal((width, width)) / np.sqrt(width)).astype(dtype)
        x = rng.standard_normal((6, width)).astype(dtype)
        known = deqcore.fixed_point(deqcore.maps.Dense(W), np.zeros_like(x), row_args=(x,)).value
        for method in (Broyden(), Broyden(history=3), Broyden(history=3, full="compress"), "broyden"):
            for f in (deqcore.maps.Dense(W), lambda z, x: np.tanh(z @ W.T + x)):
                found = deqcore.fixed_point(f, np.zeros_like(x), row_args=(x,), method=method)
                np.testing.assert_allclose(found.value, known, atol=20 * np.sqrt(np.finfo(dtype).eps))

    @pytest.mark.parametrize("method", [Broyden(), Broyden(history=4, full="compress")])
    def test_a_row_alone_has_the_bits_of_the_row_in_a_batch(self, method, rng):
        W = rng.standard_normal((40, 40)) * 0.15
        x = rng.standard_normal((9, 40)) * np.linspace(0.1, 2, 9)[:, None]
        layer = deqcore.maps.Dense(W)
        options = {"method": method, "max_steps": 400, "on_failure": "return"}
        batch = deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,), **options)
        for i in range(9):
            alone = deqcore.fixed_point(layer, np.zeros((1, 40)), row_args=(x[i : i + 1],), **options)
            assert np.array_equal(alone.value[0], batch.value[i])
            assert alone.steps[0] == batch.steps[i]

    def test_solves_backward_too(self, rng):
        J = rng.standard_normal((5, 30, 30)) * 0.1
        g = rng.standard_normal((5, 30))
        u = deqcore.adjoint(
            lambda z, v, J: np.einsum("rj,rjk->rk", v, J), g, g, row_args=(J,), method=Broyden(history=20)
        ).value
        exact = np.linalg.solve(np.eye(30) - J.transpose(0, 2, 1), g[:, :, None])[:, :, 0]
        np.testing.assert_allclose(u, exact, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize(
        ("options", "error", "word"),
        [
            ({"history": 0}, ValueError, "history"),
            ({"history": 501}, ValueError, "history"),
            ({"history": 33, "full": "compress"}, ValueError, "history"),
            ({"history": 2, "full": "compress"}, ValueError, "history"),
            ({"full": "ring"}, ValueError, "full"),
            ({"full": None}, ValueError, "full"),
            ({"growth": 1.0}, ValueError, "growth"),
            ({"growth": float("nan")}, ValueError, "growth"),
            ({"history": 2.5}, TypeError, "history"),
            ({"histroy": 3}, TypeError, "history"),
        ],
    )
    def test_wrong_options_are_refused_by_name(self, options, error, word):
        with pytest.raises(error, match=word):
            Broyden(**options)


TYPE_I = {
    "iid 0.5": (lambda rng: gaussian(rng, 0.5), 18),
    "iid 0.9": (lambda rng: gaussian(rng, 0.9), 33),
    "iid 1.2": (lambda rng: gaussian(rng, 1.2), 54),
    "iid 1.5": (lambda rng: gaussian(rng, 1.5), 98),
    "outliers 0.9 symmetric": (lambda rng: spectrum(rng, 0.9), 36),
    "outliers 0.99 symmetric": (lambda rng: spectrum(rng, 0.99), 43),
    "outliers 1.05 nonsymmetric": (lambda rng: spectrum(rng, 1.05, nonsymmetric=True), 44),
}


class TestAndersonTypeI:
    @pytest.mark.parametrize("name", TYPE_I)
    def test_solves_every_draw_in_about_as_many_evaluations_as_the_literature(self, name, rng):
        draw, expected = TYPE_I[name]
        counts = []
        for _ in range(5):
            W, b = draw(rng)
            solution = deqcore.fixed_point(
                deqcore.maps.Dense(W), np.zeros(400), row_args=(b,), method=AndersonTypeI(), rtol=1e-8, max_steps=500
            )
            counts.append(solution.nfe)
        print(f"\n{name}: median {np.median(counts):g} of 5 draws, expected about {expected}")
        assert np.median(counts) <= 1.3 * expected

    def test_solves_symmetric_maps_past_a_fold(self, rng):
        for _ in range(10):
            W, b = spectrum(rng, 1.05)
            assert deqcore.fixed_point(
                deqcore.maps.Dense(W), np.zeros(400), row_args=(b,), method=AndersonTypeI(), rtol=1e-8, max_steps=500
            ).success

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("width", [1, 2, 7, 64])
    def test_agrees_with_anderson(self, width, dtype, rng):
        W = (0.3 * rng.standard_normal((width, width)) / np.sqrt(width)).astype(dtype)
        x = rng.standard_normal((6, width)).astype(dtype)
        known = deqcore.fixed_point(deqcore.maps.Dense(W), np.zeros_like(x), row_args=(x,)).value
        for method in (AndersonTypeI(), AndersonTypeI(history=2, safeguard=2, beta=0.5), "anderson_type_i"):
            for f in (deqcore.maps.Dense(W), lambda z, x: np.tanh(z @ W.T + x)):
                found = deqcore.fixed_point(f, np.zeros_like(x), row_args=(x,), method=method)
                np.testing.assert_allclose(found.value, known, atol=20 * np.sqrt(np.finfo(dtype).eps))

    @pytest.mark.parametrize("angle", [1.0, 2.0, 3.0])
    def test_solves_nonexpansive_maps_where_plain_steps_circle(self, angle, rng):
        """Rotations about a point, and a projection of them: nonexpansive, and no contraction."""
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = rng.standard_normal((20, 2))
        start = centre + rng.standard_normal((20, 2))
        for bound in (np.inf, 5.0):

            def f(z, centre, bound=bound):
                return np.clip(centre + (z - centre) @ turn.T, -bound, bound)

            for method in (AndersonTypeI(), AndersonTypeI(safeguard=1)):
                found = deqcore.fixed_point(f, start, row_args=(centre,), method=method, max_steps=2000)
                np.testing.assert_allclose(found.value, centre, atol=1e-6)
        plain = deqcore.fixed_point(f, start, row_args=(centre,), method="picard", max_steps=300, on_failure="return")
        assert (plain.status < 0).all()

    def test_without_the_safeguard_nothing_is_rejected_and_with_it_steps_are(self, rng):
        x = rng.standard_normal((8, 6))
        options = {"row_args": (x,), "max_steps": 60, "on_failure": "return"}

        def f(z, x):
            return 3 * np.sin(3 * z + x)

        free = deqcore.fixed_point(f, np.zeros((8, 6)), method=AndersonTypeI(safeguard=np.inf), **options)
        assert (free.rejected == 0).all()
        wary = deqcore.fixed_point(f, np.zeros((8, 6)), method=AndersonTypeI(safeguard=1), **options)
        assert wary.rejected.sum() > 0
        assert "because the residual grew" in wary.explain()

    def test_solves_backward_too(self, rng):
        J = rng.standard_normal((5, 30, 30)) * 0.1
        g = rng.standard_normal((5, 30))
        u = deqcore.adjoint(
            lambda z, v, J: np.einsum("rj,rjk->rk", v, J), g, g, row_args=(J,), method=AndersonTypeI(history=20)
        ).value
        exact = np.linalg.solve(np.eye(30) - J.transpose(0, 2, 1), g[:, :, None])[:, :, 0]
        np.testing.assert_allclose(u, exact, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize(
        ("options", "error", "word"),
        [
            ({"history": 0}, ValueError, "^history: 0 given; expected 1 to 32"),
            ({"history": 33}, ValueError, "^history: 33 given"),
            ({"history": 2.5}, TypeError, "^history: 2.5 given; expected an integer"),
            ({"beta": 0}, ValueError, r"^beta: 0 given; expected a number in \(0, 1\]"),
            ({"beta": 1.5}, ValueError, "^beta: 1.5 given"),
            ({"powell": 0.0}, ValueError, r"^powell: 0 given; expected a number in \(0, 1\)"),
            ({"powell": 1.0}, ValueError, "^powell: 1 given"),
            ({"independence": -1.0}, ValueError, r"^independence: -1 given; expected a number in \(0, 1\)"),
            ({"independence": float("nan")}, ValueError, "^independence: nan given"),
            ({"safeguard": 0}, ValueError, "^safeguard: 0 given; expected a number above 0, or infinity"),
            ({"safeguard": float("nan")}, ValueError, "^safeguard: nan given"),
            ({"decay": float("inf")}, ValueError, "^decay: inf given; expected a finite number above 0"),
            ({"decay": "1"}, TypeError, "^decay: '1' given; expected a real number"),
            ({"histroy": 3}, TypeError, "history"),
            ({"damping": 3}, TypeError, "beta"),
        ],
    )
    def test_wrong_options_are_refused_by_name(self, options, error, word):
        with pytest.raises(error, match=word):
            AndersonTypeI(**options)


def folded(rng, rows=40, width=30):
    """Eigenvalues down to -1.3: Picard cycles on rows with a small injection, and not on those that it saturates."""
    A = rng.standard_normal((width, width))
    W = -A @ A.T
    x = rng.standard_normal((rows, width)) * np.linspace(0.05, 4, rows)[:, None]
    return W * (1.3 / np.linalg.norm(W, 2)), x


LADDER = ["picard", Anderson(history=20), Broyden(history=32)]


class TestLadder:
    def asked_in_every_way(self, W, x, **options):
        """The same solve by a native map, by row arguments, by row ids, and by a map that knows the whole batch."""
        zeros = np.zeros_like(x)
        yield deqcore.fixed_point(deqcore.maps.Dense(W), zeros, row_args=(x,), **options)
        yield deqcore.fixed_point(lambda z, x: np.tanh(z @ W.T + x), zeros, row_args=(x,), **options)
        yield deqcore.fixed_point(lambda z, rows: np.tanh(z @ W.T + x[rows]), zeros, pass_rows=True, **options)
        yield deqcore.fixed_point(lambda z: np.tanh(z @ W.T + x), zeros, **options)

    def test_rows_that_failed_go_on_and_the_others_stay(self, rng):
        W, x = folded(rng)
        for solution in self.asked_in_every_way(W, x, method=LADDER, max_steps=1500):
            assert solution.success
            residual = np.linalg.norm(np.tanh(solution.value @ W.T + x) - solution.value, axis=1)
            np.testing.assert_allclose(solution.residual, residual, rtol=1e-5, atol=1e-13)
            assert set(solution.method) <= {"picard", "anderson", "broyden"}
            assert len(set(solution.method)) > 1
        first = deqcore.fixed_point(
            deqcore.maps.Dense(W), np.zeros_like(x), row_args=(x,), method="picard", max_steps=500, on_failure="return"
        )
        solution = next(self.asked_in_every_way(W, x, method=LADDER, max_steps=1500))
        kept = first.status == 0
        assert kept.any()
        assert not kept.all()
        assert np.array_equal(solution.value[kept], first.value[kept])
        assert (solution.method[kept] == "picard").all()
        assert (solution.method[~kept] != "picard").all()
        assert (solution.steps[~kept] > 500).all()

    def test_the_scale_stays_that_of_the_start(self, rng):
        W, x = folded(rng)
        solution = next(self.asked_in_every_way(W, x, method=LADDER, max_steps=1500))
        np.testing.assert_allclose(solution.scale, np.linalg.norm(np.tanh(x), axis=1), rtol=1e-13)

    def test_the_steps_of_all_rungs_are_bounded(self, rng):
        W, x = folded(rng)
        for solution in self.asked_in_every_way(W, x, method=LADDER, max_steps=12, on_failure="return"):
            assert solution.steps.max() <= 12
            assert solution.tolerances.max_steps == 12
            assert (solution.status <= 0).all()

    def test_one_rung_is_the_method_itself(self, rng):
        W, x = folded(rng)
        options = {"on_failure": "return", "max_steps": 100}
        for one, ladder in zip(
            self.asked_in_every_way(W, x, method="anderson", **options),
            self.asked_in_every_way(W, x, method=["anderson"], **options),
            strict=True,
        ):
            assert np.array_equal(one.value, ladder.value)
            assert np.array_equal(one.status, ladder.status)
            assert one.nfe == ladder.nfe

    @pytest.mark.parametrize("last", [Broyden(history=32), AndersonTypeI(history=32)])
    def test_a_single_state(self, last, rng):
        W, x = folded(rng, rows=1)
        solution = deqcore.fixed_point(
            lambda z: np.tanh(z @ W.T + x[0]), np.zeros(30), method=["picard", last], max_steps=2000
        )
        assert solution.success
        assert solution.value.shape == (30,)

    def test_a_failure_of_all_rungs_is_raised_once_with_everything(self):
        with pytest.raises(deqcore.ConvergenceError, match="method picard, then anderson") as raised:
            deqcore.fixed_point(lambda z: z + 1, np.zeros((2, 3)), method=["picard", "anderson"], max_steps=20)
        assert (raised.value.solution.status < 0).all()
        with pytest.warns(deqcore.ConvergenceWarning):
            deqcore.fixed_point(lambda z: z + 1, np.zeros((2, 3)), method=["picard"], max_steps=5, on_failure="warn")

    def test_what_the_caller_stops_is_not_rescued(self):
        def stop(progress):
            raise StopIteration

        solution = deqcore.fixed_point(lambda z: 0.9 * z + 1, np.zeros((2, 3)), method=LADDER, callback=stop)
        assert (solution.status == Status.cancelled).all()
        assert solution.nfe == 1

    def test_a_row_that_is_not_finite_is_tried_by_every_rung_and_harms_no_other(self, rng):
        def f(z, bad):
            return np.where(bad, np.nan, 0.5 * z + 1)

        bad = np.array([[False], [True], [False]])
        solution = deqcore.fixed_point(
            f, np.zeros((3, 4)), row_args=(bad,), method=[Picard(), Anderson()], on_failure="return"
        )
        assert solution.status.tolist() == [0, Status.not_finite, 0]
        assert np.isfinite(solution.value).all()

    def test_traces_follow_each_other(self, rng):
        W, x = folded(rng, rows=5)
        solution = deqcore.fixed_point(
            lambda z, x: np.tanh(z @ W.T + x), np.zeros_like(x), row_args=(x,), method=LADDER, max_steps=300, trace=True
        )
        for i in range(5):
            assert np.count_nonzero(np.isfinite(solution.trace[:, i])) == solution.steps[i]

    @pytest.mark.parametrize("max_steps", [0, -5, 2.5])
    def test_wrong_steps_are_refused(self, max_steps):
        with pytest.raises((TypeError, ValueError), match="max_steps"):
            deqcore.fixed_point(np.cos, np.ones(3), method=["picard"], max_steps=max_steps)

    @pytest.mark.parametrize("ladder", [[], ["gmres"], ["picard", 3], ["picard", "newtonn"], ()])
    def test_wrong_ladders_are_refused(self, ladder):
        with pytest.raises((TypeError, ValueError), match="method"):
            deqcore.fixed_point(np.cos, np.ones(3), method=ladder)


@pytest.mark.parametrize("method", [None, ["anderson", "newton_krylov"], ["picard", "newton", "broyden"]], ids=str)
@pytest.mark.parametrize("max_steps", [None, 50, 200, 700])
def test_a_row_alone_equals_the_row_in_a_batch(method, max_steps, rng):
    kind = rng.integers(0, 3, 9)  # easy, hard from far away, without a fixed point
    z0 = rng.normal(size=(9, 2)) * np.array([1.0, 3.0, 1.0])[kind][:, None]

    def f(z, kind):
        far = 1e3 * np.sinh(np.clip(z, -50, 50)) - 5.0
        return np.where(kind == 0, np.cos(z), np.where(kind == 1, far, z + 1))

    def solve(rows):
        return deqcore.fixed_point(
            f, z0[rows], row_args=(kind[rows][:, None],), method=method, max_steps=max_steps, on_failure="return"
        )

    together = solve(np.arange(9))
    for row in range(9):
        alone = solve([row])
        assert alone.value.tobytes() == together.value[[row]].tobytes()
        for name in ("status", "steps", "residual", "method"):
            assert getattr(alone, name)[0] == getattr(together, name)[row]
