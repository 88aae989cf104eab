# SPDX-License-Identifier: Apache-2.0
"""CUDA arrays of other libraries: solved in their own kind, through DLPack, on a stream that the caller names."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore

ROWS, WIDTH = 5, 7


@pytest.fixture
def tensors(emulator):
    import tensors

    return tensors


@pytest.fixture
def problem(rng):
    return np.linspace(0.1, 0.9, ROWS)[:, None], rng.standard_normal((ROWS, WIDTH))


@pytest.mark.parametrize("options", [{}, {"method": "picard"}, {"retire": False}, {"trace": True}], ids=str)
def test_a_solve_gives_tensors_for_tensors(cp, tensors, problem, options):
    slopes, x = problem
    host = deqcore.fixed_point(lambda z, s, x: s * np.tanh(z) + x, np.zeros_like(x), row_args=(slopes, x), **options)
    stream = cp.cuda.Stream()
    seen = []

    def f(z, s, x, *, rows):
        seen.append(type(rows))
        return s * tensors.tanh(z) + x

    with stream:
        start = tensors.tensor(np.zeros_like(x))
        tensors.export_streams.clear()
        solution = deqcore.fixed_point(
            f,
            start,
            row_args=(tensors.tensor(slopes), tensors.tensor(x)),
            pass_rows=True,
            stream=stream,
            **options,
        )
        for name in ("value", "residual", "scale", "status", "steps", "rejected", "singular"):
            assert isinstance(getattr(solution, name), tensors.Tensor), name
        np.testing.assert_allclose(solution.value.numpy(), host.value, atol=1e-6)
        assert solution.success
        assert "converged" in repr(solution)
        assert "Steps per row" in solution.explain()
    assert set(seen) == {tensors.Tensor}
    assert set(tensors.export_streams) == {stream.ptr}, "the two libraries' work is ordered on the caller's stream"


def test_memory_is_handed_over_and_not_copied(tensors, problem):
    slopes, x = problem
    s, x = tensors.tensor(slopes), tensors.tensor(x)
    before = tensors.imports
    solution = deqcore.fixed_point(
        lambda z: s * tensors.tanh(z) + x, tensors.tensor(np.zeros((ROWS, WIDTH))), stream=0, look_every=1
    )
    assert solution.copies == 0
    assert solution.nfe > 4
    assert tensors.imports - before == 1 + 2 + 7, "what arrays are called, two questions, seven arrays of the solution"


def test_a_backward_solve(tensors, rng):
    z, g = rng.standard_normal((2, ROWS, WIDTH))
    solution = deqcore.adjoint(
        lambda z, v: v * 0.5 + z * 0, tensors.tensor(z), tensors.tensor(g), u0=tensors.tensor(g), stream=0
    )
    np.testing.assert_allclose(solution.value.numpy(), 2 * g, rtol=1e-8)


def test_what_cannot_be_used_in_place_is_copied_or_refused(cp, tensors):
    z0 = tensors.tensor(np.zeros((ROWS, WIDTH)))
    strided = deqcore.fixed_point(lambda z: (z * 0.5 + 1).transposed_twice(), z0, stream=0, look_every=1)
    assert strided.success
    assert strided.copies > 0
    for answer, named in (
        (lambda z: None, "f returned None"),
        (lambda z: cp.zeros((ROWS, WIDTH)), "f returned cupy.* expected a tensors array"),
        (lambda z: np.zeros((ROWS, WIDTH)), "f returned array of shape .*expected a tensors array on device 0"),
    ):
        with pytest.raises(TypeError, match=named):
            deqcore.fixed_point(answer, z0, stream=0)


def test_what_is_missing_is_named(cp, tensors, monkeypatch):
    z0 = tensors.tensor(np.zeros((ROWS, WIDTH)))
    with pytest.raises(ValueError, match=r"stream: None given with .*; expected the stream that its library works on"):
        deqcore.fixed_point(lambda z: z, z0)
    with pytest.raises(TypeError, match=r"row_args\[0\]: .*given; expected a tensors array, like the state"):
        deqcore.fixed_point(lambda z, x: z, z0, row_args=(cp.zeros((ROWS, WIDTH)),), stream=0)
    elsewhere = tensors.tensor(np.zeros((ROWS, WIDTH)))
    elsewhere._inside.device.id = 1
    with pytest.raises(ValueError, match="z0: array on device 1 given; expected device 0, the current one"):
        deqcore.fixed_point(lambda z: z, elsewhere, stream=0)
    monkeypatch.delattr(tensors, "from_dlpack")
    with pytest.raises(TypeError, match=r"z0: tensors\.Tensor.* given; expected .* a library with from_dlpack"):
        deqcore.fixed_point(lambda z: z, z0, stream=0)


def test_a_tensor_that_its_library_does_not_hand_over_is_named_at_once(tensors, monkeypatch):
    class Training(tensors.Tensor):
        def __dlpack__(self, **unused):
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    Training.__module__ = "tensors"
    z0, x = (tensors.tensor(np.zeros((ROWS, WIDTH))) for _ in range(2))
    x = Training(x._inside)
    with pytest.raises(TypeError, match=r"row_args\[0\]: .* cannot be handed over: .*detach"):
        deqcore.fixed_point(lambda z, x: z, z0, row_args=(x,), stream=0)
    with pytest.raises(TypeError, match=r"z0: .* cannot be handed over: .*detach"):
        deqcore.fixed_point(lambda z: z, x, stream=0)


@pytest.mark.parametrize("ids", [None, np.arange(ROWS)], ids=["by position", "by ids"])
def test_a_handle_and_shine(cp, tensors, problem, ids):
    slopes, x = problem
    s, x, z0 = map(tensors.tensor, (slopes, x, np.zeros((ROWS, WIDTH))))
    options = {"method": "broyden", "keep": "history", "ids": ids, "rtol": 1e-4, "stream": 0}
    first = deqcore.fixed_point(lambda z: s * tensors.tanh(z) + x, z0, **options)
    assert isinstance(first.warm.value, tensors.Tensor)
    assert isinstance(first.warm.history.memory, tensors.Tensor)
    again = deqcore.fixed_point(lambda z: s * tensors.tanh(z) + x, z0, warm=first.warm, **options)
    assert int(again.steps.numpy().max()) == 1
    start = deqcore.shine_start(first.warm, x, ids=ids, stream=0)
    assert isinstance(start, tensors.Tensor)
    rough = deqcore.adjoint(lambda z, v: v * s, z0, x, ids=ids, method=deqcore.SHINE(first.warm), stream=0)
    np.testing.assert_array_equal(rough.value.numpy(), start.numpy())
