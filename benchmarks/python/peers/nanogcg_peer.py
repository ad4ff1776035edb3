"""Installs nanoGCG 0.3.0 with the transformers release it needs, and runs it in a process of its own.

nanoGCG works with transformers up to 4.47.1 only, so both live in `~/.cache/titer/peers/nanogcg-0.3.0` (about 120 MB)
instead of the environment; torch and numpy come from the environment. Nothing of nanoGCG is changed: the runner scripts
time and call its own functions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from titer.models import cache_folder

NAME = "nanogcg-0.3.0"
REQUIREMENTS = [
    "nanogcg==0.3.0",
    "transformers==4.47.1",
    "tokenizers==0.21.4",
    "huggingface-hub==0.36.2",
    "requests==2.32.3",
    "urllib3==2.2.3",
    "idna==3.10",
    "certifi==2024.8.30",
    "charset-normalizer==3.4.0",
]


@dataclass(frozen=True)
class StepRequest:
    """One nanoGCG run. The fields after `target` have nanoGCG's names and defaults, except for the number of steps."""

    folder: str
    messages: list[dict[str, str]]  # one of them holds `{optim_str}`
    target: str
    optim_str_init: str = "x x x x x x x x x x x x x x x x x x x x"
    num_steps: int = 2
    search_width: int = 512
    batch_size: int | None = None
    topk: int = 256
    n_replace: int = 1
    use_prefix_cache: bool = True
    filter_ids: bool = True
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    threads: int | None = None  # None keeps torch's choice


@dataclass(frozen=True)
class ParityRequest:
    """What nanoGCG's own functions are asked about fixed inputs."""

    folder: str
    tensors: dict[str, torch.Tensor]
    """`before_ids` [P], `after_ids` [A], `target_ids` [T], `slot_ids` [S], `candidates` [B, S], all int64, and
    optionally `gradient` [S, V] float32, whose top-k sets are wanted instead of those of nanoGCG's own gradient."""
    topk: int = 256
    batch_size: int | None = None
    use_mellowmax: bool = False
    mellowmax_alpha: float = 1.0
    use_prefix_cache: bool = True
    allow_non_ascii: bool = False
    dtype: str = "float32"
    threads: int | None = None


def install() -> Path:
    """Return the folder that holds nanoGCG, installing it first if it is not there.

    Raises
    ------
    ConnectionError
        If pip cannot fetch the packages.
    """
    peers = cache_folder() / "peers"
    final = peers / NAME
    if final.is_dir():
        return final
    peers.mkdir(parents=True, exist_ok=True)
    with FileLock(peers / f".{NAME}.lock"):
        if final.is_dir():
            return final
        print(f"[peers] installing {NAME}", file=sys.stderr, flush=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{NAME}.", dir=peers))
        try:
            command = [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--quiet"]
            command += ["--disable-pip-version-check", "--target", str(partial / NAME), *REQUIREMENTS]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise ConnectionError(f"[peers] pip could not install {NAME}: {done.stderr.strip()}")
            (partial / NAME).rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def run_steps(request: StepRequest) -> dict[str, Any]:
    """Run `num_steps` real nanoGCG steps and return what they took.

    Returns
    -------
    dict
        `steps`: one entry per step with `seconds`, its parts `gradient`, `sampling`, `filter` and `scoring` in seconds,
        `candidates` scored and the best `loss`; `initial_loss`; `peak_bytes_beyond_model`: growth of the peak resident
        memory (VmHWM), or on a GPU of what torch allocates, over what the loaded model and libraries hold; `strings`:
        the slot after each step;
        `before_ids`, `after_ids`, `target_ids`, `slot_ids`: the prompt as nanoGCG tokenised it; `versions`.
    """
    with tempfile.TemporaryDirectory(prefix="titer-peer-") as scratch:
        result = Path(scratch, "result.json")
        _run("nanogcg_step.py", asdict(request), Path(scratch), [str(result)])
        content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return content


def run_parity(request: ParityRequest) -> dict[str, torch.Tensor]:
    """Ask nanoGCG's functions about fixed candidates and gradients.

    Returns
    -------
    dict
        `losses` [B] float32 (nats); `token_gradient` [S, V] float32 at `slot_ids`; `topk_ids` [S, topk] int64, the ids
        that `sample_ids_from_grad` draws from, best first; `banned_ids` int64; `survives_filter` [B] bool.
    """
    with tempfile.TemporaryDirectory(prefix="titer-peer-") as scratch:
        inputs, outputs = Path(scratch, "inputs.safetensors"), Path(scratch, "outputs.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in request.tensors.items()}, inputs)
        options = {key: value for key, value in vars(request).items() if key != "tensors"}
        _run("nanogcg_parity.py", options, Path(scratch), [str(inputs), str(outputs)])
        return load_file(outputs)


def _run(script: str, request: dict[str, Any], scratch: Path, arguments: list[str]) -> None:
    """Run a script of this folder on a request; its last lines of stderr tell why if it fails."""
    request_file = scratch / "request.json"
    request_file.write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name(script)), str(request_file), *arguments]
    # Not added to the caller's PYTHONPATH: only the peer and the environment may be importable.
    environment = os.environ | {"PYTHONPATH": str(install()), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"[peers] {script} exited with {done.returncode}:\n{done.stderr[-4000:]}")
