"""Ranks that share a run get, on every rank, the bits of one process; a failure on one is an error on all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import titer
from test_gcg import GCG, MESSAGE, TARGET, Complaint, Victim, victim
from test_gcg_resume import assert_same_bits
from thread_ranks import alone, on_ranks
from tiny_models import write_tiny_llama

__all__ = ["victim"]  # a fixture

WORLDS = [2, 3, 7]


def candidates(prompt: titer.Prompt, count: int, seed: int = 0) -> torch.Tensor:
    """Random variants of the slot in one position each, every fifth of them equal to the one before."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([prompt.slot_ids]).repeat(count, 1)
    for index in range(count):
        position = int(torch.randint(rows.shape[1], (1,), generator=generator))
        rows[index, position] = int(torch.randint(10, 300, (1,), generator=generator))
        if index % 5 == 4:
            rows[index] = rows[index - 1]
    return rows


def calls(victim: Victim, rows: torch.Tensor, **options: Any) -> Callable[[titer.Shard | None], list[Any]]:
    """Every kind of call on a session, and what it returns."""

    def work(shard: titer.Shard | None) -> list[Any]:
        session = victim.system.open(victim.prompt(), shard=shard, **options)
        start = session.score(rows)
        gradient = session.token_gradient(rows[-1])
        inner = session.embedding_gradient(rows[-1], loss="mellowmax")
        moved = session.score(rows, loss="carlini_wagner")
        session.rebase(rows[0])
        back = session.score(rows)
        answer = session.generate("x x x", max_new_tokens=5, temperature=1.0, seed=3)
        spent = session.cost
        return [*start, gradient, inner, *moved, *back, answer, spent.queries, spent.tokens]

    return work


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("count", "batch_size"),
    [(150, None), (40, 7), (5, 1), (1, None)],
    ids=["blocks by rows", "uneven blocks", "a candidate per block", "one candidate"],
)
def test_every_rank_gets_the_bits_of_one_process(
    victim: Victim, world: int, count: int, batch_size: int | None
) -> None:
    rows = candidates(victim.prompt(), max(count, 1))
    work = calls(victim, rows[:count] if count else rows, batch_size=batch_size)
    expected = alone(work)
    for got in on_ranks(world, work):
        assert [same(a, b) for a, b in zip(got, expected, strict=True)] == [True] * len(expected)


def test_no_candidates_are_no_work(victim: Victim) -> None:
    def work(shard: titer.Shard) -> Any:
        return victim.system.open(victim.prompt(), shard=shard).losses(candidates(victim.prompt(), 1)[:0])

    assert [loss.shape for loss in on_ranks(2, work)] == [(0,), (0,)]


def test_the_ranks_share_the_operations_and_count_the_queries_once(victim: Victim) -> None:
    rows = candidates(victim.prompt(), 60)

    def work(shard: titer.Shard | None) -> tuple[float, float, int]:
        session = victim.system.open(victim.prompt(), batch_size=4, shard=shard)
        opened = session.cost.flops
        session.losses(rows)
        return opened, session.cost.flops - opened, session.cost.queries

    opened, scored, queries = alone(work)
    for others in on_ranks(3, work):
        assert others == (pytest.approx(3 * opened), pytest.approx(scored), queries)


def test_what_rank_0_gives_counts(victim: Victim) -> None:
    rows = candidates(victim.prompt(), 30)

    def work(shard: titer.Shard | None) -> list[Any]:
        session = victim.system.open(victim.prompt(), shard=shard)
        follows = shard is not None and shard.rank > 0
        nonsense = torch.zeros(3, 2)
        gradient = session.token_gradient(nonsense if follows else rows[7])
        losses = session.losses(candidates(victim.prompt(), 4, seed=1) if follows else rows)
        return [gradient, losses, session.losses(nonsense if follows else rows)]

    expected = alone(work)
    for got in on_ranks(3, work):
        assert all(map(same, got, expected))


def test_a_bad_call_of_rank_0_is_an_error_on_all_and_the_session_goes_on(victim: Victim) -> None:
    rows = candidates(victim.prompt(), 9)

    def work(shard: titer.Shard) -> tuple[str, str, torch.Tensor]:
        session = victim.system.open(victim.prompt(), shard=shard)
        with pytest.raises(ValueError if shard.rank == 0 else RuntimeError) as shape:
            session.losses(rows[:, 1:])
        with pytest.raises(IndexError if shard.rank == 0 else RuntimeError) as outside:
            session.rebase(rows[0] + 10_000)
        return str(shape.value), str(outside.value), session.losses(rows)

    first, second = on_ranks(2, work)
    assert first[0].startswith("[session] candidates must have shape [B, 6]")
    assert second[:2] == tuple(f"[shard] rank 0 failed: {message}" for message in first[:2])
    assert same(first[2], second[2])


class HalfBroken:
    """A model, and one that differs from it by NaN in the embedding of a token, which fingerprints do not sample."""

    TOKEN = 300

    def __init__(self, folder: Path) -> None:
        whole = write_tiny_llama(folder / "whole", vocab_size=350, tie_word_embeddings=False)
        broken = shutil.copytree(whole, folder / "broken")
        weights = load_file(broken / "model.safetensors")
        weights["model.embed_tokens.weight"][self.TOKEN] = float("nan")
        save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
        self.models = [titer.load_model(whole), titer.load_model(broken)]
        assert titer.System(self.models[0]).fingerprint == titer.System(self.models[1]).fingerprint

    def system(self, shard: titer.Shard) -> titer.System:
        """On rank 1 the broken one."""
        return titer.System(self.models[shard.rank == 1])

    def prompt(self) -> titer.Prompt:
        return titer.Prompt.from_chat(self.models[0], MESSAGE, target=TARGET, initial="x x x x x x")


@pytest.fixture(scope="module")
def half_broken(tmp_path_factory: pytest.TempPathFactory) -> HalfBroken:
    return HalfBroken(tmp_path_factory.mktemp("half_broken"))


def assert_rank_1_failed_all(outcomes: list[Any]) -> None:
    culprit = outcomes.pop(1)
    assert isinstance(culprit, ValueError) and "finite" in str(culprit)
    for other in outcomes:
        assert isinstance(other, RuntimeError) and str(other) == f"[shard] rank 1 failed: {culprit}"


def test_a_rank_that_fails_fails_all(half_broken: HalfBroken) -> None:
    rows = candidates(half_broken.prompt(), 9)
    rows[:, 3] = HalfBroken.TOKEN

    def scored(shard: titer.Shard) -> Any:
        session = half_broken.system(shard).open(half_broken.prompt(), batch_size=3, shard=shard)
        return session.losses(rows)

    def rebased(shard: titer.Shard) -> Any:
        return half_broken.system(shard).open(half_broken.prompt(), shard=shard).rebase(rows[0])

    def differentiated(shard: titer.Shard) -> Any:
        return half_broken.system(shard).open(half_broken.prompt(), shard=shard).token_gradient(rows[0])

    for work in (scored, rebased, differentiated):
        assert_rank_1_failed_all(on_ranks(3, work))


def test_a_rank_that_fails_during_a_run_ends_it_everywhere(half_broken: HalfBroken) -> None:
    attack = GCG(topk=350, search_width=200, batch_size=8, num_steps=20)
    outcomes = on_ranks(2, lambda shard: attack.run(half_broken.system(shard), half_broken.prompt(), shard=shard))
    assert_rank_1_failed_all(outcomes)


@pytest.mark.parametrize("difference", ["prompt", "batch_size", "model"])
def test_ranks_that_open_something_else_are_refused(victim: Victim, difference: str, tiny_folder: Path) -> None:
    other = titer.System(titer.load_model(tiny_folder)) if difference == "model" else victim.system

    def work(shard: titer.Shard) -> Any:
        odd = shard.rank == 1
        prompt = victim.prompt("prefix" if odd and difference == "prompt" else "suffix")
        batch_size = 5 if odd and difference == "batch_size" else None
        return (other if odd else victim.system).open(prompt, batch_size=batch_size, shard=shard)

    zero, one = on_ranks(2, work)
    assert isinstance(one, ValueError)
    assert "[shard] rank 1 opened another model, prompt or batch_size than rank 0; open the same" in str(one)
    assert isinstance(zero, RuntimeError) and str(one) in str(zero)


SEARCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum and a buffer": {"momentum": 0.5, "buffer_size": 3, "n_replace": 2},
    "unfiltered": {"filter_ids": False, "topk": 300},
    "small batches": {"batch_size": 5},
    "another start": {"optim_str_init": ["k b x t f n"], "early_stop": True},
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("world", WORLDS[:2])
def test_a_run_on_several_ranks_has_the_bits_of_one_process(victim: Victim, search: str, world: int) -> None:
    attack = GCG(**SEARCHES[search])
    expected = alone(lambda _: attack.run(victim.system, victim.prompt()))
    for got in on_ranks(world, lambda shard: attack.run(victim.system, victim.prompt(), shard=shard)):
        assert_same_bits(got, expected)
        assert got.trace["ids"].tolist() == expected.trace["ids"].tolist()


def test_files_and_callbacks_are_those_of_rank_0(victim: Victim, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def work(shard: titer.Shard) -> titer.attacks.AttackResult:
        return GCG(num_steps=3).run(
            victim.system,
            victim.prompt(),
            progress=lambda step: calls.append((shard.rank, step.step)),
            checkpoint=tmp_path / f"{shard.rank}.ckpt",
            log=tmp_path / f"{shard.rank}.jsonl",
            shard=shard,
        )

    zero, one = on_ranks(2, work)
    assert calls == [(0, 1), (0, 2), (0, 3)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.ckpt", "0.jsonl"]
    events = [json.loads(line)["event"] for line in (tmp_path / "0.jsonl").read_text().splitlines()]
    assert events == ["start", "step", "step", "step", "result"]
    assert zero.to_json() == one.to_json()


def test_rank_0_stops_all_and_a_resumed_run_goes_on_from_its_checkpoint(victim: Victim, tmp_path: Path) -> None:
    attack = GCG(num_steps=6, momentum=0.5)
    checkpoint = tmp_path / "run.ckpt"  # on the machine of rank 0 alone

    def stopped(shard: titer.Shard) -> titer.attacks.AttackResult:
        return attack.run(
            victim.system,
            victim.prompt(),
            progress=lambda step: shard.rank > 0 or step.step < 2,
            checkpoint=checkpoint if shard.rank == 0 else None,
            shard=shard,
        )

    for part in on_ranks(2, stopped):
        assert part.stop_reason == "callback" and len(part.steps) == 2

    def resumed(shard: titer.Shard) -> titer.attacks.AttackResult:
        path = checkpoint if shard.rank == 0 else None
        return attack.run(victim.system, victim.prompt(), checkpoint=path, resume=shard.rank == 0, shard=shard)

    expected = alone(lambda _: attack.run(victim.system, victim.prompt()))
    for got in on_ranks(2, resumed):
        for column in ("loss", "ids", "width"):
            assert got.trace[column].tolist() == expected.trace[column].tolist()
        assert (got.text, got.loss, got.completion) == (expected.text, expected.loss, expected.completion)


def complain(step: titer.attacks.AttackStep) -> None:
    raise Complaint(f"enough after {step.step}\nand more lines")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"progress": complain}, Complaint, "Complaint: enough after 1"),
        ({"checkpoint": Path("/nowhere/c.ckpt")}, FileNotFoundError, "/nowhere/c.ckpt"),
        ({"log": Path("/nowhere/run.jsonl")}, FileNotFoundError, "/nowhere/run.jsonl"),
    ],
    ids=["callback", "checkpoint", "log"],
)
def test_a_failure_of_rank_0_ends_the_run_everywhere(
    victim: Victim, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    zero, one, two = on_ranks(3, lambda shard: GCG().run(victim.system, victim.prompt(), shard=shard, **arguments))
    assert isinstance(zero, kind)
    for other in (one, two):
        assert isinstance(other, RuntimeError)
        assert str(other).startswith("[shard] rank 0 failed: ") and message in str(other)
        assert "\n" not in str(other)


def unused(*_: Any) -> Any:
    raise AssertionError("not to be called")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((0, 0), "world must be at least 1, got 0"),
        ((-1, 2), "rank must be from 0 to 1, got -1"),
        ((2, 2), "rank must be from 0 to 1, got 2"),
    ],
)
def test_a_place_that_cannot_be_is_refused(place: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=rf"\[shard\] {message}"):
        titer.Shard(*place, all_gather=unused, broadcast=unused)


def test_functions_are_needed_and_called_only_where_there_are_several_ranks(victim: Victim) -> None:
    single: Any = titer.Shard(0, 1, all_gather=unused, broadcast=unused)
    assert GCG(num_steps=1).run(victim.system, victim.prompt(), shard=single).stop_reason == "num_steps"
    nothing: Any = None
    with pytest.raises(ValueError, match="2 ranks need all_gather and broadcast"):
        titer.Shard(0, 2, all_gather=nothing, broadcast=unused)
    assert repr(single) == "Shard(rank=0, world=1)"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda own: [own], "must return one tensor per rank, 2, got 1"),
        (lambda own: [own, own, own], "must return one tensor per rank, 2, got 3"),
        (lambda own: [own, own[:0]], "must return tensors like the one it gets"),
        (lambda own: [own, own.float()], "must return tensors like the one it gets"),
    ],
)
def test_an_all_gather_that_gives_something_else_is_refused(victim: Victim, answer: Any, message: str) -> None:
    shard = titer.Shard(0, 2, all_gather=answer, broadcast=lambda tensor: None)
    with pytest.raises(ValueError, match=rf"\[shard\] all_gather {message}"):
        victim.system.open(victim.prompt(), shard=shard)


def test_what_the_functions_raise_reaches_the_caller(victim: Victim) -> None:
    def lost(_: torch.Tensor) -> Any:
        raise ConnectionResetError("peer")

    shard = titer.Shard(1, 2, all_gather=lost, broadcast=lost)
    with pytest.raises(ConnectionResetError, match="peer"):
        GCG().run(victim.system, victim.prompt(), shard=shard)


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="torch.distributed is not initialised; call init_process_group"):
        titer.Shard.from_process_group()


GLOO_RANK = """
import sys
import torch
from torch import distributed
import titer

_, folder, meeting, rank, out, message, target = sys.argv
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=3)
model = titer.load_model(folder)
prompt = titer.Prompt.from_chat(model, message, target=target, initial="x x x x x x")
attack = titer.attacks.GCG(num_steps=4, search_width=24, topk=32, seed=0, momentum=0.5, batch_size=10)
pair = distributed.new_group([1, 2])
shard = titer.Shard.from_process_group(None if rank == "0" else pair)
if rank != "0":
    result = attack.run(titer.System(model), prompt, shard=shard)
    assert titer.Shard.from_process_group().rank == int(rank)
    result.save(out)
else:
    assert (shard.rank, shard.world) == (0, 3)
    try:
        titer.Shard.from_process_group(pair)
    except ValueError as error:
        assert "not in the group" in str(error), error
    else:
        raise AssertionError("a group of others was taken")
distributed.barrier()
distributed.destroy_process_group()
"""


def test_processes_with_gloo_have_the_bits_of_one(victim: Victim, tmp_path: Path) -> None:
    """In a group that is not the whole world and whose first rank is not the world's."""
    results = [tmp_path / f"{rank}.json" for rank in range(3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GLOO_RANK, str(victim.folder), str(tmp_path / "meeting"), str(rank), str(result),
             MESSAGE, TARGET],
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, stderr=subprocess.PIPE, text=True,
        )
        for rank, result in enumerate(results)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    expected = alone(lambda _: GCG(momentum=0.5, batch_size=10).run(victim.system, victim.prompt()))
    one, two = (titer.attacks.AttackResult.load(result) for result in results[1:])
    assert_same_bits(one, expected)
    assert one.to_json() == two.to_json()
