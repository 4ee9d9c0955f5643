"""Where the samples of a prediction come from: files named one by one, folders, or a table."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from robustmm.errors import DataError, did_you_mean
from robustmm.types import Modality
from robustmm.use.batches import Given
from robustmm.use.files import suffixes_of, why_arrays

#: A sample's name and what is given of it.
Named = tuple[str, Given]
#: Column of a table that names its samples.
ID_COLUMN = "id"
#: Columns that a table of training has beside its modalities; prediction leaves them alone.
OF_TRAINING = (ID_COLUMN, "label", "split", "target")


def pairs(texts: Sequence[str], option: str, modalities: Sequence[Modality]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping.

    Raises:
        DataError: a text has another form, or names a modality twice or one that the model does not have.
    """
    found: dict[str, str] = {}
    names = [one.name for one in modalities]
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise DataError(f"{option} {text}: expected NAME=VALUE, such as {names[0]}=...")
        if name not in names:
            raise DataError(
                f"{option} {text}: no modality '{name}'{did_you_mean(name, names)} (the model has {', '.join(names)})"
            )
        if name in found:
            raise DataError(f"{option} {text}: {name} is given twice")
        found[name] = value
    return found


def one_sample(inputs: Mapping[str, str]) -> list[Named]:
    """One sample of files, or of a vector's numbers; it is named after its first file."""
    return [(Path(next(iter(inputs.values()))).stem or "0", dict(inputs))]


def from_folders(folders: Mapping[str, str], modalities: Sequence[Modality]) -> list[Named]:
    """A sample per stem: the files of a sample have one, and a modality without such a file is absent.

    Raises:
        DataError: a folder is not there, two of its files have one stem, or none can be read as the modality.
    """
    kinds = {one.name: one for one in modalities}
    files = {name: _by_stem(Path(folder), kinds[name]) for name, folder in folders.items()}
    stems = sorted({stem for found in files.values() for stem in found})
    return [(stem, {name: found[stem] for name, found in files.items() if stem in found}) for stem in stems]


def _by_stem(folder: Path, modality: Modality) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{modality.name}: {folder} is not a folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes_of(modality) or path.name.startswith("."):
            continue
        if path.stem in found:
            raise DataError(f"{folder}: {found[path.stem].name} and {path.name} are files of one sample; keep one")
        found[path.stem] = path
    if not found:
        raise DataError(
            f"{modality.name}: {folder} holds no file of a type that is read: {', '.join(suffixes_of(modality))}"
            f"{why_arrays(modality)}"
        )
    return found


def from_table(path: Path, modalities: Sequence[Modality], note: Callable[[str], None]) -> list[Named]:
    """A sample per row of a CSV file: a column per modality with paths relative to the file, or a vector's numbers.

    An empty cell, or a modality without a column, is absent. Samples are named by a column ``id`` where there is one,
    else by file and line. Columns that are neither a modality nor of a table of training are left alone.

    Args:
        path: Of the file.
        modalities: Of the model.
        note: Is told which columns are left alone, if any.

    Raises:
        DataError: the file cannot be read, has no column of a modality or a misspelt one, or a row has none or the id
            of another.
    """
    header, rows = _read_rows(path)
    names = [one.name for one in modalities]
    columns = [name for name in names if name in header]
    _check_header(path, header, names, note)
    kinds = {one.name: one for one in modalities}
    samples: list[Named] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        cells = {name: (row[name] or "").strip() for name in columns}
        given = {name: _place(cell, kinds[name], path.parent) for name, cell in cells.items() if cell}
        if not given:
            raise DataError(f"{path}:{line} has no modality at all: {', '.join(columns)} are empty")
        name = row.get(ID_COLUMN) or f"{path.name}:{line}"
        if name in lines:
            raise DataError(f"{path}:{line} column {ID_COLUMN}: '{name}' stands already in line {lines[name]}")
        lines[name] = line
        samples.append((name, given))
    if not samples:
        raise DataError(f"{path} has no row")
    return samples


def _read_rows(path: Path) -> tuple[Sequence[str], list[tuple[int, dict[str, str | None]]]]:
    """The header, and every row with its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            return header, [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from None


def _check_header(path: Path, header: Sequence[str], names: Sequence[str], note: Callable[[str], None]) -> None:
    """Refuse a header that has a modality under another name, or none; note what is left alone."""
    others = [column for column in header if column not in names and column not in OF_TRAINING]
    absent = [name for name in names if name not in header]
    for column in others:
        meant = _meant(column, absent)
        if meant is not None:
            raise DataError(
                f"{path}:1 column '{column}' is no modality - did you mean '{meant}'? The model has "
                f"{', '.join(names)}; rename the column, or remove it"
            )
    if absent == list(names):
        raise DataError(
            f"{path}:1 has no column of a modality ({', '.join(names)}); it has {', '.join(header) or 'none'}"
        )
    if others:
        hints = {column: _meant(column, [ID_COLUMN, *names]) for column in others}
        listed = ", ".join(
            f"'{column}'{f' - did you mean {hint!r}?' if hint else ''}" for column, hint in hints.items()
        )
        note(f"{path}:1 columns that are no modality are left alone: {listed} (the model has {', '.join(names)})")


def _meant(column: str, names: Sequence[str]) -> str | None:
    """The name that a column misspells, in whatever case; None where it is like none of them."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(column.strip().lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def _place(cell: str, modality: Modality, folder: Path) -> str | Path:
    """A cell's file, or the numbers that a vector's cell holds."""
    is_file = modality.kind != "vector" or cell.lower().endswith(suffixes_of(modality))
    return folder / cell if is_file else cell
