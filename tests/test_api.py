"""The public API: what docs/api.md lists is what the packages export, and each of it says what it is."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import FunctionType

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
PACKAGES = ("kubebraid.client", "deltalog")
METHODS = (FunctionType, classmethod, staticmethod, property)


def listed(package: str) -> list[str]:
    """The names in the tables of a package's section."""
    section = PAGE.split(f"## {package}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_page_has_a_section_for_each_package() -> None:
    assert tuple(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_lists_what_is_exported(package: str) -> None:
    exported = importlib.import_module(package).__all__
    names = set(listed(package))
    assert names == set(exported)
    assert sorted(set(exported)) == sorted(exported), "each name once"


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_exported_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{package}.{name}"
            if inspect.isclass(value):
                for public, member in vars(value).items():
                    if not public.startswith("_") and isinstance(member, METHODS):
                        assert inspect.getdoc(member), f"{package}.{name}.{public}"


def test_modules_export_what_their_package_does() -> None:
    client = importlib.import_module("kubebraid.client")
    parts = [importlib.import_module(f"kubebraid.client.{name}") for name in ("many_clusters", "replica")]
    assert sorted(client.__all__) == sorted(name for part in parts for name in part.__all__)
    for part in parts:
        for name in part.__all__:
            assert getattr(client, name) is getattr(part, name)
