# SPDX-License-Identifier: Apache-2.0
"""Options: one default in one place, one name everywhere."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import math
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import (
    GMRES,
    Anderson,
    AndersonTypeI,
    BiCGSTAB,
    Direct,
    JacobianFree,
    Neumann,
    Phantom,
    Picard,
    Status,
    _core,
    _dialogue,
    _options,
)
from support.problems import weights

SOLVES = [deqcore.fixed_point, deqcore.adjoint, deqcore.tangent, deqcore.linear_solve]


def defaults(function):
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    }


class TestDefaults:
    @pytest.mark.parametrize(
        ("method", "core"),
        [
            (Picard, _core.Picard),
            (Anderson, _core.Anderson),
            (AndersonTypeI, _core.AndersonTypeI),
            (GMRES, _core.GMRES),
            (BiCGSTAB, _core.BiCGSTAB),
            (Direct, _core.Direct),
            (Neumann, _core.Neumann),
            (Phantom, _core.Neumann),
        ],
        ids=lambda kind: kind.__name__,
    )
    def test_of_a_method_are_those_of_the_core(self, method, core):
        in_core = {name: getattr(core(), name) for name in dir(core()) if not name.startswith("_")}
        in_core = {name: value.name if isinstance(value, _core.Storage) else value for name, value in in_core.items()}
        taken = inspect.signature(method).parameters.values()
        assert {p.name: p.default for p in taken if p.kind is not p.VAR_KEYWORD} == in_core
        made = method()
        assert {field.name: getattr(made, field.name) for field in dataclasses.fields(made)} == in_core

    @pytest.mark.parametrize("function", SOLVES)
    def test_of_a_solve_are_those_of_the_core(self, function):
        stop, given_by_default = _core.Stop(), defaults(function)
        assert given_by_default["rtol"] is None
        assert stop.rtol is None
        assert given_by_default["atol"] == stop.atol
        if function is deqcore.fixed_point:  # by method
            assert given_by_default["max_steps"] is None
        else:
            assert given_by_default["max_steps"] == stop.max_steps
        assert given_by_default["norm"] == 2
        assert stop.norm == _core.Norm.two
        assert given_by_default["look_every"] is None
        assert stop.look_every == 1  # None means the core's
        assert given_by_default["on_failure"] == "raise"

    def test_tolerances_are_those_documented(self, dtype):
        z = np.zeros((1, 2), dtype)
        forward = deqcore.fixed_point(np.cos, z).tolerances.rtol
        assert forward == math.sqrt(np.finfo(dtype).eps)
        for linear in (
            deqcore.adjoint(lambda z, v: v * dtype(0.5), z, z + 1),
            deqcore.tangent(lambda z, v: v * dtype(0.5), z, z + 1),
            deqcore.linear_solve(lambda v: v * dtype(0.5), z + 1),
        ):
            assert linear.tolerances.rtol == {np.float32: 1e-5, np.float64: 1e-10}[dtype]

    def test_the_default_method_of_linear_systems_is_gmres(self, rng):
        z, g = rng.standard_normal((2, 6, 7))
        A = weights(rng, 7)

        def product(z, v):
            return v @ A

        for solve in (
            lambda method: deqcore.adjoint(product, z, g, method=method),
            lambda method: deqcore.tangent(product, z, g, method=method),
            lambda method: deqcore.linear_solve(lambda v: v - v @ A, g, method=method),
        ):
            by_default = solve(None)
            assert by_default.method.tolist() == ["gmres"] * 6
            assert by_default.value.tobytes() == solve(GMRES()).value.tobytes() == solve("gmres").value.tobytes()

    def test_the_default_method_is_anderson_with_its_defaults(self, rng):
        x = rng.standard_normal((6, 7))
        z0 = np.zeros((6, 7))

        def f(z, x):
            return np.cos(z[:, ::-1] + x)

        by_default = deqcore.fixed_point(f, z0, row_args=(x,))
        assert (
            by_default.value.tobytes() == deqcore.fixed_point(f, z0, row_args=(x,), method=Anderson()).value.tobytes()
        )
        assert by_default.method[0] == "anderson"

    def test_all_solves_share_names_and_defaults(self):
        forward, backward = defaults(deqcore.fixed_point), defaults(deqcore.adjoint)
        tangent, linear = defaults(deqcore.tangent), defaults(deqcore.linear_solve)
        linearised = {"estimate_error", "max_error"}
        started = {"warm", "ids", "keep"}
        shared = set(forward) & set(backward)
        assert set(forward) - shared == {"scale", "jvp"}
        rooted = defaults(deqcore.root)
        assert set(forward) - set(rooted) == started
        assert rooted == {name: forward[name] for name in rooted}
        del forward["max_steps"], backward["max_steps"], tangent["max_steps"], linear["max_steps"]
        shared.remove("max_steps")
        assert set(backward) - shared == {"u0", "f"} | linearised
        assert set(tangent) - shared == {"t0"} | linearised
        assert set(linear) - shared == {"x0", "preconditioner"}
        assert started <= shared
        for other in (backward, tangent, linear):
            same = shared - started if other is linear else shared
            assert {name: forward[name] for name in same} == {name: other[name] for name in same}
        assert {name: tangent[name] for name in linearised} == {name: backward[name] for name in linearised}


class TestStatusNames:
    def test_are_those_of_the_core(self):
        for status in Status:
            assert _core.status_name(int(status)) == status.name
        known = {int(status) for status in Status}
        in_core = {code for code in range(-128, 127) if _core.status_name(code) != "unknown"}
        assert in_core == known


class TestUnknownOptions:
    known = sorted(defaults(deqcore.fixed_point))

    @pytest.mark.parametrize("option", known)
    def test_one_wrong_letter_finds_the_option(self, option):
        for at in range(len(option)):
            misspelled = option[:at] + option[at + 1 :]
            if misspelled in _options._ELSEWHERE:
                continue  # that name means something else
            with pytest.raises(TypeError, match=rf"has no option '{misspelled}'; did you mean '{option}'\?"):
                deqcore.fixed_point(np.cos, np.zeros(2), **{misspelled: None})

    def test_names_from_elsewhere_lead_to_an_option_that_exists(self):
        functions = (deqcore.fixed_point, deqcore.adjoint, Anderson, Picard)
        exist = {name for function in functions for name in inspect.signature(function).parameters}
        assert set(_options._ELSEWHERE.values()) <= exist
        assert not set(_options._ELSEWHERE) & exist

    @pytest.mark.parametrize("name", sorted(_options._ELSEWHERE))
    def test_names_from_elsewhere_are_answered_with_ours(self, name):
        ours = _options._ELSEWHERE[name]
        with pytest.raises(TypeError) as solve:
            deqcore.fixed_point(np.cos, np.zeros(2), **{name: 1})
        with pytest.raises(TypeError) as method:
            Anderson(**{name: 1})
        said = str(solve.value) + str(method.value)
        assert f"did you mean {ours!r}" in said or f"Anderson({ours}=" in said or ours == "z0"

    @given(name=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12))
    def test_any_other_name_is_refused(self, name):
        if name in self.known or name in ("f", "z0"):
            return
        with pytest.raises(TypeError, match=f"has no option '{name}'"):
            deqcore.fixed_point(np.cos, np.zeros(2), **{name: None})


class TestMethods:
    def test_are_frozen_values(self):
        assert Anderson(history=3) == Anderson(history=3)
        assert hash(Anderson(history=3)) == hash(Anderson(history=3))
        assert Anderson(history=3) != Anderson(history=4)
        assert Anderson() != Picard()
        with pytest.raises(dataclasses.FrozenInstanceError):
            Anderson().history = 3
        assert dataclasses.replace(Anderson(history=3), beta=0.5) == Anderson(history=3, beta=0.5)

    def test_say_what_they_are(self):
        assert repr(Picard(beta=0.5)) == "Picard(beta=0.5)"
        assert repr(Anderson(history=3)).startswith("Anderson(history=3, beta=1.0, ridge=")
        assert [repr(method) for method in (GMRES(restart=3), BiCGSTAB(), Direct(), JacobianFree(), Phantom(3))] == [
            "GMRES(restart=3)",
            "BiCGSTAB()",
            "Direct(max_width=512)",
            "JacobianFree()",
            "Phantom(k=3, tau=1.0)",
        ]

    def test_take_keywords_only(self):
        for method in (Anderson, AndersonTypeI, Picard, GMRES, BiCGSTAB, Direct, JacobianFree):
            with pytest.raises(TypeError):
                method(1)
        assert Neumann(3, 0.5) == Neumann(k=3, tau=0.5)  # k and tau as in the papers
        assert Phantom(3, 0.5) == Phantom(k=3, tau=0.5) != Neumann(3, 0.5)

    @given(
        history=st.integers(1, 32),
        beta=st.floats(0.01, 1.99),
        ridge=st.floats(0, 1e3),
        growth=st.floats(1.0001, math.inf),
        storage=st.sampled_from(["full", "bfloat16"]),
    )
    def test_any_options_within_their_ranges_are_taken_and_passed_on(self, history, beta, ridge, growth, storage):
        method = Anderson(history=history, beta=beta, ridge=ridge, growth=growth, storage=storage)
        native = method._native()
        assert native.storage.name == storage
        assert (native.history, native.beta, native.ridge, native.growth) == (history, beta, ridge, growth)
        deqcore.fixed_point(np.cos, np.zeros((1, 3)), method=method, max_steps=4, on_failure="return")

    @given(restart=st.integers(1, 500), max_width=st.integers(1, 4096), k=st.integers(1, 50), tau=st.floats(0.01, 1.99))
    def test_any_options_of_the_linear_and_approximate_ones(self, restart, max_width, k, tau):
        z, g = np.zeros((1, 3)), np.ones((1, 3))
        assert GMRES(restart=restart)._native().restart == restart
        assert Direct(max_width=max_width)._native().max_width == max_width
        for kind in (Neumann, Phantom):
            native = kind(k, tau)._native()
            assert (native.k, native.tau) == (k, tau)
            f = (lambda z: 0.5 * z) if kind is Phantom else None
            assert deqcore.adjoint(lambda z, v: 0.5 * v, z, g, f=f, method=kind(k, tau)).nfe == k - 1
        assert deqcore.adjoint(lambda z, v: 0.5 * v, z, g, method=GMRES(restart=restart)).success


def test_numpy_booleans_are_booleans(rng):
    z0, x = rng.standard_normal((2, 3, 4))
    for yes, no in ((True, False), (np.True_, np.False_)):
        solution = deqcore.fixed_point(
            lambda z, x, rows: 0.5 * z + x, z0, row_args=(x,), pass_rows=yes, retire=no, trace=yes
        )
        assert solution.retire == "off"
        assert solution.trace is not None


class TestOptionsThatWereCheckedBefore:
    """Equal options share their checked form; equal to Python is not always the same to an option."""

    @staticmethod
    def solve(**options):
        return deqcore.fixed_point(np.cos, np.ones((2, 3)), **options)

    @pytest.mark.parametrize(
        ("option", "good", "bad"),
        [("trace", True, 1), ("max_steps", 1000, 1000.0), ("atol", 1.0, True), ("look_every", 1, True)],
    )
    def test_the_type_counts(self, option, good, bad):
        for _ in range(2):
            assert self.solve(**{option: good}).success
            with pytest.raises(TypeError, match=f"{option}: {bad!r} given"):
                self.solve(**{option: bad})

    def test_bad_ones_are_refused_again(self):
        for _ in range(2):
            with pytest.raises(ValueError, match="rtol"):
                self.solve(rtol=math.nan)
            with pytest.raises(TypeError, match="rtol: \\[1e-06\\] given"):
                self.solve(rtol=[1e-6])

    def test_a_number_that_changes_is_read_anew(self):
        class Count:
            def __init__(self):
                self.value = 1000

            def __index__(self):
                return self.value

        steps = Count()
        assert self.solve(max_steps=steps, method="picard").tolerances.max_steps == 1000
        steps.value = 500
        assert self.solve(max_steps=steps, method="picard").tolerances.max_steps == 500

    def test_the_number_of_threads_is_that_of_now(self):
        before = deqcore.num_threads()
        W, x = np.zeros((512, 512)), np.ones((64, 512))
        try:
            held = []
            for threads in (1, 2):
                deqcore.set_num_threads(threads)
                solution = deqcore.fixed_point(deqcore.maps.Dense(W), x, row_args=(x,))
                held.append(solution.scratch_bytes)
            assert held[0] == deqcore.fixed_point(deqcore.maps.Dense(W), x, row_args=(x,), threads=1).scratch_bytes
            assert held[1] == deqcore.fixed_point(deqcore.maps.Dense(W), x, row_args=(x,), threads=2).scratch_bytes
            assert held[0] != held[1]
        finally:
            deqcore.set_num_threads(before)

    def test_other_shapes_and_dtypes_have_their_own(self):
        for dtype, width in ((np.float32, 3), (np.float64, 3), (np.float64, 40)):
            z0 = np.ones((2, width), dtype)
            solution = deqcore.fixed_point(np.cos, z0, method="newton", on_failure="return")
            assert solution.tolerances.max_steps == 100 * (width + 1)
            assert solution.tolerances.rtol == math.sqrt(np.finfo(dtype).eps)

    def test_the_core_has_what_it_was_given(self):
        for _ in range(2):
            setups = [
                _dialogue.options_of(("root", "scale", np.dtype(float), 3, True, 0), method, *rest)
                for method in ("picard", "newton")
                for rest in [(1e-6, 0.0, 10, 2, 1, None, False, None, "raise")]
            ]
            relative = [options.stop.relative for options in setups]
            assert relative == [_core.Relative.to_residual, _core.Relative.to_image]

    def test_a_handle_is_not_kept_alive(self):
        z, g = np.zeros((1, 2)), np.ones((1, 2))
        forward = deqcore.fixed_point(lambda z: 0.5 * z + 1, z, method="broyden", keep="history")
        method = deqcore.SHINE(forward.warm)
        deqcore.adjoint(lambda z, v: 0.5 * v, forward.value, g, method=method)
        gone = weakref.ref(method)
        del method
        gc.collect()
        assert gone() is None

    def test_from_many_threads(self):
        widths = range(1, 41)

        def work(width):
            solution = deqcore.fixed_point(np.cos, np.ones((1, width)), rtol=1e-6 * width, method="anderson")
            return solution.tolerances.rtol == 1e-6 * width and solution.success

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, [*widths] * 10))


def test_a_dialogue_without_a_question_refuses_answers():
    shape = (2, 3)
    scratch = np.zeros(2**16 + 64, np.uint8)
    start = -scratch.ctypes.data % 64
    options = _core.Picard(), _core.Stop()
    solver = _core.FixedPoint64(*shape, list(shape), *options, 1, scratch[start : start + 2**16])
    with pytest.raises(ValueError, match="advance: no question is open"):
        solver.advance(np.zeros(shape))
