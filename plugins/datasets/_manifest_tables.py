"""The tables of a manifest: parts, classes, names and groups of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from robustmm import DataError

from ._cells import Unreadable
from ._files import Row

Part = Literal["train", "validation", "test"]
#: Words of a split column.
SPLIT_WORDS: dict[str, Part] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Table:
    """Rows of one part, and the file they stand in."""

    path: Path
    rows: list[Row]

    def place(self, row: Row) -> str:
        """How messages name a row."""
        return f"{self.path}:{row.line}"


def by_split(table: Table, column: str) -> dict[Part, Table]:
    """Rows by the word in their split column.

    Raises:
        DataError: a word is unknown.
    """
    parts: dict[Part, Table] = {}
    for row in table.rows:
        word = row[column].strip().lower()
        if word not in SPLIT_WORDS:
            known = ", ".join(SPLIT_WORDS)
            raise DataError(f"{table.place(row)} column {column}: split '{row[column]}' is unknown; known: {known}")
        parts.setdefault(SPLIT_WORDS[word], Table(table.path, [])).rows.append(row)
    return parts


def class_names(table: Table, target: str) -> tuple[str, ...]:
    """The classes of the training part, sorted; by number where all are whole numbers.

    Raises:
        DataError: there is one class alone.
    """
    names = {row[target].strip() for row in table.rows} - {""}
    if len(names) < 2:
        raise DataError(f"{table.path}: column {target} has {len(names)} classes in training; at least 2 are needed")
    whole = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if whole else sorted(names))


def read_class(cell: str, classes: Sequence[str], *, by_number: bool) -> Tensor:
    """As `class_index`, a scalar int64 tensor."""
    return torch.tensor(class_index(cell, classes, by_number=by_number))


def class_index(cell: str, classes: Sequence[str], *, by_number: bool) -> int:
    """The class that a cell names, or, where ``by_number``, numbers from 0.

    Raises:
        Unreadable: there is no such class.
    """
    if cell in classes:
        return classes.index(cell)
    if by_number and cell.isdecimal() and int(cell) < len(classes):
        return int(cell)
    shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    raise Unreadable(f"class '{cell}' is unknown; known: {shown}")


def sample_names(parts: Mapping[Part, Table], id_column: str | None) -> dict[Part, list[str]]:
    """Stable names by part.

    Raises:
        DataError: a name stands there twice.
    """
    names: dict[Part, list[str]] = {}
    first: dict[str, str] = {}
    for part, table in parts.items():
        names[part] = []
        for row in table.rows:
            name = row[id_column].strip() if id_column else f"{table.path.name}:{row.line}"
            if id_column and name in first:
                raise DataError(f"{table.place(row)} column {id_column}: '{name}' stands already at {first[name]}")
            first[name] = table.place(row)
            names[part].append(name)
    return names


def groups_of(table: Table, column: str | None) -> Tensor | None:
    """Group number of every row, (N,) int64; None without a group column."""
    if column is None:
        return None
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(row[column].strip(), len(number)) for row in table.rows])
