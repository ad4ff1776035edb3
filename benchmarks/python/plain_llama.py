"""A llama in plain PyTorch, operation by operation what transformers 4.47.1 does, with random weights of any size.

It stands for transformers where a GPU machine lacks it: the same module is attacked by titer, which uses its tensors in
place, and by the re-stated nanoGCG. Parameters have the names of a Hugging Face checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer, `[B, Hkv, L, hd]`, keys rotated."""


@dataclass(frozen=True)
class LlamaConfig:
    """The keys of config.json that a llama has."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool
    model_type: str = "llama"
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    bos_token_id: int = 0
    eos_token_id: int = 1

    def to_json_string(self, use_diff: bool = False) -> str:
        """What `titer.load_model` asks of a module's configuration."""
        return json.dumps(asdict(self))


class PlainLlama(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = _Linear(config.hidden_size, config.vocab_size)

    def embed(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.model.embed_tokens.weight)

    def forward(self, x: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits `[B, L, V]` of all L rows of `x` `[B, L, d]` behind `past`, and the cache with them in it."""
        hidden, cache = self.model(x, past)
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return head(hidden), cache


def random_llama(config: LlamaConfig, *, device: str, dtype: torch.dtype, seed: int = 0) -> PlainLlama:
    """Weights are drawn on the device itself; matrices keep the scale of what they multiply."""
    with torch.device("meta"):
        module = PlainLlama(config)
    module = module.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(seed)
    for parameter in module.parameters():
        if parameter.dim() == 2:
            parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
        else:
            parameter.fill_(1.0)
    return module


class _Decoder(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = _Linear(config.hidden_size, config.vocab_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(config)

    def forward(self, x: Tensor, past: Cache | None) -> tuple[Tensor, Cache]:
        rows, cached = x.shape[1], past[0][0].shape[2] if past else 0
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        exponents = torch.arange(0, head_dim, 2, device=x.device).float() / head_dim
        frequencies = 1.0 / self.config.rope_theta**exponents
        positions = torch.arange(cached, cached + rows, device=x.device)
        angles = torch.cat([torch.outer(positions.float(), frequencies)] * 2, dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        mask = None
        if cached:
            hidden = torch.arange(cached + rows, device=x.device)[None, :] > positions[:, None]
            mask = torch.zeros(rows, cached + rows, dtype=x.dtype, device=x.device).masked_fill(hidden, -torch.inf)
        cache: Cache = []
        for index, layer in enumerate(self.layers):
            x, seen = layer(x, cos, sin, mask, past[index] if past else None)
            cache.append(seen)
        return self.norm(x), cache


class _Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = _Norm(config)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _Norm(config)
        self.mlp = _Mlp(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        attended, seen = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), seen


class _Attention(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        width = config.num_key_value_heads * self.head_dim
        self.q_proj = _Linear(config.hidden_size, config.hidden_size)
        self.k_proj = _Linear(config.hidden_size, width)
        self.v_proj = _Linear(config.hidden_size, width)
        self.o_proj = _Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        # Key heads are repeated as in transformers: SDPA's fused kernels take no mask and fewer key heads together.
        every_k, every_v = (t.repeat_interleave(self.group, dim=1) if self.group > 1 else t for t in (k, v))
        out = functional.scaled_dot_product_attention(q, every_k, every_v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).flatten(2)), (k, v)


class _Mlp(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = _Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = _Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = _Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Linear(nn.Module):
    """A matrix `[columns, rows]` without the values that torch would draw for it."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(columns, rows))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


class _Norm(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin
