# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m deqcore info`` and ``python -m deqcore demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from . import __version__
from ._demo import Settings, run
from ._info import info

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; -> the exit code. Wrong options exit with 2, Ctrl-C with 130."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "demo":
            chosen = {field.name: getattr(options, field.name) for field in fields(Settings) if field.name in options}
            return run(Settings(**chosen))
        print(info())
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deqcore",
        description="Solvers for deep equilibrium models and other implicit layers.",
        epilog="'python -m deqcore demo --help' lists the demo's options.",
    )
    parser.add_argument("--version", action="version", version=f"deqcore {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser(
        "info",
        help="say what is installed and how it was built",
        description="Version, build, backends, threads, instruction set, and the optional packages found.",
    )
    default = Settings()
    demo = commands.add_parser(
        "demo",
        help="train a classifier of handwritten digits, in seconds",
        description="Train an equilibrium classifier z* = tanh(W z* + U x + b) on scikit-learn's handwritten digits, "
        "forward by Anderson acceleration and backward by implicit differentiation, without a deep-learning "
        'framework. Needs scikit-learn, matplotlib and rich: pip install "deqcore[demo]".',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--seed", type=_integer(0), default=default.seed, help="of the first weights and the batches")
    demo.add_argument("--epochs", type=_integer(1), default=default.epochs, help="passes over the training images")
    demo.add_argument("--width", type=_integer(1), default=default.width, help="units of the hidden state")
    demo.add_argument(
        "--threads", type=_integer(1, 1024), default=argparse.SUPPRESS, help="of the solves (default: as 'info' says)"
    )
    demo.add_argument("--out", type=Path, default=default.out, metavar="FILE", help="the picture to write")
    return parser


def _integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """An option's type: an integer in a range."""
    expected = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text!r} given; expected {expected}")
        return value

    return integer


if __name__ == "__main__":
    sys.exit(main())
