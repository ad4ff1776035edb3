"""The examples in docstrings run, on a tiny model that they call `model_folder`."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

MODULES = ["titer.chat"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tiny_folder: Path) -> None:
    results = doctest.testmod(importlib.import_module(name), extraglobs={"model_folder": tiny_folder})
    assert results.attempted > 0
    assert results.failed == 0
