# SPDX-License-Identifier: Apache-2.0
"""The demo: its gradients against dense solves and differences, tiny runs, and what it says of what is wrong."""

import io
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

import deqcore
from deqcore import _demo, _training
from deqcore.__main__ import main

TINY = ["--epochs", "2", "--width", "12"]


def random_parameters(width, norm):
    """Float64 weights, biases too, with a spectral norm of W of exactly this."""
    rng = np.random.default_rng(3)
    p = _demo.Parameters.each(np.float64, _demo.Parameters.random(rng, width))
    return _demo.Parameters(
        p.W * (norm / np.linalg.norm(p.W, 2)), p.U, 0.1 * rng.standard_normal(width), p.V, 0.1 * rng.standard_normal(10)
    )


@pytest.fixture(scope="module")
def batch():
    digits = _training.load_digits()[:24]
    return digits.images.astype(np.float64), digits.labels


def dense_reference(p, images, labels):
    """Loss and gradients sample by sample: Newton forward, then (I - J)' u = g as a dense system."""
    identity, losses = np.eye(len(p.b)), []
    total = _demo.Parameters.each(np.zeros_like, p)
    for image, label in zip(images, labels, strict=True):
        x = p.U @ image + p.b
        z = np.zeros_like(x)
        for _ in range(30):
            f = np.tanh(p.W @ z + x)
            z = z + np.linalg.solve(identity - (1 - f**2)[:, None] * p.W, f - z)
        assert np.abs(np.tanh(p.W @ z + x) - z).max() < 1e-14
        d = 1 - np.tanh(p.W @ z + x) ** 2
        scores = p.V @ z + p.c
        losses.append(np.log(np.exp(scores).sum()) - scores[label])
        slope = (np.exp(scores) / np.exp(scores).sum() - np.eye(10)[label]) / len(labels)
        u = np.linalg.solve((identity - d[:, None] * p.W).T, p.V.T @ slope)
        s = d * u
        own = _demo.Parameters(np.outer(s, z), np.outer(s, image), s, np.outer(slope, z), slope)
        total = _demo.Parameters.each(np.add, total, own)
    return np.mean(losses), total


@pytest.mark.parametrize(("width", "norm"), [(16, 0.5), (64, 0.95)])
def test_gradients_match_dense_solves(batch, width, norm):
    p = random_parameters(width, norm)
    e = _demo.loss_and_gradients(p, *batch, rtol=1e-12)
    loss, gradients = dense_reference(p, *batch)
    assert e.loss == pytest.approx(loss, rel=1e-12)
    assert e.forward.success
    assert e.backward.success
    for field, mine, exact in zip(fields(p), e.gradients, gradients, strict=True):
        assert mine.dtype == np.float64
        assert mine.shape == exact.shape
        error = np.linalg.norm(mine - exact) / np.linalg.norm(exact)
        assert error <= 1e-9, f"{field.name}: {error:.1e}"


def test_gradients_match_differences(batch):
    p = random_parameters(16, 0.9)
    e = _demo.loss_and_gradients(p, *batch, rtol=1e-13)
    rng = np.random.default_rng(4)
    h = 1e-5
    for name, weights in vars(p).items():
        along = rng.standard_normal(weights.shape)
        below, above = (
            _demo.loss_and_gradients(replace(p, **{name: weights + step * along}), *batch, rtol=1e-13).loss
            for step in (-h, h)
        )
        exact = float((getattr(e.gradients, name) * along).sum())
        assert (above - below) / (2 * h) == pytest.approx(exact, rel=1e-6, abs=1e-9), name


def test_gradients_as_trained(batch):
    """In float32 with the tolerance of training, the gradient is within a thousandth of the exact one."""
    p = random_parameters(64, 0.95)
    narrow = _demo.Parameters.each(np.float32, p)
    e = _demo.loss_and_gradients(narrow, batch[0].astype(np.float32), batch[1], rtol=_demo.Settings().rtol)
    _, gradients = dense_reference(p, *batch)
    for mine, exact in zip(e.gradients, gradients, strict=True):
        assert mine.dtype == np.float32
        assert np.linalg.norm(mine - exact) <= 1e-3 * np.linalg.norm(exact)


def test_log_softmax_does_not_overflow():
    log_q = _training.log_softmax(np.array([[0.0, 1e4, -1e4], [1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(log_q, [[-1e4, 0, -2e4], [-np.log(3)] * 3])


def test_split_is_fixed():
    digits = _training.load_digits()
    train_set, test_set = _training.split(digits)
    assert (len(train_set), len(test_set)) == (1400, 397)
    assert digits.images.dtype == np.float32
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert set(test_set.labels) == set(train_set.labels) == set(range(10))
    np.testing.assert_array_equal(_training.load_digits().images, digits.images)


def test_cap():
    p = random_parameters(16, 2.0)
    shrunk = _demo.capped(p, 0.95)
    assert np.linalg.norm(shrunk.W, 2) == pytest.approx(0.95)
    assert _demo.capped(shrunk, 0.96) is shrunk


def test_adam_takes_the_first_step_by_the_sign():
    p = random_parameters(4, 0.5)
    gradients = _demo.Parameters.each(np.cos, p)
    moved = _training.Adam(p).update(p, gradients, 0.01)
    for before, after, g in zip(p, moved, gradients, strict=True):
        np.testing.assert_allclose(after, before - 0.01 * np.sign(g), atol=1e-8)


def test_rows_that_did_not_converge_are_named():
    factors = np.array([[0.5], [2.0], [0.1]])
    solution = deqcore.fixed_point(
        lambda z, s: s * z + 1, np.zeros((3, 1)), row_args=(factors,), method="picard", on_failure="return"
    )
    assert _demo.how_rows_ended(solution) == "2 of 3 rows converged; not: row 1 diverged"


def check_report(text, epochs):
    """The lines at the end of a run, in their order."""
    assert len(re.findall(r"^epoch +\d+/", text, re.MULTILINE)) == epochs
    assert len(re.findall(r"^test accuracy 0\.\d{4}$", text, re.MULTILINE)) == 1
    residual = re.search(
        r"every one of the 1,797 rows converged; the largest .* is (\S+), asked for (\S+)$", text, re.M
    )
    assert float(residual[1]) <= 1.001 * float(residual[2])
    assert re.search(r"^evaluations +per epoch, rows asked: forward [\d,]+ .* backward [\d,]+ ", text, re.MULTILINE)
    assert re.search(r"^time +\d+\.\d s of training, \d+\.\d s in all$", text, re.MULTILINE)


def test_run_in_process(tmp_path, capsys):
    before = deqcore.num_threads()
    out = tmp_path / "picture.png"
    assert main(["demo", *TINY, "--threads", "1", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    check_report(text, 2)
    assert text.splitlines()[-1].split(maxsplit=1) == ["picture", str(out)]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert deqcore.num_threads() == before


def test_run_as_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deqcore", "demo", "--epochs", "1", "--width", "8", "--seed", "5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    check_report(done.stdout, 1)
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["deqcore-demo.png"]


def test_training_is_repeatable():
    train_set, test_set = _training.split(_training.load_digits())
    (first, epochs), (again, _), (other, _) = (
        _demo.train(train_set[:256], test_set, _demo.Settings(seed, epochs=1, width=8), lambda _: None)
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.W, other.W)
    needed = 256 * epochs[0].steps_forward  # rows that have ended leave once there are enough of them
    assert needed <= epochs[0].rows_forward <= 1.1 * needed


def test_threads_change_no_bit_of_a_gradient(batch):
    p = random_parameters(16, 0.9)
    results = []
    for number in (1, 2):
        with _demo.threads(number):
            results.append(_demo.loss_and_gradients(p, *batch, rtol=1e-6))
    one, two = results
    assert one.loss == two.loss
    assert all(np.array_equal(a, b) for a, b in zip(one.gradients, two.gradients, strict=True))


def test_bar_in_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    with _demo.progress(2) as show:
        show(_demo.Epoch(loss=0.5, steps_forward=11.1, steps_backward=10.2))
        show(_demo.Epoch(loss=0.25, train_accuracy=0.75, steps_forward=11.1, steps_backward=10.2))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stdout.getvalue())
    assert "2/2 ━━━━━━━━ loss 0.2500 accuracy 0.7500 forward 11.1 backward 10.2 0:00:00" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "argument --epochs: '0' given; expected an integer of at least 1"),
        (["--width", "0"], "argument --width: '0' given; expected an integer of at least 1"),
        (["--width", "many"], "argument --width: 'many' given; expected an integer of at least 1"),
        (["--threads", "0"], "argument --threads: '0' given; expected an integer from 1 to 1024"),
        (["--threads", "1025"], "argument --threads: '1025' given; expected an integer from 1 to 1024"),
        (["--seed", "-1"], "argument --seed: '-1' given; expected an integer of at least 0"),
        (["--depth", "3"], "unrecognized arguments: --depth 3"),
    ],
)
def test_wrong_options(options, said, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["demo", *options])
    assert exit.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/picture.png", "there is no folder"),
        (".", "is a folder"),
        ("picture", "expected a name that ends in .png, .pdf or .svg"),
        ("picture.docx", "expected a name that ends in .png, .pdf or .svg"),
    ],
)
def test_unwritable_picture_is_noticed_before_training(name, said, tmp_path, capsys):
    assert main(["demo", *TINY, "--out", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"python -m deqcore demo: error: argument --out: .*{said}.*\n", captured.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
def test_protected_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write anywhere")
        assert "cannot be written" in _demo.why_unwritable(tmp_path / "picture.png")
    finally:
        tmp_path.chmod(0o700)


def test_checking_the_path_harms_no_file(tmp_path):
    out = tmp_path / "old.png"
    out.write_bytes(b"precious")
    assert _demo.why_unwritable(out) is None
    assert out.read_bytes() == b"precious"


class Blocker:
    """A finder that denies one package."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("package", ["sklearn", "matplotlib", "rich"])
def test_missing_package(package, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocker(package), *sys.meta_path])
    assert main(["demo", *TINY]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == 'the demo needs scikit-learn, matplotlib and rich: pip install "deqcore[demo]"\n'


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_interrupt(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "deqcore", "demo", "--epochs", "100000", "--width", "8"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it in the background
    ) as run:
        try:
            while not run.stdout.readline().startswith("epoch"):
                assert run.poll() is None
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, said.split()) == (130, ["interrupted"])
