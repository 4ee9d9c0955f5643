"""Rows of a manifest as samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from robustmm import DataError, Sample

from ._cells import CellReader, Unreadable
from ._files import Row

#: So many bad cells are named; the others are counted.
NAMED = 10
#: What every message about a modality's bad cell offers.
WAY_OUT = "on_unreadable: missing counts it as absent"


class ManifestDataset:
    """Samples of some rows of a manifest, read when asked for.

    Args:
        path: The CSV file, for messages.
        rows: Rows of this part.
        columns: Modality -> column.
        readers: Modality -> what reads its cells.
        target: Column of the target.
        read_target: Cell of that column -> target.
        ids: One stable name per row.
        cache: Keep what was read in memory.
    """

    def __init__(
        self,
        path: Path,
        rows: Sequence[Row],
        columns: Mapping[str, str],
        readers: Mapping[str, CellReader],
        target: str,
        read_target: Callable[[str], Tensor],
        ids: Sequence[str],
        *,
        cache: bool,
    ) -> None:
        self.path = path
        self.rows = rows
        self.columns = columns
        self.readers = readers
        self.target = target
        self.read_target = read_target
        self.ids = tuple(ids)
        self.unreadable: dict[str, int] = {}
        self.unreadable_cells: list[str] = []
        self._absent: set[tuple[int, str]] = set()
        self._kept: dict[int, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Sample:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        row = self.rows[index]
        sample: Sample = {
            "inputs": {name: self._value(index, name) for name in self.readers},
            "target": self._target(row),
            "id": self.ids[index],
        }
        if self._kept is not None:
            self._kept[index] = sample
        return sample

    def cell(self, index: int, name: str) -> str:
        """What a row says of a modality; empty where it is absent or was found unreadable."""
        return "" if (index, name) in self._absent else self.rows[index][self.columns[name]].strip()

    def _value(self, index: int, name: str) -> Tensor | None:
        cell = self.cell(index, name)
        if not cell:
            return None
        try:
            return self.readers[name](cell)
        except Unreadable as error:
            raise self.bad_cell(index, name, str(error)) from None

    def _target(self, row: Row) -> Tensor:
        cell = row[self.target].strip()
        try:
            return self.read_target(cell)
        except Unreadable as error:
            raise DataError(self._place(row, self.target, f"{cell}: {error}" if cell else str(error))) from None

    def bad_cell(self, index: int, name: str, problem: str) -> DataError:
        """A message with file, line, column and cell, for a modality."""
        place = self._place(self.rows[index], self.columns[name], f"{self.cell(index, name)}: {problem}")
        return DataError(f"{place}; {WAY_OUT}")

    def _place(self, row: Row, column: str, problem: str) -> str:
        return f"{self.path}:{row.line} column {column}: {problem}"

    def absent_files(self) -> list[str]:
        """Look for every file without opening it; one text per cell whose file is not there."""
        return [
            self._place(row, self.columns[name], f"{path}: there is no such file")
            for row, name, path in self._files()
            if not path.is_file()
        ]

    def _files(self) -> Iterator[tuple[Row, str, Path]]:
        """Every file that the rows name, with its modality."""
        for index, row in enumerate(self.rows):
            for name, reader in self.readers.items():
                cell = self.cell(index, name)
                path = reader.path(cell) if cell else None
                if path is not None:
                    yield row, name, path

    def count_unreadable(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Read every cell once; what cannot be read, or has another shape, counts as absent from now on.

        Raises:
            DataError: nothing readable is left in a row.
        """
        counts: Counter[str] = Counter()
        for index, row in enumerate(self.rows):
            for name, reader in self.readers.items():
                cell = self.cell(index, name)
                problem = _problem(cell, reader, shapes[name]) if cell else ""
                if problem:
                    counts[name] += 1
                    self.unreadable_cells.append(self._place(row, self.columns[name], f"{cell}: {problem}"))
                    self._absent.add((index, name))
            if not any(self.cell(index, name) for name in self.readers):
                raise DataError(f"{self.path}:{row.line} no modality of this row is readable; mend or remove the row")
        self.unreadable = dict(counts)

    def refuse_empty_rows(self) -> None:
        """Raise DataError for a row that has no modality at all."""
        for index, row in enumerate(self.rows):
            if not any(self.cell(index, name) for name in self.readers):
                raise DataError(
                    f"{self.path}:{row.line} has no modality at all: column {', '.join(self.columns.values())} "
                    "is empty; a sample needs at least one"
                )


def _problem(cell: str, reader: CellReader, shape: tuple[int, ...]) -> str:
    """Why a cell cannot be used; empty if it can."""
    try:
        found = tuple(reader(cell).shape)
    except Unreadable as error:
        return str(error)
    return "" if found == shape else f"has shape {found}, others have {shape}"


def refuse_absent_files(datasets: Iterable[ManifestDataset]) -> None:
    """Look for every file of every part without opening it.

    Raises:
        DataError: files are not there; the first ones are named with their lines, the others are counted.
    """
    absent = [text for dataset in datasets for text in dataset.absent_files()]
    if len(absent) == 1:
        raise DataError(f"{absent[0]}; {WAY_OUT}")
    if absent:
        way_out = WAY_OUT.replace(" it ", " them ")
        raise DataError("\n  ".join([f"{len(absent)} files are not there; {way_out}", *first_few(absent)]))


def first_few(texts: Sequence[str]) -> list[str]:
    """The first texts, and how many more there are."""
    more = [f"... and {len(texts) - NAMED} more"] if len(texts) > NAMED else []
    return [*texts[:NAMED], *more]
