"""Tensor operations of the library as torch sees them: ``titer.ops.NAME`` is ``torch.ops.titer.NAME``.

Importing this module registers them. Arguments, shapes and sources are documented in the C++ headers
``titer/kernels/NAME.h``; those with a gradient follow autograd.

Examples
--------
>>> import torch, titer
>>> x, weight = torch.tensor([[3.0, 4.0]]), torch.ones(2)
>>> titer.ops.rms_norm(x, weight, 0.0, "wide")
tensor([[0.8485, 1.1314]])
>>> sorted(titer.ops.__all__)[:2]
['batched_lora', 'batched_lora_']
"""

from __future__ import annotations

import torch

# isort: off
from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer import _titer as _titer  # registers them
# isort: on

__all__ = [
    "batched_lora",
    "batched_lora_",
    "gated_activation",
    "linear",
    "linear_cross_entropy",
    "rms_norm",
    "rope",
    "shared_prefix_attention",
    "token_gradient_topk",
]

batched_lora = torch.ops.titer.batched_lora
batched_lora_ = torch.ops.titer.batched_lora_
gated_activation = torch.ops.titer.gated_activation
linear = torch.ops.titer.linear
linear_cross_entropy = torch.ops.titer.linear_cross_entropy
rms_norm = torch.ops.titer.rms_norm
rope = torch.ops.titer.rope
shared_prefix_attention = torch.ops.titer.shared_prefix_attention
token_gradient_topk = torch.ops.titer.token_gradient_topk
