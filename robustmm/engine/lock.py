"""Keeping other processes out of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustmm.errors import CheckpointError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, taken: str) -> Iterator[int]:
    """Hold a folder's lock; yields its file descriptor, -1 where there are no locks. It ends with the process.

    Args:
        folder: Made where there is none.
        taken: What is the matter where another process holds it, after the folder's name.

    Raises:
        CheckpointError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX
        yield -1
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"{folder} is in use: {taken}") from error
        yield descriptor
    finally:
        os.close(descriptor)
