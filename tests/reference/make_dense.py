# SPDX-License-Identifier: Apache-2.0
"""Makes dense.json: fixed points of small dense maps, and gradients through them, to 40 digits.

Standard library alone, and none of the formulas of the library under test: activations by their series, derivatives by
high-order differences, Newton and adjoints by elimination. Run it to make the file anew: python make_dense.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from decimal import Decimal, getcontext
from pathlib import Path

getcontext().prec = 60
D = Decimal
ROWS, WIDTH = 3, 5
Vector = list[Decimal]
Matrix = list[Vector]


def sin(x: Decimal) -> Decimal:
    total = term = x
    for n in range(1, 60):
        term *= -x * x / (2 * n * (2 * n + 1))
        total += term
    return total


def erf(x: Decimal) -> Decimal:
    power, total = x, x
    for n in range(1, 200):
        power *= -x * x / n
        total += power / (2 * n + 1)
    return total / sqrt_pi() * 2


def sqrt_pi() -> Decimal:
    """pi by Machin's formula."""

    def arctan_inverse(m: int) -> Decimal:
        total, power = D(0), D(1) / m
        for n in range(60):
            total += power / (2 * n + 1) * (-1) ** n
            power /= m * m
        return total

    return (4 * (4 * arctan_inverse(5) - arctan_inverse(239))).sqrt()


ACTIVATIONS: dict[str, Callable[[Decimal], Decimal]] = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, D(0)),
    "tanh": lambda x: 1 - 2 / ((2 * x).exp() + 1),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "softplus": lambda x: (1 + x.exp()).ln(),
    "gelu": lambda x: x * (1 + erf(x / D(2).sqrt())) / 2,
    "silu": lambda x: x / (1 + (-x).exp()),
    "sin": sin,
}


def slope(a: Callable[[Decimal], Decimal], x: Decimal) -> Decimal:
    """a'(x) by central differences of order 4 with h = 1e-11: an error near 1e-44, rounding near 1e-48."""
    h = D("1e-11")
    return (8 * (a(x + h) - a(x - h)) - (a(x + 2 * h) - a(x - 2 * h))) / (12 * h)


def solve(A: Matrix, b: Vector) -> Vector:
    """A x = b by elimination with pivots."""
    n = len(b)
    rows = [[*line, right] for line, right in zip(A, b, strict=True)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(n):
            if i != k:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [rows[i][n] / rows[i][i] for i in range(n)]


def case(name: str, rng: random.Random) -> dict[str, object]:
    a = ACTIVATIONS[name]
    span = range(WIDTH)

    def numbers(size: float) -> Vector:
        return [D(round(rng.uniform(-size, size), 6)) for _ in span]  # doubles, exactly

    W = [numbers(0.35) for _ in span]
    c, g = [numbers(1.5) for _ in range(ROWS)], [numbers(1.0) for _ in range(ROWS)]
    fixed, adjoint = [], []
    dW = [[D(0)] * WIDTH for _ in span]
    dc = []
    for injection, right in zip(c, g, strict=True):
        z = [D(0)] * WIDTH
        for step in range(70):
            y = [sum(W[i][j] * z[j] for j in span) + injection[i] for i in span]
            residual = [a(y[i]) - z[i] for i in span]
            d = [slope(a, y[i]) for i in span]
            system = [[(i == j) - d[i] * W[i][j] for j in span] for i in span]
            if step < 60:  # plain steps first, so that relu's pieces are the right ones
                z = [z[i] + residual[i] for i in span]
            else:
                z = [z[i] + move for i, move in enumerate(solve(system, residual))]
        assert max(map(abs, residual)) < D("1e-45"), name
        u = solve([[system[j][i] for j in span] for i in span], right)
        fixed.append(z)
        adjoint.append(u)
        du = [d[i] * u[i] for i in span]
        dc.append(du)
        dW = [[dW[i][j] + du[i] * z[j] for j in span] for i in span]

    def words(block: Matrix) -> list[list[str]]:
        return [[f"{x:.40g}" for x in line] for line in block]

    floats = {"W": W, "injection": c, "g": g}
    return {
        "activation": name,
        **{key: [[float(x) for x in line] for line in block] for key, block in floats.items()},
        **{key: words(block) for key, block in (("z", fixed), ("u", adjoint), ("dW", dW), ("dinjection", dc))},
    }


if __name__ == "__main__":
    rng = random.Random(20)
    cases = [case(name, rng) for name in ACTIVATIONS]
    path = Path(__file__).with_name("dense.json")
    path.write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
    print(f"{path.name}: {len(cases)} maps of {ROWS} rows, width {WIDTH}")
