"""Your own data without code: a CSV file with one row per sample and one column per modality.

A cell is a path to a file (image, array, recording) relative to the CSV file or to ``root``, or numbers written in
place; an empty cell says that the sample lacks the modality. Files are read when they are needed. With ``on_unreadable:
missing`` every file is read once at the start, so that it is known what is there before training begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robustmm import VOID, Component, DataError, DataSplits, LogMel, Modality, Options, Reading, Scaling, hookimpl

from ._cells import CellReader, Kind, Unreadable, read_label_map, read_quantities
from ._files import Notes, expand, read_table
from ._manifest_dataset import ManifestDataset, first_few, refuse_absent_files
from ._manifest_tables import Part, Table, by_split, class_index, class_names, groups_of, read_class, sample_names

NAME = "manifest"
_log = logging.getLogger("robustmm.data")


class ColumnOptions(Options):
    """One modality of a manifest.

    Args:
        column: Its column; by default of the modality's own name.
        kind: What it is; picks the default encoder.
        size: ``[H, W]`` to which images are resized, or ``[bands, frames]`` of a spectrogram made from sound.
        channels: Of image files.
        hop_seconds: From one frame of a spectrogram to the next; its window is twice as long.
        max_hz: Upper edge of a spectrogram.
        scaling: ``standardise`` by the training part, or ``none``.
    """

    column: str | None = Field(None, description="column of the CSV file; default: the modality's name")
    kind: Kind = Field(description="what it is; picks the default encoder")
    size: tuple[int, ...] = Field((), description="[H, W] of an image; [bands, frames] of a spectrogram")
    channels: Literal[1, 3] = Field(3, description="of image files: 1 grey (8 or 16 bits), 3 colour")
    hop_seconds: float = Field(0.016, gt=0.001, description="step of a spectrogram; its window is twice as long")
    max_hz: float = Field(8000.0, gt=0, description="upper edge of a spectrogram")
    scaling: Literal["standardise", "none"] = Field("standardise", description="by the training part, or not at all")

    @model_validator(mode="after")
    def _size_fits(self) -> Self:
        if self.kind == "image" and len(self.size) != 2:
            raise ValueError("kind image needs size: [height, width]")
        if self.kind == "spectrogram" and len(self.size) not in (0, 2):
            raise ValueError("size of a spectrogram is [bands, frames]")
        if self.kind in ("vector", "sequence") and self.size:
            raise ValueError(f"size has no meaning for a {self.kind}; its shape is that of the data")
        if any(length < 1 for length in self.size):
            raise ValueError("size must be positive")
        return self

    def reader(self, folder: Path) -> CellReader:
        """What reads this modality's cells; relative paths start from ``folder``."""
        return CellReader(self.kind, self.size, self.channels, self.log_mel, folder)

    @property
    def log_mel(self) -> LogMel:
        """What makes a spectrogram of a recording."""
        bands, frames = self.size if self.kind == "spectrogram" and self.size else (40, 48)
        return LogMel(bands, frames, 2 * self.hop_seconds, self.hop_seconds, self.max_hz)

    @property
    def reading(self) -> Reading:
        """How `reader` reads files, for a trained model."""
        return Reading("share", "bilinear", self.log_mel if self.kind == "spectrogram" else None)


class ManifestOptions(Options):
    """Options of the data set.

    Args:
        csv: One file with a split column, or one file per part.
        modalities: Name -> what it is, in column order.
        task: ``classification``: the target is a class; ``segmentation``: it is a file of class indices per pixel,
            255 where nothing counts; ``regression``: it is a number, or several.
        target: Column of the target.
        classes: Class names in order; by default those of the training part, sorted. Needed for segmentation. Of
            regression the names of the quantities in a cell; by default one, of the column's name.
        target_size: ``[H, W]`` to which label maps are brought; for segmentation.
        split_column: Where ``csv`` is one file: train, val (or validation), test.
        id_column: Stable names of the samples; by default the file and line.
        group_column: Subject, place or recording; a group is never parted when validation is carved from training.
        root: What relative paths start from; by default the folder of the CSV file.
        on_unreadable: ``error`` stops, ``missing`` counts the modality as absent and names the cells.
        cache: Keep what was read in memory.
    """

    csv: str | dict[Part, str] = Field(description="one file with a split column, or {train: ..., test: ...}")
    modalities: dict[str, ColumnOptions] = Field(min_length=1, description="name -> column, kind and size")
    task: Literal["classification", "segmentation", "regression"] = Field(
        "classification", description="what the target is"
    )
    target: str = Field("label", description="column of the class, of a label map's path (255 is void), or of numbers")
    classes: tuple[str, ...] = Field(
        (), description="class names in order; default: those of training, sorted; of regression the quantities' names"
    )
    target_size: tuple[int, int] | None = Field(None, description="[H, W] of label maps; for segmentation")
    split_column: str = Field("split", description="column that says train, val or test, where csv is one file")
    id_column: str | None = Field(None, description="column of stable sample names; default: file and line")
    group_column: str | None = Field(None, description="column of subject or place, kept together in carving")
    root: str | None = Field(None, description="what relative paths start from; default: the CSV file's folder")
    on_unreadable: Literal["error", "missing"] = Field("error", description="stop, or count as absent and report")
    cache: bool = Field(False, description="keep what was read in memory")

    @classmethod
    def contract_example(cls) -> None:
        """None: a manifest belongs to data."""
        return

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.csv, dict) and not {"train", "test"} <= set(self.csv):
            raise ValueError("csv: separate files need at least train and test")
        if self.task == "segmentation" and (len(self.classes) < 2 or self.target_size is None):
            raise ValueError("task segmentation needs classes (their names in order) and target_size: [height, width]")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name stands there twice")
        return self


def read_parts(options: ManifestOptions) -> dict[Part, Table]:
    """The rows of each part, in the order of the file.

    Raises:
        DataError: a column is absent, a split has another name, or nothing is there for training or testing.
    """
    columns = [option.column or name for name, option in options.modalities.items()]
    columns += [options.target, *filter(None, (options.id_column, options.group_column))]
    if isinstance(options.csv, str):
        path = expand(options.csv, NAME)
        parts = by_split(Table(path, read_table(path, [*columns, options.split_column])), options.split_column)
    else:
        paths: dict[Part, Path] = {part: expand(csv, NAME) for part, csv in options.csv.items()}
        parts = {part: Table(path, read_table(path, columns)) for part, path in paths.items()}
    for part in ("train", "test"):
        if part not in parts or not parts[part].rows:
            raise DataError(f"data set '{NAME}': {options.csv} has no row for {part}")
    return parts


def labels_of(table: Table, options: ManifestOptions, classes: Sequence[str]) -> Tensor:
    """Class index of every row, (N,) int64.

    Raises:
        DataError: a row names no class, or one that is not known.
    """
    labels = []
    for row in table.rows:
        cell = row[options.target].strip()
        try:
            labels.append(class_index(cell, classes, by_number=bool(options.classes)))
        except Unreadable as error:
            problem = error if cell else "the cell is empty"
            raise DataError(f"{table.place(row)} column {options.target}: {problem}") from None
    return torch.tensor(labels, dtype=torch.int64)


def check_quantities(table: Table, options: ManifestOptions, count: int) -> None:
    """Read the target of every row before training begins.

    Raises:
        DataError: a cell does not hold ``count`` finite numbers.
    """
    for row in table.rows:
        try:
            read_quantities(row[options.target], count)
        except Unreadable as error:
            raise DataError(f"{table.place(row)} column {options.target}: {error}") from None


def find_shapes(train: ManifestDataset, on_unreadable: Literal["error", "missing"]) -> dict[str, tuple[int, ...]]:
    """Shape of every modality: that of the first training cell, or the first readable one where files may be bad.

    Raises:
        DataError: a modality is in no training row, or its first cell is unreadable and that is an error.
    """
    return {name: _first_shape(train, name, on_unreadable) for name in train.readers}


def _first_shape(train: ManifestDataset, name: str, on_unreadable: Literal["error", "missing"]) -> tuple[int, ...]:
    for index in range(len(train)):
        cell = train.cell(index, name)
        if not cell:
            continue
        try:
            return tuple(train.readers[name](cell).shape)
        except Unreadable as error:
            if on_unreadable == "error":
                raise train.bad_cell(index, name, str(error)) from None
    raise DataError(f"{train.path}: no training row has a readable cell in column {train.columns[name]}")


def make_datasets(
    options: ManifestOptions, parts: Mapping[Part, Table], classes: tuple[str, ...]
) -> Iterator[tuple[Part, ManifestDataset]]:
    """The parts as data sets, rows without any modality refused."""
    names = sample_names(parts, options.id_column)
    columns = {name: option.column or name for name, option in options.modalities.items()}
    for part, table in parts.items():
        folder = table.path.parent if options.root is None else expand(options.root, NAME)
        if options.task == "segmentation":
            size = options.target_size or ()
            read_target = partial(read_label_map, folder=folder, size=size, num_classes=len(classes), ignore=VOID)
        elif options.task == "regression":
            check_quantities(table, options, len(classes))
            read_target = partial(read_quantities, count=len(classes))
        else:
            labels_of(table, options, classes)  # every class is known before training begins
            read_target = partial(read_class, classes=classes, by_number=bool(options.classes))
        readers = {name: option.reader(folder) for name, option in options.modalities.items()}
        dataset = ManifestDataset(
            table.path, table.rows, columns, readers, options.target, read_target, names[part], cache=options.cache
        )
        dataset.refuse_empty_rows()
        yield part, dataset


def count_unreadable(datasets: Mapping[Part, ManifestDataset], shapes: Mapping[str, tuple[int, ...]]) -> Notes:
    """Read all files, where bad ones count as absent; warn of these, and count them for the result file.

    Returns:
        ``unreadable``, how many cells; if there are any, ``unreadable_cells``, how many by part and modality.

    Raises:
        DataError: nothing readable is left in a row.
    """
    for dataset in datasets.values():
        dataset.count_unreadable(shapes)
    cells = [text for dataset in datasets.values() for text in dataset.unreadable_cells]
    if not cells:
        return {"unreadable": 0}
    counts = "; ".join(
        f"{part} " + ", ".join(f"{name} {count}" for name, count in dataset.unreadable.items())
        for part, dataset in datasets.items()
        if dataset.unreadable
    )
    heading = f"{datasets['train'].path}: cells that are unreadable and count as absent: {len(cells)} ({counts})"
    _warn_once("\n  ".join([heading, *first_few(cells)]))
    return {"unreadable": len(cells), "unreadable_cells": counts}


@cache
def _warn_once(message: str) -> None:
    """Warn, unless this process has said the very same before: evaluation builds the data set again."""
    _log.warning("%s", message)


def build_manifest(**options: Any) -> DataSplits:
    """The parts of a manifest; see `ManifestOptions`.

    Raises:
        DataError: the file does not hold what the options say; names file, line and column.
    """
    return build_from(ManifestOptions.model_validate(options))


def build_from(options: ManifestOptions) -> DataSplits:
    """As `build_manifest`, from checked options."""
    parts = read_parts(options)
    classes = options.classes or _names_of_targets(parts["train"], options)
    datasets = dict(make_datasets(options, parts, classes))
    if options.on_unreadable == "error":
        refuse_absent_files(datasets.values())
    shapes = find_shapes(datasets["train"], options.on_unreadable)
    unreadable = count_unreadable(datasets, shapes) if options.on_unreadable == "missing" else {}
    notes: Notes = {
        "split": "as the manifest says",
        **{part: len(dataset) for part, dataset in datasets.items()},
        **unreadable,
        "licence": "of the user's own data",
        "citation": "none",
    }
    return DataSplits(
        tuple(
            Modality(name, option.kind, shapes[name], Scaling(option.scaling), reading=option.reading)
            for name, option in options.modalities.items()
        ),
        options.task,
        tuple(classes),
        datasets["train"],
        datasets["test"],
        datasets.get("validation"),
        train_labels=labels_of(parts["train"], options, classes) if options.task == "classification" else None,
        train_groups=groups_of(parts["train"], options.group_column),
        notes=notes,
    )


def _names_of_targets(train: Table, options: ManifestOptions) -> tuple[str, ...]:
    """The classes of training, or the one quantity that a column of numbers holds."""
    return (options.target,) if options.task == "regression" else class_names(train, options.target)


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer manifests."""
    register(
        Component(
            NAME,
            build_manifest,
            ManifestOptions,
            "Your own data: a CSV file with one column per modality; cells may be empty, files or numbers.",
            "robustmm",
        )
    )
