# SPDX-License-Identifier: Apache-2.0
"""Importing the package: light, quiet, quick; and what happens after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest


def python(code: str, *flags: str, **environment: str) -> str:
    """Run the code in a fresh interpreter; -> what it printed."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_import_needs_numpy_alone():
    loaded = python(
        """
        import sys
        before = set(sys.modules)
        import deqcore
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(*sorted(new - set(sys.stdlib_module_names)))
        """
    ).split()
    assert set(loaded) <= {"deqcore", "numpy", "_distutils_hack", "__mp_main__"}


def test_optional_packages_stay_unloaded_through_a_solve():
    loaded = python(
        """
        import sys
        import numpy as np, deqcore
        z = deqcore.fixed_point(np.cos, np.zeros((2, 3))).value
        layer = deqcore.maps.Dense(np.eye(3) * 0.5)
        z = deqcore.fixed_point(layer, z, row_args=(z,)).value
        deqcore.adjoint(layer, z, z, row_args=(z,))
        optional = ("scipy", "torch", "cupy", "jax", "matplotlib", "rich", "tqdm", "sklearn", "hypothesis", "pytest")
        print(*(name for name in optional if name in sys.modules))
        """
    )
    assert loaded == ""


@pytest.mark.parametrize("flags", [("-W", "error"), ("-X", "dev", "-W", "error"), ("-O", "-O"), ("-b", "-b")], ids=str)
def test_import_is_quiet_under_strict_flags(flags):
    assert python("import deqcore; print(deqcore.__version__)", *flags).count(".") == 2


def test_import_is_quick_once_numpy_is_there():
    """The least of three, and a generous bound: the machines that run this are busy."""
    seconds = min(
        float(
            python(
                """
                import time
                import numpy
                start = time.perf_counter()
                import deqcore
                print(time.perf_counter() - start)
                """
            )
        )
        for _ in range(3)
    )
    assert seconds < 0.3


def test_import_starts_no_thread():
    count = python(
        """
        import os
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        import numpy
        before = len(os.listdir("/proc/self/task"))
        import deqcore
        print(len(os.listdir("/proc/self/task")) - before)
        """
    )
    assert count == "0"


def test_the_environment_sets_the_default_number_of_threads():
    code = "import deqcore; print(deqcore.num_threads())"
    assert python(code, DEQCORE_NUM_THREADS="3") == "3"
    assert int(python(code, DEQCORE_NUM_THREADS="nonsense")) >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("before", [True, False], ids=["after a solve", "before any solve"])
def test_native_solves_work_in_a_forked_child(before):
    """The parent's threads do not exist in the child; an alarm ends a child that waits for them."""
    printed = python(
        f"""
        import os, signal
        import numpy as np, deqcore
        rng = np.random.default_rng(0)
        W = rng.standard_normal((96, 96)) * 0.05
        x = rng.standard_normal((300, 96))
        layer = deqcore.maps.Dense(W)
        def solve():
            z = deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,), threads=2).value
            u = deqcore.adjoint(layer, z, z, row_args=(x,), threads=2).value
            return z.tobytes() + u.tobytes()
        if {before}:
            for _ in range(3):
                solve()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            mine = solve()
            grandchild = os.fork()
            if grandchild == 0:
                signal.alarm(20)
                os._exit(0 if solve() == mine else 1)
            os._exit(0 if os.waitpid(grandchild, 0)[1] == 0 and solve() == mine else 1)
        expected = solve()
        print(os.waitpid(child, 0)[1], solve() == expected)
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert printed == "0 True"


def test_native_solves_work_in_a_process_pool():
    printed = python(
        """
        import multiprocessing as mp
        import numpy as np, deqcore
        def work(seed):
            rng = np.random.default_rng(seed)
            layer = deqcore.maps.Dense(rng.standard_normal((80, 80)) * 0.05)
            x = rng.standard_normal((200, 80))
            return deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,), threads=2)
        work(0)
        with mp.get_context("fork").Pool(2) as pool:
            there = pool.map(work, range(4))
        print(all(s.value.tobytes() == work(i).value.tobytes() for i, s in enumerate(there)))
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert printed == "True"


def test_exit_is_clean_with_a_daemon_thread_still_solving():
    """The workers may outlive the interpreter's teardown, but nothing crashes."""
    printed = python(
        """
        import threading
        import numpy as np, deqcore
        layer = deqcore.maps.Dense(np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0], "identity")
        def forever():
            deqcore.fixed_point(layer, np.ones((100, 64)), row_args=(np.ones(64),), method="picard", rtol=1e-14,
                                max_steps=2**31 - 1, threads=2, on_failure="return")
        threading.Thread(target=forever, daemon=True).start()
        import time
        time.sleep(0.2)
        print("done")
        """
    )
    assert printed == "done"
