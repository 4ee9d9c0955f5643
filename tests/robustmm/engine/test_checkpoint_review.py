"""Checkpoints on systems that lock files."""

from __future__ import annotations

import os

import torch

from robustmm.engine import checkpoint


def test_load__keeps_nothing_of_the_file(tmp_path):
    """A mapped file cannot be replaced on Windows, and changes under the reader's feet elsewhere."""
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"weights": {"w": torch.ones(1000)}})
    state = checkpoint.load(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
    assert torch.equal(state["weights"]["w"], torch.ones(1000))


def test_save__flushes_what_it_may_write(tmp_path, monkeypatch):
    """Windows refuses to flush a file that was opened for reading."""
    flushed = []

    def flush(file: int) -> None:
        flushed.append(os.write(file, b""))

    monkeypatch.setattr(os, "fsync", flush)
    checkpoint.save(tmp_path / "last.safetensors", {"epoch": 1})
    assert flushed == [0]
