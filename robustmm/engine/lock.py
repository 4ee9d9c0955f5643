"""Keeping other processes out of a folder, by a lock on one of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustmm.errors import CheckpointError


@contextmanager
def locked(file: Path, taken: str) -> Iterator[int]:
    """Hold a lock; yields its file descriptor, -1 where there are no locks. It ends with the process.

    Args:
        file: That is locked; made where there is none, else not changed.
        taken: What is the matter where another process holds it, after the name of the file's folder.

    Raises:
        CheckpointError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX
        yield -1
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"{file.parent} is in use: {taken}") from error
        yield descriptor
    finally:
        os.close(descriptor)
