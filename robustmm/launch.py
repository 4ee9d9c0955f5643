"""Processes, device, precision and memory format of a run."""

from __future__ import annotations

import os

import torch
import torch.utils.deterministic
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from robustmm.config.schema import TrainSection
from robustmm.errors import ConfigError
from robustmm.methods.method import Method


def launch(section: TrainSection) -> Fabric:
    """Start the processes and choose device and precision.

    Raises:
        ConfigError: more processes on the CPU than it has cores, or a device, strategy or precision that is not there.
    """
    cores = os.cpu_count() or 1
    on_cpu = section.accelerator == "cpu" or (section.accelerator == "auto" and not torch.accelerator.is_available())
    if on_cpu and isinstance(section.devices, int) and section.devices > cores:
        raise ConfigError(
            [f"train.devices: {section.devices} processes on a CPU with {cores} cores; give at most {cores}, usually 1"]
        )
    if section.threads is not None:
        torch.set_num_threads(section.threads)
    if section.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing reads memory before it is written; filling it would cost a pass over every tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in the stubs
        torch.backends.cudnn.benchmark = False
    try:
        fabric = Fabric(
            accelerator=section.accelerator,
            devices=list(section.devices) if isinstance(section.devices, tuple) else section.devices,
            num_nodes=section.nodes,
            strategy=section.strategy,
            precision="32-true" if section.precision == "32" else section.precision,
        )
        fabric.launch()
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:  # Fabric's ways to say no
        asked = f"accelerator {section.accelerator}, devices {section.devices}, strategy {section.strategy}"
        raise ConfigError([f"train: {asked}, precision {section.precision} does not work here: {error}"]) from error
    return fabric


def one_process(section: TrainSection, accelerator: str | None = None) -> TrainSection:
    """The same device and precision for a single process."""
    alone = {"devices": 1, "nodes": 1, "strategy": "auto", "accelerator": accelerator or section.accelerator}
    return section.model_copy(update=alone)


def place(method: Method, fabric: Fabric, section: TrainSection) -> Method:
    """Move the method to the device, in the memory format that was asked for."""
    method.to(fabric.device)
    # Formats are for 4-D tensors alone; torch leaves the others.
    return method.to(memory_format=torch.channels_last) if section.channels_last else method
