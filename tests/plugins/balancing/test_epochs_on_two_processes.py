"""Strategies that act before epochs, on two processes with half of the samples each, against one with all of them.

With their default options most of them do nothing in the few epochs that the contract tests make.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from robustmm_plugins.balancing.diagnosing_relearning import DiagnosingRelearning
from robustmm_plugins.balancing.g_blending import GBlending
from robustmm_plugins.balancing.sample_valuation import SampleValuation

from robustmm.testing.runs import Run, mixed
from robustmm.testing.tiny import Setting

STRATEGIES = {
    "blending": lambda: GBlending(super_epoch=2, held_out=0.3),
    "valuation": lambda: SampleValuation(warmup_epochs=1),
    "valuation_by_modality": lambda: SampleValuation(level="modality", warmup_epochs=1, part_ratio=0.5, alpha=3.0),
    "relearning": lambda: DiagnosingRelearning(every=1, rows_per_class=1, gap="absolute", reset_state=True),
}


def trained(name: str) -> dict[str, torch.Tensor]:
    """Weights after four epochs, and the plan of the last one that had any."""
    run = Run(Setting(3), STRATEGIES[name](), heads=True, norm=False)
    plans, start = [], run.balancer.on_epoch_start
    run.balancer.on_epoch_start = lambda epoch: plans.append(start(epoch)) or plans[-1]
    run.train(mixed(run.setting))
    found = run.weights()
    for plan in plans:
        if plan is not None:
            found["plan"] = plan.indices
            found |= {} if plan.keep is None else {"keep": plan.keep}
    return found


def on_one_of_two(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        torch.save({name: trained(name) for name in STRATEGIES}, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of two processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(on_one_of_two, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy__on_two_processes_equals_one(name, two):
    expected = trained(name)
    assert ("plan" in expected) is (name != "relearning")
    for found in two:
        assert found[name].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[name][key], value, rtol=1e-4, atol=1e-5, msg=key)
