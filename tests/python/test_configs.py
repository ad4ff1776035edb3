"""The configuration files that people run are complete and say the defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from titer import attacks, training

CONFIGS = Path(__file__).parents[2] / "configs"
# What a file's options are those of.
CONFIGURED: dict[str, Any] = {"attack/gcg": attacks.GCG, "train/finetune": training.FinetuneOptions}


def test_what_is_configured_has_a_file_and_every_file_is_of_something() -> None:
    files = {file.relative_to(CONFIGS).with_suffix("").as_posix() for file in CONFIGS.rglob("*.yaml")}
    assert files == set(CONFIGURED)


@pytest.mark.parametrize("name", CONFIGURED)
def test_config_names_every_option_in_order_and_equals_the_defaults(name: str) -> None:
    configured = CONFIGURED[name]
    file = CONFIGS / f"{name}.yaml"
    keys = re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert keys == [option["name"] for option in configured.describe()]
    assert configured.from_config(file).options == configured().options


@pytest.mark.parametrize("name", CONFIGURED)
def test_config_comments_name_the_unit_of_every_option(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    blocks = re.findall(r"((?:^#.*\n)+)(\w+):", text, re.MULTILINE)
    comments = {key: " ".join(re.findall(r"\w+", lines)) for lines, key in blocks}
    for option in CONFIGURED[name].describe():
        assert option["name"] in comments
        if option["unit"]:
            assert f"Unit {option['unit']}" in comments[option["name"]], option["name"]
