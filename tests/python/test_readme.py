"""What README shows is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_cpp_example_is_the_consumer_that_the_install_test_builds() -> None:
    (example,) = re.findall(r"```cpp\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example == (ROOT / "tests" / "install" / "main.cpp").read_text(encoding="utf-8")
