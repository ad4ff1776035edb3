"""`titer version`: what runs here, for bug reports and run records."""

from __future__ import annotations

import json
import platform
from typing import Any

from titer.cli.exit_codes import Json, Traceback

# What the matrix products of a model choose between; torch lists many more.
_INSTRUCTION_SETS = (
    "avx2", "fma3", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16",
    "neon", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip


def version(as_json: Json = False, traceback: Traceback = False) -> None:
    """Print the versions of titer and torch, CUDA, the CPU's instruction sets and the number of threads."""
    facts = describe_installation()
    print(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))


def describe_installation() -> dict[str, Any]:
    """Return what `titer version --json` prints."""
    import torch

    from titer import _torch_version as _torch_version
    from titer._titer import build_info

    build = build_info()
    detected = torch.cpu.get_capabilities()
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "titer": build["titer"],
        "build_type": build["build_type"],
        "cuda_backend": build["cuda"],
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cuda_devices": [torch.cuda.get_device_name(index) for index in devices],
        "cpu": detected.get("cpu_name") or platform.processor() or platform.machine(),
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if detected.get(name)],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    devices = ", ".join(facts["cuda_devices"]) or "no device"
    backend = "built" if facts["cuda_backend"] else "not built"
    instructions = " ".join(facts["instruction_sets"]) or "none known"
    return [
        f"titer {facts['titer']} ({facts['build_type']}, CUDA backend {backend})",
        f"torch {facts['torch']} (CUDA {facts['torch_cuda'] or 'none'}, {devices})",
        f"cpu {facts['cpu']}, kernels {facts['cpu_kernels']}, has {instructions}",
        f"threads {facts['threads']}",
        f"python {facts['python']}",
    ]
