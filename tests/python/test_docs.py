# SPDX-License-Identifier: Apache-2.0
"""Every public name is documented, and every example runs; the pages' too that pytest is not pointed at."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import deqcore
from deqcore.systems import homoode

# The command line and the demo are no library; _core is compiled, and private.
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(deqcore.__path__, "deqcore.")
    if module.name.split(".")[-1] not in ("__main__", "_demo", "_core")
)
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (deqcore, deqcore.maps, deqcore.errors, homoode)
    for name in module.__all__
}
DOCUMENTED = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing) or inspect.isroutine(thing)}
METHODS = {
    f"{name}.{method.__name__}": method
    for name, thing in DOCUMENTED.items()
    if inspect.isclass(thing)
    for method in vars(thing).values()
    if inspect.isfunction(method) and not method.__name__.startswith("_")
}


@pytest.mark.parametrize("name", ["deqcore", *MODULES])
def test_the_examples_run(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("page", ["solvers.md"])
def test_the_examples_of_a_page_run(page):
    docs = Path(__file__).resolve().parents[2] / "docs"
    failed, tried = doctest.testfile(
        str(docs / page), module_relative=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_function_and_class_has_an_example(name):
    text = inspect.getdoc(DOCUMENTED[name])
    assert text
    assert "Example:\n" in text
    assert ">>> " in text


@pytest.mark.parametrize("name", METHODS)
def test_every_public_method_is_documented(name):
    assert inspect.getdoc(METHODS[name])


# Solves, and the methods they take.
SOLVES = [deqcore.fixed_point, deqcore.root, deqcore.adjoint, deqcore.tangent, deqcore.linear_solve]
WITH_OPTIONS = [*SOLVES, deqcore.check_gradient] + [
    thing for thing in DOCUMENTED.values() if inspect.isclass(thing) and issubclass(thing, deqcore.Method)
]


@pytest.mark.parametrize("function", WITH_OPTIONS)
def test_every_option_is_documented(function):
    arguments = inspect.getdoc(function).partition("Args:")[2]
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert f"{name}:" in arguments or f"{name}," in arguments, name


@pytest.mark.parametrize("name", ["deqcore", *MODULES])
def test_every_module_says_what_it_is(name):
    assert importlib.import_module(name).__doc__


def test_all_names_exist_once():
    for module in (deqcore, deqcore.maps, deqcore.errors):
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


def test_every_field_of_a_solution_is_documented():
    text = inspect.getdoc(deqcore.Solution)
    for name in deqcore.Solution.__dataclass_fields__:
        if not name.startswith("_"):
            assert f"\n    {name}: " in text, name
