# SPDX-License-Identifier: Apache-2.0
"""Compile every CUDA kernel with warnings as errors and print its registers and spills; a spill is an error.

python tests/device/check_kernels.py [--architectures 80-real;90]     needs nvcc, and no GPU
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.building import ROOT, configure_and_build, program, run

BUILD = ROOT / "build" / "kernels"


class Kernel(NamedTuple):
    name: str
    dtype: str
    architecture: str
    registers: int
    stack: int
    spills: int


def kernels(said: str) -> list[Kernel]:
    """What ptxas said of each kernel."""
    found = []
    for entry in re.split(r"Compiling entry function ", said)[1:]:
        mangled, architecture = re.findall(r"'([^']+)'", entry)[:2]
        name = re.search(r"RKNS_\d+([A-Za-z]+)I", mangled)
        dtype = re.search(r"(?:3run|4push|3mix)I([fd])", mangled)
        stack, stores, loads = map(
            int, re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry)[0]
        )
        found.append(
            Kernel(
                name.group(1) if name else mangled,
                {"f": "float32", "d": "float64"}[dtype.group(1)] if dtype else "",
                architecture,
                int(re.findall(r"Used (\d+) registers", entry)[0]),
                stack,
                stores + loads,
            )
        )
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Registers and spills of the CUDA kernels.")
    parser.add_argument("--architectures", help="as CMAKE_CUDA_ARCHITECTURES; default: those of a release")
    architectures = parser.parse_args().architectures
    options = ["-DDEQCORE_CUDA=ON", "-DDEQCORE_TESTS=OFF", "-DDEQCORE_WARNINGS_AS_ERRORS=ON"]
    if architectures:
        options.append(f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
    # only a compilation tells, so nothing may be left over from an earlier one
    configure_and_build(ROOT, BUILD, *options, "-DCMAKE_CUDA_FLAGS=-Xptxas=-v", target="help")
    said = run(program("cmake"), "--build", BUILD, "--clean-first", "--target", "deqcore")
    found = kernels(said)
    print(f"{'kernel':<18}{'dtype':<9}{'code':<7}{'registers':>9}{'stack':>7}{'spilled':>9}")
    for kernel in found:
        print("{:<18}{:<9}{:<7}{:>9}{:>7}{:>9}".format(*kernel))
    spilled = [kernel for kernel in found if kernel.spills]
    print(f"{len(found)} kernels, most registers {max(k.registers for k in found)}, {len(spilled)} that spill")
    return 1 if spilled or not found else 0


if __name__ == "__main__":
    sys.exit(main())
