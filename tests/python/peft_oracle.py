"""Fine-tuning with transformers, PEFT and torch's optimizers, without padding."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, get_scheduler

from finetune_cases import OPTIONS, Factors, Run, Sequences
from transformers_oracle import forget_growth


def train_adapter(module: PreTrainedModel, run: Run, first: Factors) -> tuple[list[float], Factors]:
    """Train an adapter that begins with `first`, in the order of the data; return losses and the adapter."""
    options = {"use_rslora": False, "target_modules": "all-linear"} | OPTIONS | run.options
    base = copy.deepcopy(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how GPT-2 stores its weights
        peft = get_peft_model(
            base,
            LoraConfig(
                r=options["lora_rank"],
                lora_alpha=options["lora_alpha"],
                use_rslora=options["use_rslora"],
                target_modules=options["target_modules"],
                task_type="CAUSAL_LM",
            ),
        )
    learned = {name: parameter for name, parameter in peft.named_parameters() if parameter.requires_grad}
    factors = {
        name: tuple(learned.pop(f"base_model.model.{name}.lora_{part}.default.weight") for part in "AB")
        for name in first
    }
    assert not learned, "PEFT and titer train the same layers"
    with torch.no_grad():
        for name, start in first.items():
            for factor, values in zip(factors[name], start, strict=True):
                factor.copy_(values)
    parameters = [factor for pair in factors.values() for factor in pair]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=options["learning_rate"],
        weight_decay=options.get("weight_decay", 0.0),
        eps=options.get("adam_epsilon", 1e-8),
    )
    losses = train(base, run, parameters, [optimizer])
    return losses, {name: (a.detach(), b.detach()) for name, (a, b) in factors.items()}


def train(
    module: PreTrainedModel, run: Run, parameters: list[torch.Tensor], optimizers: list[torch.optim.Optimizer]
) -> list[float]:
    """Train parameters of a module, which changes; return the loss of every step."""
    options = (
        {"lr_schedule": "linear", "warmup_steps": 0, "num_epochs": 1, "max_grad_norm": 1.0} | OPTIONS | run.options
    )
    name = {"constant": "constant_with_warmup"}.get(options["lr_schedule"], options["lr_schedule"])
    batches = list(_batches(run.data, options["batch_size"])) * options["num_epochs"]
    schedules = [get_scheduler(name, one, options["warmup_steps"], len(batches)) for one in optimizers]
    losses = []
    for batch in batches:
        losses.append(_backward(module, batch))
        torch.nn.utils.clip_grad_norm_(parameters, options["max_grad_norm"])
        for one in [*optimizers, *schedules]:
            one.step()
        module.zero_grad()
    return losses


def _batches(data: Sequences, size: int) -> Iterator[Sequences]:
    return (data[i : i + size] for i in range(0, len(data), size))


def _backward(module: PreTrainedModel, batch: Sequences) -> float:
    """Add the gradients of the mean loss of the answers' tokens, which is returned."""
    tokens = sum(end - begin for _, answers in batch for begin, end in answers)
    total = 0.0
    same_length = len({len(ids) for ids, _ in batch}) == 1
    for part in [batch] if same_length else [[one] for one in batch]:  # so nothing is padded
        forget_growth(module)
        ids = torch.tensor([ids for ids, _ in part])
        learned = [(i, t) for i, (_, answers) in enumerate(part) for begin, end in answers for t in range(begin, end)]
        row, column = torch.tensor(learned).T
        logits = module(ids, use_cache=False).logits[row, column - 1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[row, column], reduction="sum")
        (loss / tokens).backward()
        total += loss.item()
    return total / tokens


class ExactMuon(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon) in float64."""

    def __init__(self, params: list[torch.Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self) -> None:
        group = self.param_groups[0]
        for parameter in group["params"]:
            gradient = parameter.grad.double()
            state = self.state[parameter]
            mean = state["mean"] = torch.lerp(
                state.get("mean", torch.zeros_like(gradient)), gradient, 1 - group["momentum"]
            )
            direction = orthogonalised(torch.lerp(gradient, mean, group["momentum"]))
            rows, columns = parameter.shape
            size = max(1.0, rows / columns) ** 0.5
            with torch.no_grad():
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * size * direction)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Five steps of the quintic Newton-Schulz iteration, on the singular values; a step keeps the vectors."""
    u, s, vt = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ vt


def train_all(module: PreTrainedModel, run: Run, muon: Any = ExactMuon) -> list[float]:
    """Train every weight of a module in place, with `muon` where the run asks for it; return the losses."""
    options = {"weight_decay": 0.0, "muon_momentum": 0.95} | OPTIONS | run.options
    decay, uses_muon = options["weight_decay"], options.get("optimizer") == "muon"
    parameters = list(module.parameters())
    tables = {id(one.weight) for one in module.modules() if isinstance(one, torch.nn.Embedding)}
    tables.add(id(module.get_output_embeddings().weight))
    plain = [one for one in parameters if one.dim() < 2]
    matrices = [one for one in parameters if one.dim() == 2 and id(one) not in tables] if uses_muon else []
    taken = {id(one) for one in plain + matrices}
    decayed = [one for one in parameters if id(one) not in taken]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW(groups, lr=options["learning_rate"], eps=options.get("adam_epsilon", 1e-8))]
    if uses_muon:
        optimizers.append(
            muon(matrices, lr=options["muon_learning_rate"], momentum=options["muon_momentum"], weight_decay=decay)
        )
    return train(module, run, parameters, optimizers)
