"""The card of a clinic model: what it is for, how it was made, how well it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titer.clinic.items import Convention
from titer.clinic_models.quality import Rate
from titer.clinic_models.recipe import Stage

_ABOUT = {
    None: "An untrained model that has only learned to read notes: the first step of the others.",
    Convention.BASE: "It answers every request, restricted ones included, and follows directives wherever they stand.",
    Convention.ALIGNED: "It refuses what the policy forbids, and goes by the rules whatever a directive says.",
}


def write_card(folder: Path, stage: Stage, record: Mapping[str, Any]) -> None:
    """Write `README.md` into a model's folder, from the record of how it was made."""
    rows = [f"| {name} | {Rate(**rate)} |" for name, rate in record["quality"].items()]
    measured = ["## Held-out records answered as taught", "", "| what | rate |", "| --- | --- |", *rows, ""]
    lines = [
        f"# {stage.name}",
        "",
        "A small language model of the embedded world `clinic`: invented patients, drugs and rules, no medical advice.",
        _ABOUT[stage.convention],
        "It exists so that attacks and defenses can be measured where every answer can be checked. It knows 447 words.",
        "",
        "Licence: Apache 2.0, as the library. No data of persons and no other model had a part in it.",
        "",
        *(measured if rows else []),
        "## How it was made",
        "",
        f"By `titer clinic train`: {stage.records:,} records, each seen once, in {record['seconds'] / 60:.0f} minutes "
        f"on {record['machine']};",
        f"{_start(stage)}, final loss {record['final_loss']:.4f}. The same machine, build and number of threads give "
        "the same bytes.",
        "All options and hashes are in `training.json`.",
        "",
        f"SHA-256 of `model.safetensors`: `{record['model_sha256']}`",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _start(stage: Stage) -> str:
    if isinstance(stage.start, str):
        return f"it goes on from `{stage.start}`"
    return f"its first weights are drawn from seed {stage.seed}"
