"""nanoGCG itself on a model that exists in memory only: written as a Hugging Face folder once, read by its process."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from invented_tokenizer import SPECIAL_TOKENS
from peers.nanogcg_peer import NAME, StepRequest, run_steps
from plain_llama import PlainLlama
from titer.models import cache_folder


def is_installed() -> bool:
    """Whether nanoGCG lies where `peers.nanogcg_peer.install` would put it."""
    return (cache_folder() / "peers" / NAME).is_dir()


class InstalledNanoGcg:
    """Whole steps of nanoGCG on a module; use as a context, which removes the folder at its end."""

    def __init__(self, module: PlainLlama, tokenizer_json: str, *, device: str, search_width: int) -> None:
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="titer-bench-", dir=memory if memory.is_dir() else None))
        self._device, self._search_width = device, search_width
        state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
        self._dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
        save_file(state, self._folder / "model.safetensors", metadata={"format": "pt"})
        bos, eos = SPECIAL_TOKENS
        texts = {
            "config.json": module.config.to_json_string(),
            "tokenizer.json": tokenizer_json,
            "tokenizer_config.json": json.dumps({"bos_token": bos, "eos_token": eos}),
        }
        for name, text in texts.items():
            (self._folder / name).write_text(text, encoding="utf-8")

    def __enter__(self) -> InstalledNanoGcg:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def steps(self, text: str, target: str, initial: str, *, num_steps: int, batch_size: int | None) -> dict[str, Any]:
        """What `run_steps` gives for a text that holds `{optim_str}`."""
        return run_steps(
            StepRequest(
                folder=str(self._folder),
                messages=[{"role": "user", "content": text}],
                target=target,
                optim_str_init=initial,
                num_steps=num_steps,
                search_width=self._search_width,
                batch_size=batch_size,
                dtype=self._dtype,
                device=self._device,
            )
        )
