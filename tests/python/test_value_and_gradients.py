# SPDX-License-Identifier: Apache-2.0
"""A whole training step of a dense map in one call equals its parts, to the bit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import deqcore
from deqcore import Direct, JacobianFree, Neumann, Phantom
from deqcore.maps import Dense

METHODS = [None, "bicgstab", Direct(), "anderson", "anderson_type_i", "picard", "broyden", Neumann(3), JacobianFree()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 9), (9,), (1, 9)])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_it_is_its_parts(dtype, shape, method, rng):
    layer = Dense((0.15 * rng.standard_normal((9, 9))).astype(dtype))
    x = rng.standard_normal(shape).astype(dtype)
    target, g = rng.standard_normal((2, 6, 9)).astype(dtype)
    zeros = np.zeros((6, 9), dtype)
    z = deqcore.fixed_point(layer, zeros, row_args=(x,)).value
    for options, right in (({"target": target}, z - target), ({"g": g}, g)):
        step = layer.value_and_gradients(zeros, x, adjoint_method=method, **options)
        u = deqcore.adjoint(layer, z, right, row_args=(x,), method=method)
        dW, dx = layer.parameter_gradients(z, x, u.value)
        for ours, parts in ((step.forward.value, z), (step.backward.value, u.value), (step.dW, dW)):
            assert np.array_equal(ours, parts)
        assert np.array_equal(step.dinjection, dx)
        assert step.dinjection.shape == shape
        assert step.backward.nfe == u.nfe


def test_the_gradients_are_those_of_differences(rng):
    W, x, target = 0.15 * rng.standard_normal((5, 5)), *rng.standard_normal((2, 3, 5))

    def loss(W, x):
        z = deqcore.fixed_point(Dense(W), np.zeros((3, 5)), row_args=(x,), rtol=1e-14).value
        return ((z - target) ** 2).sum() / 2

    step = Dense(W).value_and_gradients(np.zeros((3, 5)), x, target=target, rtol=1e-14)
    for gradient, which in ((step.dW, 0), (step.dinjection, 1)):
        at = [W, x]
        for place in [(0, 0), (2, 4), (1, 3)]:
            change = np.zeros_like(at[which])
            change[place] = 1e-6
            up, down = ([*at] for _ in range(2))
            up[which], down[which] = at[which] + change, at[which] - change
            assert gradient[place] == pytest.approx((loss(*up) - loss(*down)) / 2e-6, rel=1e-5, abs=1e-7)


def test_the_weights_are_the_same_forward_and_backward(rng):
    both = [0.9 * np.eye(40), -0.9 * np.eye(40)]
    x = rng.standard_normal((200, 40))
    layer, stop = Dense(both[0], activation="identity"), threading.Event()

    def alternate():
        while not stop.is_set():
            for W in both:
                layer.update(W)

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        for _ in range(20):
            step = layer.value_and_gradients(np.zeros_like(x), x, g=np.ones_like(x), max_steps=2000)
            slope = step.forward.value[0, 0] / x[0, 0]  # 1 / (1 - w)
            assert step.backward.value[0, 0] == pytest.approx(slope, rel=1e-4)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "g, target: neither"),
        ({"g": 1, "target": 1}, "g, target: both"),
        ({"target": np.zeros((2, 3))}, "target"),
        ({"g": np.zeros((2, 4), np.float32)}, "g: "),
        ({"g": np.zeros((2, 4)), "adjoint_method": Phantom()}, "adjoint_method"),
        ({"g": np.zeros((2, 4)), "method": "gmres"}, "method"),
        ({"g": np.zeros((2, 4)), "adjoint_rtl": 1}, "adjoint_rtol"),
        ({"g": np.full((2, 4), np.nan)}, "g: nan"),
    ],
)
def test_wrong_input_is_refused_by_name(options, word):
    with pytest.raises((TypeError, ValueError), match=word):
        Dense(np.zeros((4, 4))).value_and_gradients(np.zeros((2, 4)), np.zeros(4), **options)
