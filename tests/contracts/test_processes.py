"""Every registered balancer on two processes, each with half of the samples, against one process with all of them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from robustmm.plugin_manager import get_plugins
from robustmm.testing.balancers import run_with
from robustmm.testing.runs import mixed
from robustmm.testing.tiny import settings

#: One fixture trains everything twice: all tests that ask it run in one process of the suite.
pytestmark = pytest.mark.xdist_group("processes")
BALANCERS = [c for c in get_plugins().registry.all("balancer") if c.origin.startswith("robustmm_plugins")]


def trained(component) -> dict[str, torch.Tensor]:
    """Weights after a rehearsed run of four epochs under mixed combinations, which the halves show unevenly often."""
    setting = next(s for s in settings(component, counts=(3,)))
    run = run_with(component, setting, norm=False)
    run.train(mixed(setting))
    return run.weights()


def on_one_of_two(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        weights = {component.name: trained(component) for component in BALANCERS}
        torch.save(weights, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """Weights of each balancer on each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(on_one_of_two, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("component", BALANCERS, ids=lambda component: component.name)
def test_balancer__on_two_processes_equals_one(component, two):
    expected = trained(component)
    for found in two:
        for name, value in expected.items():
            torch.testing.assert_close(found[component.name][name], value, rtol=1e-4, atol=1e-5, msg=name)
