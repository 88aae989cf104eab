# SPDX-License-Identifier: Apache-2.0
"""HomoODE on 8 x 8 digits beside a Neural ODE, an augmented one and an equilibrium model of as many weights.

All have some 13,100 weights, and are trained by Adam 5e-3 along a cosine, 40 epochs in batches of 64, in float32 on one
thread; Adam's rate and the start's were chosen by cross-validation on the training images. The ODEs are trained by RK4
with 4 steps and the exact adjoint, and tested in float64 by DormandPrince with the batch as one system. Three seeds
each, of the initial weights and the order of the samples. Peaks are of one training step.

Must: a mean accuracy of 0.970 with at most 15,000 weights; with the shared start an accuracy within 0.5 points of that
from zero, and 25 % fewer evaluations at 1e-6; and the memory of the adjoint does not grow with the steps, as plan()
says.

    python benchmarks/python/homoode.py [--out FILE]        the tables, in Markdown; the cases as JSON lines
    python benchmarks/python/homoode.py --table FILE        the tables of a file
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np

import deqcore
from deqcore import _demo
from deqcore._training import Arrays, Digits, cross_entropy, descend, gaussian, load_digits, split
from deqcore.systems import homoode
from harness import machine
from harness.measure import Plan, case, figures

EPOCHS, BATCH, RATE, SEEDS, WIDTH = 40, 64, 5e-3, 3, 64
TRAINING = deqcore.RK4(steps=4)
TOLERANCES = (1e-3, 1e-6)
PROBLEM = "digits, 13,100 weights"


@dataclass(frozen=True)
class Run:
    """One trained model of one seed; integers are evaluations."""

    accuracy: float
    loss: float  # of the last epoch's batches
    weights: int
    forward: float  # in training, per batch or row
    backward: float
    products: float
    test: dict[str, float]  # evaluations and the like
    peak: int  # bytes of a training step
    seconds: float  # of CPU time, training


# ------------------------------------------------------------------------------------------------------------- HomoODE


def train_homoode(train_set: Digits, test_set: Digits, seed: int, epochs: int, start: Any, z0: float = 0.0) -> Run:
    rng = np.random.default_rng(seed)
    weights = homoode.Weights.random(rng, 64, 10, width=WIDTH, hidden=WIDTH)
    weights.z0[:] = z0
    model = homoode.HomoODE(weights)
    began = time.thread_time()
    trained, done = homoode.train(
        model,
        train_set.images,
        train_set.labels,
        rng=rng,
        start=start,
        epochs=epochs,
        batch=BATCH,
        rate=RATE,
        method=TRAINING,
        threads=1,
    )
    seconds = time.thread_time() - began

    def step() -> homoode.Evaluation:
        return trained.loss_and_gradients(train_set.images[:BATCH], train_set.labels[:BATCH], threads=1)

    e, peak = with_peak(step, lambda e: e.report.scratch_bytes)
    exact = homoode.HomoODE(trained.weights.astype(np.float64))
    images = test_set.images.astype(np.float64)
    results = {rtol: exact(images, rtol=rtol, atol=rtol, threads=1) for rtol in TOLERANCES}
    u = exact.condition(images)
    by_rule = {
        rtol: exact(
            images, rtol=rtol, atol=rtol, first_step=classical_step(exact, u, rtol), threads=1
        ).report.nfe_forward
        + 1
        for rtol in TOLERANCES
    }  # the rule's probe is one evaluation more
    report = results[1e-6].report
    first = train_set.images[:BATCH].astype(np.float64), train_set.labels[:BATCH]
    adjoint, solver = (exact.loss_and_gradients(*first, gradient=kind).gradients for kind in ("adjoint", "solver"))
    apart = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(adjoint, solver, strict=True)]
    test = {
        "nfe at 1e-3": results[1e-3].report.nfe_forward,
        "nfe at 1e-6": report.nfe_forward,
        "nfe at 1e-3, classical first step": by_rule[1e-3],
        "nfe at 1e-6, classical first step": by_rule[1e-6],
        "accepted at 1e-6": report.accepted,
        "rejected at 1e-6": report.rejected,
        "evaluations of a row at 1e-6": exact(images, rtol=1e-6, atol=1e-6, control="rows", threads=1)
        .report.forward.evaluations.mean(),
        "adjoint from solver, relative": max(apart),
        "|z(1) - z(0)|": report.distance.mean(),
        "|F(z(1))|": report.field_at_end.mean(),
    }  # fmt: skip
    return Run(
        accuracy=float((results[1e-3].labels == test_set.labels).mean()),
        loss=done[-1].loss,
        weights=weights.count,
        forward=e.report.nfe_forward,
        backward=e.report.nfe_backward,
        products=e.report.backward.products if e.report.backward else 0,
        test=test,
        peak=peak,
        seconds=seconds,
    )


def classical_step(model: homoode.HomoODE, u: np.ndarray, rtol: float) -> float:
    """The usual first step (Hairer, Norsett and Wanner 1993, II.4), which odeint leaves where |z0| is tiny: from z0 = 0
    it tries 1e-6, and takes 1e-4 however long the steps after it may be.
    """
    z0 = np.tile(model.weights.z0, (len(u), 1))
    scale = rtol + rtol * abs(z0)
    f = model.field(z0, u)

    def size(array: np.ndarray) -> float:
        return float(np.sqrt(np.mean((array / scale) ** 2)))

    d0, d1 = size(z0), size(f)
    h0 = 1e-6 if min(d0, d1) < 1e-5 else 0.01 * d0 / d1
    d2 = size(model.field(z0 + h0 * f, u) - f) / h0
    return min(100 * h0, 1.0, (0.01 / max(d1, d2)) ** (1 / 5))


# ------------------------------------------------------------------------------------------------------- a Neural ODE


@dataclass(frozen=True, eq=False)
class NeuralOde(Arrays):
    """z(0) = (U x + c, 0), as many zeros as the state is wider; dz/dt = A2 tanh(A1 z + c1) + b2; scores V z(1) + d."""

    U: np.ndarray
    c: np.ndarray
    A1: np.ndarray
    c1: np.ndarray
    A2: np.ndarray
    b2: np.ndarray
    V: np.ndarray
    d: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, zeros: int, hidden: int) -> NeuralOde:
        width = WIDTH + zeros
        U, A1, A2 = gaussian(rng, WIDTH, 64), gaussian(rng, hidden, width), gaussian(rng, width, hidden)
        b = [np.zeros(size, np.float32) for size in (WIDTH, hidden, width, 10)]
        return cls(U, b[0], A1, b[1], A2, b[2], gaussian(rng, 10, width), b[3])

    def integrate(self, images: np.ndarray, **options: Any) -> tuple[deqcore.maps.Field, deqcore.OdeSolution]:
        start = np.zeros((len(images), len(self.b2)), images.dtype)
        start[:, : len(self.c)] = images @ self.U.T + self.c
        field = deqcore.maps.Field(self.A1, self.A2, self.b2)
        return field, deqcore.odeint(field, start, [0, 1], row_args=(self.c1,), control="batch", threads=1, **options)

    def scores(self, ends: np.ndarray) -> np.ndarray:
        return ends @ self.V.T + self.d


@dataclass(frozen=True, eq=False)
class Evaluation:
    loss: float
    gradients: NeuralOde
    forward: deqcore.OdeSolution
    backward: deqcore.OdeGradients

    @property
    def scratch_bytes(self) -> int:
        return max(self.forward.scratch_bytes, self.backward.scratch_bytes)


def evaluate_neural_ode(p: NeuralOde, batch: Digits) -> Evaluation:
    field, forward = p.integrate(batch.images, method=TRAINING)
    ends = forward.value[-1]
    loss, slope = cross_entropy(p.scores(ends), batch.labels)
    backward = deqcore.odeint_adjoint(
        field, None, forward.value, [0, 1], slope @ p.V, row_args=(p.c1,), method=TRAINING, threads=1
    )
    du = backward.z0[:, : len(p.c)]
    A1, A2, b2 = backward.parameters
    gradients = NeuralOde(
        du.T @ batch.images, du.sum(0), A1, backward.row_args[0], A2, b2, slope.T @ ends, slope.sum(0)
    )
    return Evaluation(loss, gradients, forward, backward)


def train_neural_ode(train_set: Digits, test_set: Digits, seed: int, epochs: int, zeros: int, hidden: int) -> Run:
    rng = np.random.default_rng(seed)
    p, last = NeuralOde.random(rng, zeros, hidden), 0.0
    began = time.thread_time()
    for step in descend(
        p,
        len(train_set),
        lambda p, rows: evaluate_neural_ode(p, train_set[rows]),
        epochs=epochs,
        batch=BATCH,
        rate=RATE,
        rng=rng,
    ):
        p, last = step.p, (0.0 if step.begins_epoch else last) + step.share * step.evaluation.loss
    seconds = time.thread_time() - began
    e, peak = with_peak(lambda: evaluate_neural_ode(p, train_set[:BATCH]), lambda e: e.scratch_bytes)
    exact, images = p.each(np.float64, p), test_set.images.astype(np.float64)
    fields = {rtol: exact.integrate(images, rtol=rtol, atol=rtol) for rtol in TOLERANCES}
    field, fine = fields[1e-6]
    ends = fine.value[-1]
    test = {
        "nfe at 1e-3": fields[1e-3][1].nfe,
        "nfe at 1e-6": fine.nfe,
        "accepted at 1e-6": int(fine.accepted.max()),
        "rejected at 1e-6": int(fine.rejected.max()),
        "|z(1) - z(0)|": np.linalg.norm(ends - fine.value[0], axis=1).mean(),
        "|F(z(1))|": np.linalg.norm(field(ends, exact.c1), axis=1).mean(),
    }
    recognised = exact.scores(fields[1e-3][1].value[-1]).argmax(1) == test_set.labels
    return Run(
        accuracy=float(recognised.mean()),
        loss=last,
        weights=p.count,
        forward=e.forward.nfe,
        backward=e.backward.evaluations,
        products=e.backward.products,
        test=test,
        peak=peak,
        seconds=seconds,
    )


# ------------------------------------------------------------------------------------------------------ an equilibrium


def train_equilibrium(train_set: Digits, test_set: Digits, seed: int, epochs: int, width: int) -> Run:
    """z = tanh(W z + U x + b), |W|_2 <= 0.95, by Anderson and, backward, Anderson, to 1e-4."""
    rng = np.random.default_rng(seed)
    p, last = _demo.capped(_demo.Parameters.random(rng, width), 0.95), 0.0
    one: dict[str, Any] = {"forward_options": {"threads": 1}, "backward_options": {"threads": 1}}

    def evaluate(p: _demo.Parameters, batch: Digits) -> _demo.Evaluation:
        return _demo.loss_and_gradients(p, batch.images, batch.labels, rtol=1e-4, **one)

    began = time.thread_time()
    for step in descend(
        p,
        len(train_set),
        lambda p, rows: evaluate(p, train_set[rows]),
        epochs=epochs,
        batch=BATCH,
        rate=RATE,
        rng=rng,
        adjust=lambda p, e, number: _demo.capped(p, 0.95),
    ):
        p, last = step.p, (0.0 if step.begins_epoch else last) + step.share * step.evaluation.loss
    seconds = time.thread_time() - began
    e, peak = with_peak(
        lambda: evaluate(p, train_set[:BATCH]), lambda e: max(e.forward.scratch_bytes, e.backward.scratch_bytes)
    )
    exact, images = p.each(np.float64, p), test_set.images.astype(np.float64)
    solutions = {rtol: _demo.equilibrium(exact, images, rtol=rtol, threads=1) for rtol in TOLERANCES}
    return Run(
        accuracy=float((_demo.logits(exact, solutions[1e-3].value).argmax(1) == test_set.labels).mean()),
        loss=last,
        weights=p.count,
        forward=float(e.forward.steps.mean()),
        backward=0,
        products=float(e.backward.steps.mean()),
        test={f"nfe at {rtol:.0e}".replace("e-0", "e-"): s.steps.mean() for rtol, s in solutions.items()},
        peak=peak,
        seconds=seconds,
    )


def with_peak(step: Callable[[], Any], scratch: Callable[[Any], int]) -> tuple[Any, int]:
    """-> (what a training step gives, its peak of memory: NumPy's arrays, and what the core holds beside them)."""
    step()  # what is made once is not counted
    tracemalloc.start()
    e = step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return e, peak + scratch(e)


# --------------------------------------------------------------------------------------------------------------- cases

SHARED, ZEROS, CONSTANT = "HomoODE, shared start", "HomoODE, start 0", "HomoODE, start 1e-3"
SLOWER = "HomoODE, shared start, rate 0.05"
NEURAL, AUGMENTED, EQUILIBRIUM = "Neural ODE", "augmented Neural ODE", "DEQ"
MODELS: dict[str, Callable[[Digits, Digits, int, int], Run]] = {
    SHARED: lambda *given: train_homoode(*given, start=homoode.SharedStart()),
    SLOWER: lambda *given: train_homoode(*given, start=homoode.SharedStart(rate=0.05)),
    ZEROS: lambda *given: train_homoode(*given, start=None),
    CONSTANT: lambda *given: train_homoode(*given, start=None, z0=1e-3),
    NEURAL: lambda *given: train_neural_ode(*given, zeros=0, hidden=64),
    AUGMENTED: lambda *given: train_neural_ode(*given, zeros=16, hidden=50),
    EQUILIBRIUM: lambda *given: train_equilibrium(*given, width=83),
}


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    data = split(load_digits())
    epochs, seeds = (1, 1) if plan.quick else (EPOCHS, SEEDS)
    for name, train in MODELS.items():
        runs = [train(*data, seed, epochs) for seed in range(seeds)]
        accuracy = [run.accuracy for run in runs]
        yield case(
            PROBLEM,
            name,
            np.float32,
            BATCH,
            WIDTH,
            1,
            counts={
                "mean accuracy": figures(float(np.mean(accuracy))),
                "spread": figures(float(np.std(accuracy))),
                "accuracy": [figures(value) for value in accuracy],
                "loss": figures(float(np.mean([run.loss for run in runs]))),
                "weights": runs[0].weights,
                "nfe forward": figures(float(np.mean([run.forward for run in runs]))),
                "nfe backward": figures(float(np.mean([run.backward for run in runs]))),
                "products backward": figures(float(np.mean([run.products for run in runs]))),
                **{key: figures(float(np.mean([run.test[key] for run in runs]))) for key in runs[0].test},
            },
            samples=[run.seconds for run in runs],
            parts={"peak bytes": float(np.mean([run.peak for run in runs]))},
        )
    yield from memory(plan)


def memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """The gradient of a HomoODE's field called from Python, whose memory plan() tells and tracemalloc sees; and
    of the native one.
    """
    rng = np.random.default_rng(0)
    weights = homoode.Weights.random(rng, 64, 10, width=WIDTH, hidden=WIDTH, dtype=np.float64)
    model = homoode.HomoODE(weights)
    u, z0 = model.condition(rng.random((BATCH, 64))), np.zeros((BATCH, WIDTH))
    field = model.field

    def f(t: Any, z: Any, u: Any) -> Any:
        return field(z, u)

    def vjp(t: Any, z: Any, a: Any, u: Any) -> Any:
        dz, du, parameters = field.vjp(z, a, u)
        return dz, (du,), parameters

    for gradient in ("adjoint", "solver"):
        for steps in (4, 16) if plan.quick else (4, 16, 64):
            options: dict[str, Any] = {"row_args": (u,), "method": deqcore.RK4(steps), "threads": 1}
            z = deqcore.odeint(f, z0, [0, 1], control="batch", **options).value
            options |= {"gradient": gradient}
            deqcore.odeint_adjoint(f, vjp, z, [0, 1], z[-1], **options)  # what is made once is not counted
            tracemalloc.start()
            deqcore.odeint_adjoint(f, vjp, z, [0, 1], z[-1], **options)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            native = deqcore.odeint_adjoint(field, None, z, [0, 1], z[-1], **options)
            planned = deqcore.plan(BATCH, WIDTH, np.float64, method=deqcore.RK4(steps), gradient=gradient)
            yield case(
                f"memory of a gradient, {steps} steps",
                gradient,
                np.float64,
                BATCH,
                WIDTH,
                1,
                counts={"planned bytes": planned.scratch_bytes, "native bytes": native.scratch_bytes},
                parts={"peak bytes": float(peak)},
            )


# -------------------------------------------------------------------------------------------------------------- tables


def tables(found: list[dict[str, Any]]) -> str:
    """The comparison, the starts, the memory, and what must hold, in Markdown."""
    models = {line["method"]: line for line in found if line["problem"] == PROBLEM}
    counts = {name: line["counts"] for name, line in models.items()}
    lines = [
        "| model | accuracy | weights | evaluations forward / backward | test: evaluations at 1e-3, 1e-6 | peak kB |"
        " training, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, c in counts.items():
        backward = f"{c['nfe backward']:g} + {c['products backward']:g} products"
        lines.append(
            f"| {name} | {c['mean accuracy']:.3f} ± {c['spread']:.3f} | {c['weights']:,} | {c['nfe forward']:g} / "
            f"{backward} | {c['nfe at 1e-3']:g}, {c['nfe at 1e-6']:g} | "
            f"{models[name]['parts']['peak bytes'] / 1000:.0f} | {models[name]['seconds']['median']:.1f} |"
        )
    lines += [
        "",
        "| start | at 1e-3 | classical first step | at 1e-6 | classical first step | distance | field at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {c['nfe at 1e-3']:g} | {c['nfe at 1e-3, classical first step']:g} | {c['nfe at 1e-6']:g} | "
        f"{c['nfe at 1e-6, classical first step']:g} | {c['|z(1) - z(0)|']:.2f} | {c['|F(z(1))|']:.2f} |"
        for name, c in counts.items()
        if name.startswith("HomoODE")
    ]
    lines += [
        "",
        "| gradient | steps | plan(), kB | peak, kB | native field, kB |",
        "| --- | --- | --- | --- | --- |",
    ]
    held = [line for line in found if line["problem"].startswith("memory")]
    lines += [
        f"| {line['method']} | {line['problem'].split()[-2]} | {line['counts']['planned bytes'] / 1000:.0f} | "
        f"{line['parts']['peak bytes'] / 1000:.0f} | {line['counts']['native bytes'] / 1000:.0f} |"
        for line in held
    ]
    said = {True: ": met", False: ": NOT met", None: ""}
    return "\n".join([*lines, "", *(f"- {text}{said[met]}" for text, met in rows(models, held))])


def rows(models: dict[str, dict[str, Any]], held: list[dict[str, Any]]) -> Iterator[tuple[str, bool | None]]:
    """What must hold, and what the paper says; None where nothing is asked for."""
    counts = {name: line["counts"] for name, line in models.items()}
    ours, zeros = counts[SHARED], counts[ZEROS]
    yield (
        f"mean accuracy at least 0.970 with at most 15,000 weights ({ours['mean accuracy']:.4f} with "
        f"{ours['weights']:,})",
        ours["mean accuracy"] >= 0.970 and ours["weights"] <= 15000,
    )
    points = 100 * (ours["mean accuracy"] - zeros["mean accuracy"])
    yield f"shared start: accuracy within 0.5 points of the start at 0 ({points:+.2f})", abs(points) <= 0.5
    fewer = 1 - ours["nfe at 1e-6"] / zeros["nfe at 1e-6"]
    classical = {rtol: [c[f"nfe at {rtol}, classical first step"] for c in (ours, zeros)] for rtol in ("1e-3", "1e-6")}
    of_classical = 1 - classical["1e-6"][0] / classical["1e-6"][1]
    yield (
        f"shared start: at least 25 % fewer evaluations at 1e-6 ({ours['nfe at 1e-6']:g} instead of "
        f"{zeros['nfe at 1e-6']:g}: {100 * fewer:.0f} % fewer; with the classical first step {classical['1e-6'][0]:g} "
        f"instead of {classical['1e-6'][1]:g}: {100 * of_classical:.0f} %)",
        fewer >= 0.25,
    )
    yield (
        f"told apart at 1e-3: from 0 {classical['1e-3'][1]:g} by the classical first step, {zeros['nfe at 1e-3']:g} by "
        f"ours; from the shared start {classical['1e-3'][0]:g} and {ours['nfe at 1e-3']:g}",
        None,
    )
    growth = {gradient: [line for line in held if line["method"] == gradient] for gradient in ("adjoint", "solver")}
    for gradient, grows in (("adjoint", False), ("solver", True)):
        planned = [line["counts"]["planned bytes"] for line in growth[gradient]]
        peaks = [line["parts"]["peak bytes"] for line in growth[gradient]]
        ratio = peaks[-1] / peaks[0]
        yield (
            f"the memory of {gradient!r} {'grows' if grows else 'does not grow'} with the steps, and plan() says so "
            f"(peak x {ratio:.2f}, planned x {planned[-1] / planned[0]:.2f})",
            (ratio > 2 and planned[-1] > 2 * planned[0]) if grows else (ratio < 1.1 and planned[-1] == planned[0]),
        )
    for name in (NEURAL, AUGMENTED, EQUILIBRIUM):
        other = counts[name]
        by = 100 * (ours["mean accuracy"] - other["mean accuracy"])
        yield f"the paper: better accuracy than earlier implicit models; {name} ({by:+.2f} points)", by > 0
        size, its = (models[which]["parts"]["peak bytes"] / 1000 for which in (SHARED, name))
        yield f"the paper: less memory; {name} ({size:.0f} kB, {its:.0f} kB)", size < its


def main() -> int:
    parser = argparse.ArgumentParser(description="HomoODE beside other implicit models on digits.")
    parser.add_argument("--out", type=Path, help="write the cases as JSON lines")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of a file, and end")
    parser.add_argument("--quick", action="store_true", help="one epoch, one seed")
    options = parser.parse_args()
    if options.table:
        print(tables([json.loads(line) for line in options.table.read_text("utf-8").splitlines()[1:]]))
        return 0
    machine.prepare()  # may start anew
    found = list(cases(Plan(options.quick)))
    print(tables(found))
    if options.out:
        lines = [{"machine": machine.described(machine.slug())}, *found]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
