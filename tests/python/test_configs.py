"""The configuration files that people run are complete and say the defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from titer import attacks

CONFIGS = Path(__file__).parents[2] / "configs"
ATTACKS = {"gcg": attacks.GCG}


def test_every_attack_has_a_config_and_every_config_an_attack() -> None:
    assert {file.stem for file in (CONFIGS / "attack").iterdir()} == set(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_config_names_every_option_in_order_and_equals_the_defaults(name: str) -> None:
    attack: Any = ATTACKS[name]
    file = CONFIGS / "attack" / f"{name}.yaml"
    keys = re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert keys == [option["name"] for option in attack.describe()]
    assert attack.from_config(file).options == attack().options


@pytest.mark.parametrize("name", ATTACKS)
def test_config_comments_name_the_unit_of_every_option(name: str) -> None:
    attack: Any = ATTACKS[name]
    text = (CONFIGS / "attack" / f"{name}.yaml").read_text(encoding="utf-8")
    blocks = re.findall(r"((?:^#.*\n)+)(\w+):", text, re.MULTILINE)
    comments = {key: " ".join(re.findall(r"\w+", lines)) for lines, key in blocks}
    for option in attack.describe():
        assert option["name"] in comments
        if option["unit"]:
            assert f"Unit {option['unit']}" in comments[option["name"]], option["name"]
