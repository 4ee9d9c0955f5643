"""Two processes equal one: gradients, buffers, gathers, evaluation and a whole training step by step."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.fabric import Fabric
from torch import nn

from robustmm import ArrayDataset, Balancer, Batch, Blueprint, Encoder, Method, Schedule, distributed
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.recipe import Recipe
from robustmm.engine.train import Trainer
from robustmm.masks import CombinationSampler, all_combinations, presence_of
from robustmm.models.missing import MissingPolicy
from robustmm.models.trunk import LateTrunk

NAMES = tiny.NAMES[:2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TwoWeights(nn.Module):
    """One parameter that every process uses, one that the first alone uses, one that nobody uses, and buffers."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.everywhere = nn.Parameter(torch.full((2,), float(rank)))
        self.first_alone = nn.Parameter(torch.ones(3))
        self.nowhere = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("mean", torch.tensor([1.0, 3.0]) * (rank + 1))
        self.register_buffer("steps", torch.tensor(5 + rank))


def sums_and_gathers(rank: int) -> dict[str, object]:
    """What each function of `robustmm.distributed` gives on one of two processes."""
    own = torch.tensor([1.0, 10.0]) * (rank + 1)
    module = TwoWeights(rank)
    loss = (module.everywhere * (rank + 1)).sum()
    if rank == 0:
        loss = loss + 6 * module.first_alone.sum()
    loss.backward()
    distributed.average_gradients(module.parameters())
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    distributed.average_buffers(module)
    averaged = {name: buffer.clone() for name, buffer in module.named_buffers()}
    distributed.broadcast_module(module)
    return {
        "place": (distributed.rank(), distributed.world_size(), distributed.is_parallel()),
        "sum": distributed.all_reduce_sum(own),
        "own": own,
        "equal": distributed.gather_equal(own),
        "gathered": distributed.gather_objects({"rank": rank, "none": None}),
        "nothing": distributed.gather_objects(None if rank == 0 else "b"),
        "gradients": gradients,
        "averaged": averaged,
        "broadcast": {"everywhere": module.everywhere.detach(), "steps": module.steps},
    }


def plain_method() -> Method:
    """A method without BatchNorm, whose step is the mean over samples."""
    torch.manual_seed(0)
    parts = tiny.blueprint(2)

    def trunk() -> LateTrunk:
        encoders = {
            name: Encoder(nn.ModuleList([nn.Sequential(nn.Linear(5, tiny.WIDTH), nn.Tanh())]), (tiny.WIDTH,), (0,))
            for name in NAMES
        }
        return LateTrunk(parts.modalities, encoders, tiny.ConcatFusion([tiny.WIDTH] * 2), MissingPolicy())

    return Method(Blueprint(parts.modalities, parts.task, trunk, parts.make_head))


def loader(count: int, batch_size: int) -> PartLoader:
    data = tiny.batch(2, size=count)
    observed = torch.stack([presence_of(all_combinations(NAMES)[-1 - row % 3], NAMES) for row in range(count)])
    arrays = ArrayDataset(dict(data.inputs), data.target, data.ids, observed)
    return PartLoader(Part(arrays, range(count)), tiny.blueprint(2).modalities, batch_size=batch_size)


def trained(batch_size: int) -> dict[str, torch.Tensor]:
    """Weights after two epochs of gradient descent on whatever each sample has."""
    method, batches = plain_method(), loader(12, batch_size)
    distributed.broadcast_module(method)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9)
    for epoch in range(2):
        for batch in batches.training(epoch):
            optimizer.zero_grad(set_to_none=True)
            output = method(batch.inputs, batch.observed)
            sum(term.value for term in method.losses(output, batch, tiny.clock()).values()).backward()
            distributed.average_gradients(method.parameters())
            optimizer.step()
    return method.state_dict()


def evaluated() -> dict[str, object]:
    """Counts over an odd number of samples, some of them incomplete, and each modality's own."""
    result = evaluate_combinations(plain_method(), loader(7, 2).ordered(), torch.device("cpu"), unimodal=True)
    tallies = {"+".join(combination): tally for combination, tally in result.combinations.items()}
    tallies |= {f"{name} alone": tally for name, tally in result.unimodal.items()}
    return {
        "source": result.unimodal_source,
        "counts": {
            name: (tally.metrics.confusion.tolist(), tally.metrics.count, tally.excluded, tally.incomplete)
            for name, tally in tallies.items()
        },
    }


def starved() -> dict[str, object]:
    """Evaluation of one sample: the second of two processes has none."""
    result = evaluate_combinations(plain_method(), loader(1, 2).ordered(), torch.device("cpu"), unimodal=True)
    return {"source": result.unimodal_source, "count": [t.metrics.count for t in result.combinations.values()]}


def trainer(folder: Path, batch_size: int) -> Trainer:
    """The whole loop, with validation and checkpoints, on a single device of each process."""
    recipe = Recipe(
        seed=0,
        epochs=2,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.9),
        make_schedule=Schedule,
        log_every=2,
    )
    return Trainer(
        method=plain_method(),
        balancer=Balancer(),
        sampler=CombinationSampler(),
        train=loader(12, batch_size),
        validation=loader(7, 2),
        recipe=recipe,
        fabric=Fabric(accelerator="cpu", devices=1),
        folder=folder,
    )


def fitted(folder: Path, batch_size: int) -> dict[str, object]:
    """Weights and selection after training."""
    own = trainer(folder, batch_size)
    own.fit()
    return {"weights": own.method.state_dict(), "selection": own.selection.state()}


def stopped(folder: Path, rank: int) -> tuple[int, bool]:
    """Where training stands after the second process alone was asked to stop in the first step."""
    own = trainer(folder, 2)
    own.interrupt.requested = rank == 1
    try:
        own.fit()
    except KeyboardInterrupt:
        return own.context.clock.step, own.finished
    return -1, own.finished


def work(rank: int, port: int, folder: str) -> None:
    """One of two processes; leaves what it found in a file."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        found = sums_and_gathers(rank) | {"trained": trained(2), "evaluated": evaluated(), "starved": starved()}
        own = Path(folder) / f"run{rank}"  # apart, to see who writes
        found |= {"fitted": fitted(own / "fitted", 2), "stopped": stopped(own / "stopped", rank)}
        found["files"] = sorted(path.name for path in (own / "fitted").glob("*"))
        torch.save(found, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(free_port(), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes__know_their_place(two):
    assert [found["place"] for found in two] == [(0, 2, True), (1, 2, True)]


def test_all_reduce_sum__adds_and_leaves_the_tensor_alone(two):
    assert [found["sum"].tolist() for found in two] == [[3.0, 30.0]] * 2
    assert [found["own"].tolist() for found in two] == [[1.0, 10.0], [2.0, 20.0]]
    assert [found["equal"].tolist() for found in two] == [[1.0, 10.0, 2.0, 20.0]] * 2


def test_gather_objects__gives_every_object_in_rank_order(two):
    for found in two:
        assert found["gathered"] == [{"rank": 0, "none": None}, {"rank": 1, "none": None}]
        assert found["nothing"] == [None, "b"]


def test_average_gradients__counts_a_parameter_that_one_process_did_not_use_as_zero(two):
    for found in two:
        gradients = found["gradients"]
        assert gradients["everywhere"].tolist() == [1.5, 1.5]
        assert gradients["first_alone"].tolist() == [3.0, 3.0, 3.0]


def test_average_gradients__leaves_what_nobody_used_without_a_gradient(two):
    for found in two:
        assert found["gradients"]["nowhere"] is None
        assert found["gradients"]["frozen"] is None


def test_average_buffers__averages_floats_and_leaves_counters(two):
    assert [found["averaged"]["mean"].tolist() for found in two] == [[1.5, 4.5]] * 2
    assert [found["averaged"]["steps"].item() for found in two] == [5, 6]


def test_broadcast_module__gives_everyone_the_first_weights_and_buffers(two):
    for found in two:
        assert found["broadcast"]["everywhere"].tolist() == [0.0, 0.0]
        assert found["broadcast"]["steps"].item() == 5


def test_training__two_processes_with_half_batches_equal_one(two):
    alone = trained(4)
    for found in two:
        for name, value in alone.items():
            torch.testing.assert_close(found["trained"][name], value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(alone["head.linear.weight"], plain_method().head.linear.weight)


def test_training__both_processes_hold_the_same_weights_to_the_bit(two):
    for name, value in two[0]["trained"].items():
        assert torch.equal(value, two[1]["trained"][name])


def test_trainer__two_processes_train_and_select_as_one(two, tmp_path):
    alone = fitted(tmp_path, 4)
    for found in two:
        for name, value in alone["weights"].items():
            torch.testing.assert_close(found["fitted"]["weights"][name], value, rtol=1e-5, atol=1e-6)
        assert found["fitted"]["selection"] == alone["selection"]


def test_trainer__the_first_process_alone_writes(two):
    assert two[0]["files"] == ["best.json", "best.safetensors", "last.json", "last.safetensors"]
    assert two[1]["files"] == []


def test_trainer__request_to_one_process_stops_all_at_the_next_log(two):
    assert [found["stopped"] for found in two] == [(2, False)] * 2


def test_evaluate__two_uneven_shares_equal_the_whole(two):
    whole = evaluated()
    assert [found["evaluated"] for found in two] == [whole, whole]
    assert [count for _, count, *_ in whole["counts"].values()][:3] == [5, 5, 7]


def test_evaluate__a_process_without_samples_agrees_with_the_others(two):
    assert [found["starved"] for found in two] == [starved()] * 2


def test_one_process__everything_is_a_no_op():
    module, item = TwoWeights(3), Batch
    module.everywhere.sum().backward()
    distributed.average_gradients(module.parameters())
    distributed.average_buffers(module)
    distributed.broadcast_module(module)
    assert module.everywhere.grad.tolist() == [1.0, 1.0]
    assert module.first_alone.grad is None
    assert module.mean.tolist() == [4.0, 12.0]
    assert distributed.gather_objects(item) == [item]
    assert (distributed.rank(), distributed.world_size(), distributed.is_parallel()) == (0, 1, False)
    value = torch.ones(2)
    assert distributed.all_reduce_sum(value) is value
