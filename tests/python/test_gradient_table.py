# SPDX-License-Identifier: Apache-2.0
"""How good approximate gradients are, and what GMRES costs, against a table made without this library.

Run with -s to see both.
"""

from __future__ import annotations

import numpy as np

import deqcore
from deqcore import GMRES, SHINE, Broyden, JacobianFree, Neumann
from support.problems import dense_adjoint, relative_error

# Cosine and relative error on random tanh maps of width 400 at gains 0.5, 0.9, 1.2, each the mean of 10 problems.
KNOWN = {
    "JFB": (JacobianFree(), [(0.942, 0.34), (0.818, 0.58), (0.687, 0.73)]),
    "k=3": (Neumann(3), [(0.999, 0.036), (0.984, 0.18), (0.926, 0.38)]),
    "k=5": (Neumann(5), [(1.0, 0.004), (0.998, 0.059), (0.978, 0.20)]),
    "k=5, tau=.5": (Neumann(5, 0.5), [(0.997, 0.091), (0.978, 0.23), (0.925, 0.40)]),
    "k=10": (Neumann(10), [(1.0, 2e-5), (1.0, 0.004), (0.999, 0.045)]),
}
# SHINE after a forward solve by Broyden to 1e-10 that forgets nothing.
SHINE_COSINE = (0.944, 0.831, 0.718)
GAINS, WIDTH, PROBLEMS = (0.5, 0.9, 1.2), 400, 10


def test_the_table(rng):
    problems = {}
    for gain in GAINS:
        for _ in range(PROBLEMS):
            W = rng.standard_normal((WIDTH, WIDTH)) * gain / np.sqrt(WIDTH)
            c, g = rng.standard_normal((2, 1, WIDTH))
            layer = deqcore.maps.Dense(W)
            z = deqcore.fixed_point(layer, np.zeros_like(c), row_args=(c,), rtol=1e-12, max_steps=1000).value
            exact = dense_adjoint("tanh", W, z, c, g)
            learnt = deqcore.fixed_point(
                layer, np.zeros_like(c), row_args=(c,), method=Broyden(history=200), rtol=1e-10, keep="history"
            ).warm
            problems.setdefault(gain, []).append((layer, c, z, g, exact, learnt))
    lines = []
    for name, (method, known) in KNOWN.items():
        line = f"{name:12}({getattr(method, 'k', 1) - 1})"
        for gain, (cosine, error) in zip(GAINS, known, strict=True):
            measured = []
            for layer, c, z, g, exact, _ in problems[gain]:
                u = deqcore.adjoint(layer, z, g, row_args=(c,), method=method).value
                norms = np.linalg.norm(u) * np.linalg.norm(exact)
                measured.append(((u * exact).sum() / norms, relative_error(u, exact)))
            got = np.mean(measured, axis=0)
            line += f"   {got[0]:.3f} / {got[1]:.2g} ({cosine} / {error})"
            assert abs(got[0] - cosine) <= 0.03
            assert abs(got[1] / error - 1) <= 0.3
        lines.append(line)
    line = "SHINE       (0)"
    for gain, known in zip(GAINS, SHINE_COSINE, strict=True):
        cosines = []
        for layer, c, z, g, exact, learnt in problems[gain]:
            u = deqcore.adjoint(layer, z, g, row_args=(c,), method=SHINE(learnt)).value
            cosines.append((u * exact).sum() / np.linalg.norm(u) / np.linalg.norm(exact))
        line += f"   {np.mean(cosines):.3f} ({known})"
        assert abs(np.mean(cosines) - known) <= 0.03
    lines.append(line)
    line = "GMRES to 1e-6  "
    for gain, products in zip(GAINS, (13, 24, 38), strict=True):
        counts = [
            deqcore.adjoint(layer, z, g, row_args=(c,), method=GMRES(), rtol=1e-6).nfe
            for layer, c, z, g, _, _ in problems[gain]
        ]
        line += f"   {np.median(counts):g} products ({products})"
        assert abs(np.median(counts) / products - 1) <= 0.2
    print("\ncosine / relative error (known), gains 0.5, 0.9, 1.2", *lines, line, sep="\n")
