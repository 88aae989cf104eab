# SPDX-License-Identifier: Apache-2.0
"""deqcore.root: roots as such, against known ones, with a scale of their own."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pytest
import scipy.optimize

import deqcore
from deqcore import Anderson, AndersonTypeI, Broyden, ConvergenceError, Newton, NewtonKrylov, Picard, Status, root
from support.problems import SHAPES, weights
from support.same_bits import same_bits

METHODS = [NewtonKrylov(), NewtonKrylov(restart=12, forcing=1e-3), Newton()]
LADDER = ["picard", "newton"]
FIXED_POINT = [Picard(beta=0.5), Anderson(), AndersonTypeI(), Broyden(), Broyden(history=4, full="compress")]


def cubic(W, x):
    """z^3 + z + W z - x, whose Jacobian is positive for |W| < 1, and its product."""

    def F(z, x=x):
        return z**3 + z + z @ W.T - x

    def jvp(z, v, x=x):
        return (3 * z * z + 1) * v + v @ W.T

    return F, jvp


def reference(W, x):
    """Newton at float64 until nothing moves."""
    W, x = W.astype(float), x.astype(float)
    z = np.zeros_like(x)
    for _ in range(100):
        J = (3 * z * z + 1)[:, :, None] * np.eye(len(W)) + W
        z = z - np.linalg.solve(J, (z**3 + z + z @ W.T - x)[:, :, None])[:, :, 0]
    return z


def rosenbrock(z):
    x, y = z.T
    return np.stack([10 * (y - x**2), 1 - x], axis=1)


class TestResults:
    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_agree_with_a_reference_at_float64(self, shape, method, given, dtype, rng):
        W, x = weights(rng, shape[1], 0.8).astype(dtype), (3 * rng.standard_normal(shape)).astype(dtype)
        F, jvp = cubic(W, x)
        z0 = rng.standard_normal(shape).astype(dtype)
        before = z0.copy()
        solution = root(F, z0, row_args=(x,), method=method, jvp=jvp if given else None)
        assert solution.success
        assert solution.value.dtype == dtype
        assert z0.tobytes() == before.tobytes()
        error = np.linalg.norm(solution.value - reference(W, x), axis=1)  # the smallest slope is 0.2
        eps = np.finfo(dtype).eps
        assert (error <= 5 * (1.01 * solution.residual + 40 * eps * np.linalg.norm(x, axis=1))).all()
        residual = np.linalg.norm(F(solution.value, x).astype(float), axis=1)
        np.testing.assert_allclose(solution.residual, residual, rtol=1e-5, atol=4 * eps * np.abs(x).sum(axis=1).max())
        np.testing.assert_allclose(solution.scale, np.linalg.norm(F(z0, x).astype(float), axis=1), rtol=1e-6)
        assert set(solution.method) == {method.name}

    @pytest.mark.parametrize("method", FIXED_POINT, ids=repr)
    def test_by_fixed_point_methods(self, method, dtype, rng):
        W, x = weights(rng, 9, 0.4).astype(dtype), rng.standard_normal((7, 9)).astype(dtype)

        def F(z, x):
            return z + z @ W.T - x

        solution = root(F, np.zeros_like(x), row_args=(x,), method=method)
        assert solution.success
        exact = np.linalg.solve(np.eye(9) + W.astype(float), x.T.astype(float)).T
        np.testing.assert_allclose(solution.value, exact, atol=20 * math.sqrt(np.finfo(dtype).eps))
        np.testing.assert_allclose(solution.scale, np.linalg.norm(x.astype(float), axis=1), rtol=1e-6)
        assert solution.products == 0
        same = deqcore.fixed_point(
            lambda z, x: z - F(z, x), np.zeros_like(x), row_args=(x,), method=method, on_failure="return"
        )
        shared = min(len(solution.value), len(same.value))
        np.testing.assert_allclose(same.value[:shared], solution.value, atol=20 * math.sqrt(np.finfo(dtype).eps))

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_agree_with_scipy(self, method, rng):
        for _ in range(5):
            A, b = 0.4 * rng.standard_normal((6, 6)), rng.standard_normal(6)

            def F(z, A=A, b=b):
                return z + np.sin(z) @ A.T - b

            expected = scipy.optimize.root(F, np.zeros(6), method="hybr", options={"xtol": 1e-13})
            solution = root(F, np.zeros(6), method=method, rtol=1e-13, on_failure="return")
            if expected.success and solution.success:
                assert np.linalg.norm(F(solution.value)) <= 1e-12 * np.linalg.norm(b)
                assert solution.value.shape == (6,)

    @pytest.mark.parametrize("method", [NewtonKrylov(), Newton()], ids=repr)
    @pytest.mark.parametrize("far", [1, 10, 100])
    def test_of_rosenbrock_far_away(self, method, far):
        start = np.array([[-1.2, 1.0]]) * far
        solution = root(rosenbrock, start, method=method, atol=1e-10, scale=1.0, max_steps=5000)
        np.testing.assert_allclose(solution.value, [[1, 1]], atol=1e-5)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_the_form_of_a_root_is_that_of_the_fixed_point(self, method, rng):
        """r = f(z) - z and F = z - f(z) have the same steps."""
        W, x = weights(rng, 8, 0.9), rng.standard_normal((5, 8))

        def f(z, x):
            return np.tanh(z @ W.T + x)

        def jvp(z, v, x):
            return (1 - np.tanh(z @ W.T + x) ** 2) * (v @ W.T)

        one = deqcore.fixed_point(f, 0 * x, row_args=(x,), jvp=jvp, method=method, rtol=1e-10)
        other = root(
            lambda z, x: z - f(z, x), 0 * x, row_args=(x,), jvp=lambda z, v, x: v - jvp(z, v, x), method=method,
            rtol=1e-10,
        )  # fmt: skip
        np.testing.assert_allclose(one.value, other.value, rtol=1e-8, atol=1e-9)

    @pytest.mark.parametrize(("width", "first"), [(7, "newton"), (65, "newton_krylov")])
    def test_the_method_by_default(self, width, first, rng):
        W, x = weights(rng, width, 0.8), rng.standard_normal((5, width))
        F, jvp = cubic(W, x)
        for given in (jvp, None):
            by_default = root(F, 0 * x, row_args=(x,), jvp=given)
            assert set(by_default.method) == {first}
            alone = root(F, 0 * x, row_args=(x,), jvp=given, method=first)
            assert by_default.value.tobytes() == alone.value.tobytes()

    def test_of_states_of_any_shape(self, dtype, rng):
        x = rng.standard_normal((3, 2, 5)).astype(dtype)
        solution = root(lambda z: z**3 + z - x, 0 * x)
        assert solution.value.shape == (3, 2, 5)
        np.testing.assert_allclose(solution.value**3 + solution.value, x, atol=3e-3 if dtype == np.float32 else 1e-6)

    def test_a_native_map_is_a_function_like_any_other(self, rng):
        W, x = weights(rng, 6), rng.standard_normal((3, 6))
        solution = root(deqcore.maps.Dense(W, "identity"), 0 * x, row_args=(x,), method="newton")
        np.testing.assert_allclose(solution.value @ W.T + x, 0, atol=1e-6)


class TestScale:
    @pytest.mark.parametrize("method", [*METHODS, *FIXED_POINT], ids=repr)
    def test_is_the_first_residual(self, method, rng):
        x = rng.standard_normal((6, 4)) * 10.0 ** np.arange(-2, 4)[:, None]
        for norm, size in ((2, np.linalg.norm(x, axis=1)), (np.inf, abs(x).max(axis=1))):
            solution = root(lambda z, x: 0.7 * (z - x), 0 * x, row_args=(x,), method=method, norm=norm)
            np.testing.assert_allclose(solution.scale, 0.7 * size, rtol=1e-12)
            assert solution.tolerances.relative_to == "scale"
            assert (solution.residual <= 1.0001 * solution.tolerances.rtol * solution.scale).all()

    @pytest.mark.parametrize("method", [*METHODS, *FIXED_POINT], ids=repr)
    def test_is_given_for_all_or_for_each(self, method, rng):
        x = rng.standard_normal((3, 4))
        for given in (2.0, np.array([1.0, 2, 3]), [1, 2, 3], np.float32(2)):
            solution = root(lambda z, x: 0.7 * (z - x), 0 * x, row_args=(x,), method=method, scale=given, rtol=1e-5)
            np.testing.assert_array_equal(solution.scale, np.broadcast_to(np.asarray(given, float), 3))
            assert (solution.residual <= 1e-5 * solution.scale).all()

    def test_given_it_saves_no_call_and_measured_it_costs_none(self, rng):
        x = rng.standard_normal((3, 4))
        for method in (*METHODS, *FIXED_POINT):
            for scale in (None, np.linalg.norm(0.7 * x, axis=1)):
                calls = []

                def F(z, x, calls=calls):
                    calls.append(len(z))
                    return 0.7 * (z - x)

                solution = root(F, 0 * x, row_args=(x,), method=method, scale=scale)
                assert (solution.nfe, solution.rows_asked) == (len(calls), sum(calls))

    @pytest.mark.parametrize("method", [*METHODS, *FIXED_POINT], ids=repr)
    def test_at_a_root_ends_at_once(self, method, dtype):
        z0 = np.full((2, 3), 0.5, dtype)
        solution = root(lambda z: z - dtype(0.5), z0, method=method)
        assert solution.success
        assert solution.steps.tolist() == [1, 1]
        assert (solution.residual == 0).all()
        np.testing.assert_array_equal(solution.value, z0)

    @pytest.mark.parametrize("method", [*METHODS, *FIXED_POINT], ids=repr)
    def test_one_row_at_its_root_and_one_of_nan_harm_no_other(self, method, rng):
        x = rng.standard_normal((4, 3))
        z0 = np.zeros((4, 3))
        x[1] = 0
        bad = np.arange(4)[:, None] == 2
        for wrong in (np.nan, np.inf):
            solution = root(
                lambda z, x, bad, wrong=wrong: np.where(bad, wrong, z - x), z0, row_args=(x, bad), method=method,
                on_failure="return",
            )  # fmt: skip
            assert solution.status.tolist() == [0, 0, Status.not_finite, 0]
            assert np.isfinite(solution.value).all()
            np.testing.assert_allclose(solution.value[[0, 3]], x[[0, 3]], atol=1e-6)

    def test_atol_alone(self, rng):
        x = 1e3 * rng.standard_normal((3, 4))
        solution = root(lambda z, x: z**3 + z - x, 0 * x, row_args=(x,), rtol=1e-15, atol=1e-3)
        assert (solution.residual <= 1e-3 + 4 * np.finfo(float).eps * solution.scale).all()
        assert solution.tolerances.atol == 1e-3

    def test_what_cannot_be_measured_is_a_stall(self):
        """A fixed-point method knows |F| only to eps |z|."""
        z0 = np.full((1, 2), 1e6 - 1)
        solution = root(lambda z: 0.5 * (z - 1e6 - 1e-7), z0, method="picard", rtol=1e-10, on_failure="return")
        assert solution.status.tolist() == [Status.stalled]
        exact = root(lambda z: 0.5 * (z - 1e6 - 1e-7), z0, method="newton", rtol=1e-9)
        np.testing.assert_allclose(exact.value, 1e6 + 1e-7, rtol=1e-15)


class TestCalls:
    @pytest.mark.parametrize("method", [*METHODS, *FIXED_POINT, LADDER], ids=repr)
    def test_row_data_reaches_all_of_them(self, method, rng):
        x, W = rng.standard_normal((11, 5)) * np.linspace(0.01, 30, 11)[:, None], np.eye(5)
        newton = method in METHODS or isinstance(method, list)

        def F(z, whole, of_row, rows):
            assert whole is W
            assert rows.dtype == np.int32
            np.testing.assert_array_equal(of_row, x[rows])
            return z**3 / (1 + z * z) + 0.5 * z - of_row

        def jvp(z, v, whole, of_row, rows):
            assert whole is W
            np.testing.assert_array_equal(of_row, x[rows])
            return ((3 * z**2 + z**4) / (1 + z * z) ** 2 + 0.5) * v

        for retire in (None, False, "halve"):
            solution = root(
                F, 0 * x, args=(W,), row_args=(x,), pass_rows=True, method=method, jvp=jvp if newton else None,
                retire=retire, max_steps=600,
            )  # fmt: skip
            z = solution.value
            np.testing.assert_allclose(z**3 / (1 + z * z) + 0.5 * z, x, atol=1e-5)
            assert (solution.products > 0) == newton or method is LADDER  # of which the first rung may solve all

    @pytest.mark.parametrize("method", [*METHODS, *FIXED_POINT, LADDER], ids=repr)
    @pytest.mark.parametrize("retire", [True, False])
    def test_are_counted(self, method, retire, rng):
        x = rng.standard_normal((11, 5)) * np.linspace(0.01, 3, 11)[:, None]
        calls, rows, products = [0], [0], [0]
        newton = method in METHODS or isinstance(method, list)

        def F(z, x):
            calls[0] += 1
            rows[0] += len(z)
            return z**3 / (1 + z * z) + 0.5 * z - x

        def jvp(z, v, x):
            products[0] += 1
            rows[0] += len(z)
            return ((3 * z**2 + z**4) / (1 + z * z) ** 2 + 0.5) * v

        solution = root(
            F, 0 * x, row_args=(x,), method=method, jvp=jvp if newton else None, retire=retire, max_steps=600
        )
        assert (solution.nfe, solution.products, solution.rows_asked) == (calls[0], products[0], rows[0])

    @pytest.mark.parametrize("method", [NewtonKrylov(), Newton(), "broyden", LADDER], ids=repr)
    @pytest.mark.parametrize("at", [1, 2, 4])
    def test_that_raise_come_out_unchanged(self, method, at):
        error, left = RuntimeError("mine"), [at]

        def F(z):
            left[0] -= 1
            if not left[0]:
                raise error
            return z**3 + z - 5

        with pytest.raises(RuntimeError) as caught:
            root(F, np.ones((2, 3)), method=method, rtol=1e-13)
        assert caught.value is error
        assert root(lambda z: z**3 + z - 5, np.ones((2, 3))).success

    @pytest.mark.parametrize("method", [NewtonKrylov(), Newton(), "broyden", LADDER], ids=repr)
    @pytest.mark.parametrize("later", [False, True])
    @pytest.mark.parametrize(
        ("answer", "error", "message"),
        [
            (lambda z: None, TypeError, "None"),
            (lambda z: z.tolist(), TypeError, "list"),
            (lambda z: z[:1], ValueError, r"shape \(1, 4\).*expected shape \(3, 4\)"),
            (lambda z: z.T, ValueError, r"shape \(4, 3\).*expected shape \(3, 4\)"),
            (lambda z: z.astype(np.float32), TypeError, "dtype float32; expected dtype float64"),
            (lambda z: z + 0j, TypeError, "dtype complex128; expected dtype float64"),
        ],
    )
    def test_that_answer_wrongly_are_named(self, answer, error, message, later, method):
        calls = []

        def F(z):
            calls.append(1)
            return answer(z) if len(calls) > 2 * later else z**3 + z - 5

        with pytest.raises(error, match=f"(?s)^F .*{message}"):
            root(F, np.ones((3, 4)), method=method, rtol=1e-13)
        if not isinstance(method, str):
            with pytest.raises(error, match=f"(?s)^jvp .*{message}"):
                root(
                    lambda z: z**3 + z - 5, np.ones((3, 4)), method=method, jvp=lambda z, v: answer(v), rtol=1e-13,
                    max_steps=None,
                )  # fmt: skip

    def test_the_start_is_not_to_be_written(self):
        def F(z):
            z[...] = 0
            return z

        for method in ("newton", "broyden"):
            with pytest.raises(ValueError, match="read-only"):
                root(F, np.ones((2, 3)), method=method)


class TestSameBits:
    @pytest.mark.parametrize("method", [*METHODS, Broyden(), Anderson()], ids=repr)
    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    def test_alone_in_a_batch_looked_at_retired_and_by_threads(self, method, given, dtype, rng):
        newton = method in METHODS
        if given and not newton:
            return
        x = (rng.standard_normal((13, 6)) * rng.choice([0, 0.1, 1, 30], (13, 1))).astype(dtype)

        def F(z, x):  # +, * and / round alike wherever an element stands
            return z * z * z / (1 + z * z) + z + z[:, ::-1] * dtype(0.25) - x

        def jvp(z, v, x):
            one = 1 + z * z
            return ((3 * z * z + z * z * z * z) / (one * one) + 1) * v + v[:, ::-1] * dtype(0.25)

        options = {"method": method, "jvp": jvp if given else None, "trace": True, "on_failure": "return"}
        batch = root(F, np.zeros_like(x) + 1, row_args=(x,), **options)
        assert (batch.status == 0).any()
        for i in range(13):
            piece = slice(i, i + 1)
            same_bits(batch, root(F, np.ones((1, 6), dtype), row_args=(x[piece],), **options), piece)
        order = rng.permutation(13)
        same_bits(batch, root(F, np.zeros_like(x) + 1, row_args=(x[order],), **options), order)
        for look_every, retire, threads in ((3, True, 1), (1, False, 2), (7, "halve", 2)):
            other = root(
                F, np.zeros_like(x) + 1, row_args=(x,), look_every=look_every, retire=retire, threads=threads, **options
            )
            same_bits(batch, other)


class TestEnds:
    @pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_local_minima_are_a_breakdown(self, method, given, rng):
        """z^2 + 1 is least at 0, where it is 1."""
        z0 = rng.uniform(0.5, 2, (6, 1)) * rng.choice([-1, 1], (6, 1))
        jvp = (lambda z, v: 2 * z * v) if given else None
        solution = root(lambda z: z * z + 1, z0, method=method, jvp=jvp, on_failure="return")
        assert (solution.status == Status.breakdown).all()
        assert (solution.residual >= 1).all()
        assert (solution.residual < 1.01).all()
        assert "breakdown: no step lowers the residual: near a local minimum" in solution.explain()
        with pytest.raises(ConvergenceError, match=r"^root: 6 of 6 rows did not converge: 6 breakdown"):
            root(lambda z: z * z + 1, z0, method=method, jvp=jvp)

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_a_flat_function_is_a_breakdown_at_once(self, method):
        solution = root(lambda z: 0 * z + 1, np.ones((2, 3)), method=method, on_failure="return")
        assert (solution.status == Status.breakdown).all()
        assert solution.steps.max() <= 5

    def test_a_ladder_goes_on_from_the_best_points(self, rng):
        x = rng.standard_normal((9, 4))

        def F(z, x):
            return z**3 + 5 * z - x

        for given in (None, lambda z, v, x: (3 * z * z + 5) * v):
            solution = root(F, 0 * x, row_args=(x,), method=["picard", Newton()], jvp=given, max_steps=80)
            assert solution.success
            assert "newton" in set(solution.method)
            np.testing.assert_allclose(solution.scale, np.linalg.norm(x, axis=1), rtol=1e-12)
            assert (solution.products > 0) == (given is not None)
        one = root(lambda z: F(z, x[0]), np.zeros(4), method=["picard", "newton_krylov"], max_steps=80)
        assert one.value.shape == (4,)
        assert one.success

    def test_rungs_that_do_not_fit_are_passed_over(self, rng):
        x = rng.standard_normal((3, 9))
        solution = root(lambda z: z**3 + z - x, 0 * x, method=[Newton(max_width=5), "newton_krylov"])
        assert set(solution.method) == {"newton_krylov"}
        with pytest.raises(ValueError, match=r"^method: .*none of them takes rows of width 9"):
            root(lambda z: z**3 + z - x, 0 * x, method=[Newton(max_width=5), Newton(max_width=6)])

    @pytest.mark.parametrize("method", ["newton_krylov", "newton", "broyden", ["newton_krylov", "newton"]], ids=repr)
    def test_callbacks_traces_and_failures(self, method):
        def F(z):
            return z**3 + z - 5

        def stop(progress):
            raise StopIteration

        z0 = np.ones((2, 3))
        stopped = root(F, z0, method=method, callback=stop)
        assert (stopped.status == Status.cancelled).all()
        assert stopped.nfe == 1
        np.testing.assert_array_equal(stopped.value, z0)
        traced = root(F, z0, method=method, trace=True)
        assert len(traced.trace) == traced.steps.max()
        np.testing.assert_allclose(traced.trace[0], np.linalg.norm(F(z0), axis=1))
        assert isinstance(method, list) or traced.explain().startswith("root: all 2 rows converged.")
        with pytest.raises(ConvergenceError, match=r"^root: 2 of 2 rows did not converge"):
            root(lambda z: z * z + 1, z0, method=method)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            root(lambda z: z * z + 1, z0, method=method, on_failure="warn")
        assert [warning.filename for warning in seen] == [__file__]
        assert str(seen[0].message).startswith("root: rows ended as")


z = np.ones((3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: root(3, z), TypeError, "^F: 3 given; expected a callable"),
        (lambda: root(None, z), TypeError, "^F: None given; expected a callable"),
        (lambda: root(np.cos, z.tolist()), TypeError, "^z0: list given; expected a NumPy array"),
        (lambda: root(np.cos, z.astype(int)), TypeError, "^z0: .*dtype int64.*float32 or float64"),
        (lambda: root(np.cos, np.zeros((0, 4))), ValueError, r"^z0: .*\(0, 4\).*at least one row"),
        (lambda: root(np.cos, z * np.nan), ValueError, r"^z0: nan at index \(0, 0\)"),
        (lambda: root(np.cos, z, args=[1]), TypeError, "^args: list given; expected a tuple"),
        (lambda: root(np.cos, z, row_args=z), TypeError, "^row_args: array.* given; expected a tuple"),
        (lambda: root(np.cos, z, row_args=(z[:2],)), ValueError, r"^row_args\[0\]: .*expected 3 rows"),
        (lambda: root(np.cos, z, pass_rows=1), TypeError, "^pass_rows: 1 given; expected True or False"),
        (lambda: root(np.cos, z, rtol=-1), ValueError, "^rtol: -1 given"),
        (lambda: root(np.cos, z, rtol="1"), TypeError, "^rtol: '1' given"),
        (lambda: root(np.cos, z, atol=math.nan), ValueError, "^atol: nan given"),
        (lambda: root(np.cos, z, max_steps=0), ValueError, "^max_steps: 0 given"),
        (lambda: root(np.cos, z, max_steps=2.5), TypeError, r"^max_steps: 2\.5 given"),
        (lambda: root(np.cos, z, norm=3), ValueError, "^norm: 3 given"),
        (lambda: root(np.cos, z, scale=0), ValueError, "^scale: 0 given; expected finite numbers > 0"),
        (lambda: root(np.cos, z, scale=[1, 2]), ValueError, r"^scale: .* given; .*shape \(3,\)"),
        (lambda: root(np.cos, z, scale="x"), TypeError, "^scale: str given"),
        (lambda: root(np.cos, z, look_every=0), ValueError, "^look_every: 0 given"),
        (lambda: root(np.cos, z, retire="x"), ValueError, "^retire: 'x' given"),
        (lambda: root(np.cos, z, trace=1), TypeError, "^trace: 1 given"),
        (lambda: root(np.cos, z, callback=3), TypeError, "^callback: 3 given"),
        (lambda: root(np.cos, z, threads=0), ValueError, "^threads: 0 given"),
        (lambda: root(np.cos, z, on_failure="x"), ValueError, "^on_failure: 'x' given"),
        (lambda: root(np.cos, z, method="gmres"), ValueError, "^method: 'gmres' given; expected one of"),
        (lambda: root(np.cos, z, method=deqcore.GMRES()), ValueError, r"^method: GMRES\(.* given; root\(\) takes"),
        (lambda: root(np.cos, z, method=6), TypeError, "^method: 6 given"),
        (lambda: root(np.cos, z, method=[]), ValueError, "^method: an empty list given"),
        (lambda: root(np.cos, z, method=["newton", "gmres"]), ValueError, "^method: 'gmres' given"),
        (lambda: root(np.cos, z, jvp=3), TypeError, "^jvp: 3 given; expected a callable, or None"),
        (lambda: root(np.cos, z, jvp=np.cos, method="broyden"), ValueError, "^jvp: given with method 'broyden'"),
        (lambda: root(np.cos, z, jvp=np.cos, method=["picard", "broyden"]), ValueError, "^jvp: given with method"),
        (lambda: root(np.cos, z, method=Newton(max_width=3)), ValueError, "^width: 4 given; Newton factors"),
        (lambda: root(np.cos, z, method=Newton(), max_steps=5), ValueError, r"^max_steps: 5 given; Newton\(\) on rows"),
        (lambda: root(np.cos, z, tol=1), TypeError, r"^root\(\) has no option 'tol'; did you mean 'rtol'"),
        (lambda: root(np.cos, z, maxiter=1), TypeError, r"^root\(\) has no option 'maxiter'; did you mean 'max_steps'"),
        (lambda: root(np.cos, z, jpv=1), TypeError, r"^root\(\) has no option 'jpv'; did you mean 'jvp'"),
        (lambda: root(np.cos, z, warm=1), TypeError, r"^root\(\) has no option 'warm'"),
        (lambda: root(np.cos, z, history=1), TypeError, r"^root\(\) has no option 'history'; .*Anderson\(history"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match="(?s)" + message):
        call()


def test_the_options_are_those_of_fixed_point():
    forward = inspect.signature(deqcore.fixed_point).parameters
    rooted = inspect.signature(root).parameters
    assert set(forward) - set(rooted) == {"f", "warm", "ids", "keep"}
    assert all(rooted[name].default == forward[name].default for name in set(rooted) & set(forward) - {"unknown"})
