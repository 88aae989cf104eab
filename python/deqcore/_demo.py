# SPDX-License-Identifier: Apache-2.0
"""Train an equilibrium classifier on handwritten digits, without a deep-learning framework.

For one image of 8 x 8 pixels and a layer of width d:

    x in [0, 1]^64     the pixels               W (d, d), U (d, 64), b (d)     the layer
    z* in (-1, 1)^d    the hidden state         V (10, d), c (10)              the read-out

    z* = f(z*),  f(z) = tanh(W z + U x + b)     forward: a fixed point, by Anderson acceleration
    q = softmax(V z* + c),  L = -log q[label]   the loss, averaged over a batch

    g = V' (q - e[label])                       dL/dz*, with e the unit vectors
    u = J' u + g                                backward: implicit differentiation, J = df/dz at z*
    s = tanh'(W z* + U x + b) * u               dL/dW = s z*',  dL/dU = s x',  dL/db = s

|tanh'| <= 1, so that |W|_2 <= 0.95 makes f a contraction: every image has exactly one z*, and both solves converge.
W is held there after every update. Nothing of the forward iteration is kept for the backward solve, only its end z*.

Bai, Kolter and Koltun 2019, "Deep Equilibrium Models".
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ._adjoint import adjoint
from ._core import num_threads, set_num_threads
from ._fixed_point import fixed_point
from ._solution import Solution, Status
from ._training import Arrays, Digits, cross_entropy, descend, gaussian, load_digits, split
from .maps import Dense

__all__ = ["Evaluation", "Parameters", "Settings", "loss_and_gradients", "run"]


@dataclass(frozen=True)
class Settings:
    """Everything that may be chosen."""

    seed: int = 0  # of the initial weights and the order of the batches, never of the split
    epochs: int = 25
    width: int = 64
    threads: int | None = None
    out: Path = Path("deqcore-demo.png")
    batch: int = 64
    rate: float = 3e-3  # of Adam, decaying to 0 along a cosine
    cap: float = 0.95  # of the spectral norm of W
    rtol: float = 1e-4  # of every solve, forward and backward
    rtol_picture: float = 1e-8  # of the two solves in the picture, which are in float64


# --------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Parameters(Arrays):
    """The weights; also anything of their shapes, such as their gradients."""

    W: np.ndarray  # (d, d)
    U: np.ndarray  # (d, pixels)
    b: np.ndarray  # (d,)
    V: np.ndarray  # (classes, d)
    c: np.ndarray  # (classes,)

    @classmethod
    def random(cls, rng: np.random.Generator, width: int, pixels: int = 64, classes: int = 10) -> Parameters:
        """Gaussian weights of variance 1 / inputs, W of half that deviation, in float32; biases 0."""
        W, U, V = gaussian(rng, width, width) / 2, gaussian(rng, width, pixels), gaussian(rng, classes, width)
        return cls(W, U, np.zeros(width, np.float32), V, np.zeros(classes, np.float32))


def injection(p: Parameters, images: np.ndarray) -> np.ndarray:
    """U x + b: what the layer sees of each image, computed once per solve."""
    x: np.ndarray = images @ p.U.T + p.b
    return x


def equilibrium(p: Parameters, images: np.ndarray, **options: Any) -> Solution:
    """Solve z = tanh(W z + U x + b), one row per image, from z = 0."""
    x = injection(p, images)
    return fixed_point(Dense(p.W, "tanh"), np.zeros_like(x), row_args=(x,), **options)


def logits(p: Parameters, z: np.ndarray) -> np.ndarray:
    """V z + c."""
    scores: np.ndarray = z @ p.V.T + p.c
    return scores


@dataclass(frozen=True)
class Evaluation:
    """The loss of a batch, its gradients, and what they took."""

    loss: float
    gradients: Parameters
    correct: int
    forward: Solution
    backward: Solution


def loss_and_gradients(
    p: Parameters,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    rtol: float,
    forward_options: dict[str, Any] | None = None,
    backward_options: dict[str, Any] | None = None,
) -> Evaluation:
    """The mean cross-entropy over a batch and its gradients, by implicit differentiation.

    Args:
        p: the weights, float32 or float64.
        images: pixels, ``(rows, pixels)``, of the same dtype.
        labels: integers, ``(rows,)``.
        rtol: relative tolerance of the forward and of the backward solve.
        forward_options, backward_options: other options of the two solves.

    Returns:
        An :class:`Evaluation`; its ``gradients`` are as exact as the two solves.

    Raises:
        ConvergenceError: a row did not converge, which a spectral norm of W below 1 excludes.
    """
    layer = Dense(p.W, "tanh")
    x = injection(p, images)

    shared: dict[str, Any] = {"row_args": (x,), "method": "anderson", "rtol": rtol}
    forward = fixed_point(layer, np.zeros_like(x), **(shared | (forward_options or {})))
    z = forward.value
    scores = logits(p, z)
    loss, slope = cross_entropy(scores, labels)
    g = slope @ p.V
    backward = adjoint(layer, z, g, **(shared | (backward_options or {})))
    dW, s = layer.parameter_gradients(z, x, backward.value)

    gradients = Parameters(W=dW, U=s.T @ images, b=s.sum(0), V=slope.T @ z, c=slope.sum(0))
    return Evaluation(loss, gradients, int((scores.argmax(1) == labels).sum()), forward, backward)


def accuracy(p: Parameters, digits: Digits, **options: Any) -> float:
    """The share of digits that are recognised."""
    z = equilibrium(p, digits.images, **options).value
    return float((logits(p, z).argmax(1) == digits.labels).mean())


# ------------------------------------------------------------------------------------------------------------ training


def capped(p: Parameters, cap: float) -> Parameters:
    """Shrink W, if need be, to the spectral norm ``cap``."""
    norm = float(np.linalg.norm(p.W, 2))
    return p if norm <= cap else replace(p, W=p.W * (cap / norm))


@dataclass
class Epoch:
    """What one pass over the training images gave and took."""

    loss: float = 0.0  # the mean over the images
    train_accuracy: float = 0.0  # as the batches came by, while the weights changed
    test_accuracy: float = 0.0  # after the last update
    steps_forward: float = 0.0  # evaluations of the map per image
    steps_backward: float = 0.0  # products with J' per image
    rows_forward: int = 0  # all of them
    rows_backward: int = 0

    def add(self, e: Evaluation, share: float) -> None:
        """Take in a batch that holds this share of the images."""
        self.loss += share * e.loss
        self.train_accuracy += share * e.correct / len(e.forward.steps)
        self.steps_forward += share * float(e.forward.steps.mean())
        self.steps_backward += share * float(e.backward.steps.mean())
        self.rows_forward += e.forward.rows_asked
        self.rows_backward += e.backward.rows_asked

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f} accuracy {self.train_accuracy:.4f} "
            f"forward {self.steps_forward:.1f} backward {self.steps_backward:.1f}"
        )


def train(
    train_set: Digits, test_set: Digits, settings: Settings, show: Callable[[Epoch], None]
) -> tuple[Parameters, list[Epoch]]:
    """-> (trained parameters, one :class:`Epoch` per epoch); ``show`` is called with each."""
    rng = np.random.default_rng(settings.seed)
    p = capped(Parameters.random(rng, settings.width, train_set.images.shape[1]), settings.cap)
    steps = descend(
        p,
        len(train_set),
        lambda p, rows: loss_and_gradients(p, train_set.images[rows], train_set.labels[rows], rtol=settings.rtol),
        epochs=settings.epochs,
        batch=settings.batch,
        rate=settings.rate,
        rng=rng,
        adjust=lambda p, evaluation, number: capped(p, settings.cap),
    )
    epochs, epoch = [], Epoch()
    for step in steps:
        p = step.p
        epoch.add(step.evaluation, step.share)
        if step.ends_epoch:
            epoch.test_accuracy = accuracy(p, test_set, rtol=settings.rtol)
            epochs.append(epoch)
            show(epoch)
            epoch = Epoch()
    return p, epochs


# -------------------------------------------------------------------------------------------------------- the report


@contextmanager
def progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """A function that shows an epoch: a moving bar in a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if not sys.stdout.isatty() or Console().is_dumb_terminal:
        done = iter(range(1, epochs + 1))
        yield lambda epoch: print(f"epoch {next(done):3}/{epochs} {epoch}", flush=True)
        return
    columns = (MofNCompleteColumn(), BarColumn(8), TextColumn("{task.fields[epoch]}"), TimeElapsedColumn())
    with Progress(*columns) as bar:  # 80 characters wide
        task = bar.add_task("", total=epochs, epoch="")
        yield lambda epoch: bar.update(task, advance=1, epoch=str(epoch))


def relative_residuals(p: Parameters, images: np.ndarray, z: np.ndarray) -> np.ndarray:
    """|f(z) - z| / |f(z)| of each row, measured anew by NumPy in float64."""
    W, x = p.W.astype(np.float64), injection(p, images).astype(np.float64)
    image = np.tanh(z @ W.T + x)
    relative: np.ndarray = np.linalg.norm(image - z, axis=1) / np.linalg.norm(image, axis=1)
    return relative


def how_rows_ended(solution: Solution) -> str:
    """Say that every row converged, or which did not."""
    count, failed = len(solution.status), np.flatnonzero(solution.status)
    if not len(failed):
        return f"every one of the {count:,} rows converged"
    shown = [f"row {row} {Status(solution.status[row]).name}" for row in failed[:20]]
    return f"{count - len(failed):,} of {count:,} rows converged; not: {', '.join(shown)}" + (
        f" and {len(failed) - 20} more" if len(failed) > 20 else ""
    )


def summary(p: Parameters, digits: Digits, final: Solution, epochs: list[Epoch], settings: Settings) -> str:
    """The lines at the end."""
    train_set, _ = split(digits)
    right = logits(p, final.value).argmax(1) == digits.labels
    worst = float(relative_residuals(p, digits.images, final.value).max())
    forward = sum(e.rows_forward for e in epochs) / len(epochs)
    backward = sum(e.rows_backward for e in epochs) / len(epochs)
    return f"""\
test accuracy {right[len(train_set) :].mean():.4f}
residuals     {how_rows_ended(final)}; the largest |f(z) - z| / |f(z)| is {worst:.3e}, asked for {settings.rtol:.0e}
evaluations   per epoch, rows asked: forward {forward:,.0f} ({forward / len(train_set):.1f} per image), \
backward {backward:,.0f} ({backward / len(train_set):.1f} per image)"""


# ------------------------------------------------------------------------------------------------------- the picture


def draw(p: Parameters, test_set: Digits, epochs: list[Epoch], settings: Settings) -> None:
    """Write the picture: the learning curve; residual against evaluations; evaluations per row.

    The last two show both methods on the trained map, in float64 and to a tighter tolerance than training asks for.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    exact = Parameters.each(np.float64, p)
    images = test_set.images.astype(np.float64)
    solutions = {
        name: equilibrium(exact, images, method=name.lower(), rtol=settings.rtol_picture, max_steps=1000, trace=True)
        for name in ("Picard", "Anderson")
    }
    style: Any = {
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e6e6",
        "legend.frameon": False,
        "figure.constrained_layout.wspace": 0.05,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(16.5, 5), layout="constrained")
        FigureCanvasAgg(figure)
        learning, residuals, steps = figure.subplots(1, 3)
        draw_learning(learning, epochs)
        draw_residuals(residuals, solutions, settings.rtol_picture)
        draw_steps(steps, solutions, settings.rtol_picture)
        figure.savefig(settings.out, dpi=150)


def colours() -> dict[str, str]:
    """Told apart with every kind of colour vision (Okabe and Ito 2008)."""
    return {"loss": "#D55E00", "accuracy": "#0072B2", "Picard": "#E69F00", "Anderson": "#0072B2"}


def draw_learning(axes: Any, epochs: list[Epoch]) -> None:
    """Training loss on a logarithmic axis; test accuracy on a second one."""
    colour, when = colours(), np.arange(1, len(epochs) + 1)
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.grid(False)
    axes.semilogy(when, [e.loss for e in epochs], "o-", ms=4, color=colour["loss"])
    right.plot(when, [100 * e.test_accuracy for e in epochs], "s-", ms=4, color=colour["accuracy"])
    axes.set_xlim(0, len(epochs) + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch (one pass over the 1,400 training images)")
    axes.set_ylabel("● training loss (nats per image)", color=colour["loss"])
    right.set_ylabel("■ test accuracy (% of 397 images)", color=colour["accuracy"])
    axes.set_title(
        f"{100 * epochs[-1].test_accuracy:.1f} % of unseen digits recognised after {counted(epochs, 'epoch')}"
    )


def draw_residuals(axes: Any, solutions: dict[str, Solution], rtol: float) -> None:
    """Residual against evaluations: the median of the rows, and the band that holds the middle 80 % of them."""
    for name, solution in solutions.items():
        relative = np.asarray(solution.trace) / np.linalg.norm(solution.value, axis=1)
        relative = np.maximum(np.nan_to_num(relative, nan=rtol), rtol)  # a row that has ended stays at the tolerance
        low, median, high = np.quantile(relative, [0.1, 0.5, 0.9], axis=1)
        when = np.arange(1, len(median) + 1)
        end = 1 + int(np.argmin(median))
        axes.fill_between(when, low, high, color=colours()[name], alpha=0.25, lw=0)
        axes.semilogy(when[:end], median[:end], color=colours()[name], lw=2.5, label=name)
    axes.axhline(rtol, color="black", lw=1.2, ls="--", label=f"converged: {power_of_ten(rtol)}")
    axes.set_ylim(rtol / 3, 3)
    axes.set_xlim(left=0)
    axes.set_xlabel("evaluations of the map (per image)")
    axes.set_ylabel("relative residual |f(z) − z| / |z*|")
    axes.legend(loc="upper right", title="median of the test images;\nshaded: 10th to 90th percentile")
    picard, anderson = (int(np.median(solutions[name].steps)) for name in ("Picard", "Anderson"))
    axes.set_title(f"Anderson arrives in {anderson} evaluations, Picard in {picard}")


def draw_steps(axes: Any, solutions: dict[str, Solution], rtol: float) -> None:
    """How many rows needed how many evaluations."""
    most = max(int(solution.steps.max()) for solution in solutions.values())
    for name, solution in solutions.items():
        label = f"{name}: {solution.steps.min()} to {solution.steps.max()}"
        axes.hist(solution.steps, np.arange(most + 2) - 0.5, color=colours()[name], alpha=0.8, label=label)
    axes.set_xlim(left=0)
    axes.margins(y=0.2)  # room for the legend
    axes.set_xlabel(f"evaluations of the map until converged to {power_of_ten(rtol)}")
    axes.set_ylabel("test images")
    axes.legend(loc="upper right")
    axes.set_title("Each image stops in its own time")


def power_of_ten(number: float) -> str:
    """The nearest one, typeset."""
    return f"$10^{{{round(math.log10(number))}}}$"


def counted(things: list[Any], noun: str) -> str:
    """'1 epoch', '2 epochs'."""
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


# ----------------------------------------------------------------------------------------------------------- the run


def packages_present() -> bool:
    """Whether what the demo needs beside NumPy can be imported."""
    try:
        for name in ("sklearn.datasets", "matplotlib.figure", "rich.progress"):
            import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def why_unwritable(out: Path) -> str | None:
    """What is wrong with the picture's path, if anything; leaves nothing behind."""
    if out.is_dir():
        return f"{str(out)!r} is a folder; expected a file name"
    if not out.parent.is_dir():
        return f"there is no folder {str(out.parent)!r}"
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        return f"{str(out)!r} given; expected a name that ends in .png, .pdf or .svg"
    try:
        with out.open("ab") if out.exists() else tempfile.TemporaryFile(dir=out.parent):
            return None
    except OSError as error:
        return f"{str(out)!r} cannot be written: {error.strerror}"


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """For a while, another number of threads for the solves, if it is given, and one for NumPy's products.

    Those are small: several threads gain nothing there, and cost many times over where the processor is shared.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

    before = num_threads()
    try:
        if number is not None:
            set_num_threads(number)
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        set_num_threads(before)


def run(settings: Settings) -> int:
    """Train, solve once more for every image, say what came of it, draw.

    Returns:
        An exit code: 0 if every row of the last solve converged; 1 if one did not, a package is missing or writing the
        picture failed; 2 if the picture's path is seen to be wrong beforehand.
    """
    began = time.perf_counter()
    if not packages_present():
        print('the demo needs scikit-learn, matplotlib and rich: pip install "deqcore[demo]"', file=sys.stderr)
        return 1
    if trouble := why_unwritable(settings.out):
        print(f"python -m deqcore demo: error: argument --out: {trouble}", file=sys.stderr)
        return 2
    digits = load_digits()
    train_set, test_set = split(digits)
    print(f"{len(train_set):,} images to train on, {len(test_set)} to test with, {settings.width} hidden units")
    print("loss and accuracy in training; forward, backward: solver steps per image", flush=True)
    with threads(settings.threads):
        started = time.perf_counter()
        with progress(settings.epochs) as show:
            p, epochs = train(train_set, test_set, settings, show)
        trained = time.perf_counter() - started
        final = equilibrium(p, digits.images, rtol=settings.rtol, on_failure="return")
        print(summary(p, digits, final, epochs, settings), flush=True)
        try:
            draw(p, test_set, epochs, settings)
        except OSError as error:  # the disk is full, or the folder has gone
            print(f"the picture {str(settings.out)!r} could not be written: {error.strerror}", file=sys.stderr)
            return 1
    print(f"time          {trained:.1f} s of training, {time.perf_counter() - began:.1f} s in all")
    print(f"picture       {settings.out}")
    return 0 if final.success else 1
