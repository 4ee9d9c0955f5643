"""Your own pictures and label maps without code or tables: a folder per part, in it a folder per modality.

Either ``root/train/rgb/0001.jpg`` with ``root/train/label/0001.png`` and the same below ``val`` and ``test``; or one
tree, ``root/rgb/0001.jpg`` with ``root/label/0001.png``, and lists of names ``root/train.txt``, ``val.txt`` and
``test.txt``. The files of a sample have one stem. A modality whose file is not there is missing for that sample; a
sample without a label map is left out and counted. Label maps hold class indices from 0, and 255 where nothing counts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from robustmm import (
    Augmentation,
    Component,
    DataError,
    DataSplits,
    Modality,
    Options,
    Reading,
    Role,
    Scaling,
    did_you_mean,
    hookimpl,
)

from ._cells import Unreadable
from ._files import Array, Notes, expand
from ._image_tree import PICTURES, Column, Part, Tree, listed
from ._images import ImageDataset, list_files, read_colour, read_depth, read_grey, read_npy
from ._published import IMAGENET, read_lines

NAME = "image_folder"
#: Part -> names that its folder or list may have.
PART_NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
EXPECTED = (
    "expected {root}/{{train,val,test}}/{{{folders}}}/NAME.png, or {root}/{{{folders}}}/NAME.png with the lists "
    "{root}/{{train,val,test}}.txt"
)
_log = logging.getLogger("robustmm.data")


class FolderColumn(Options):
    """One modality.

    Args:
        folder: Its folder; by default of the modality's own name.
        role: ``colour`` is smoothed when resized and takes photometric changes, ``continuous`` is smoothed, ``exact``
            keeps its values, as depth with holes needs.
        channels: 3 (colour pictures), 1 (grey, 8 or 16 bits, or floating point TIFF); any number from ``.npy`` files.
        unit: Of the raw values.
        invalid: Raw value that says "not measured"; values that are not finite become it. For role ``exact`` alone:
            smoothing would mix it into its neighbours.
        scaling: By the training part, by ImageNet's constants (three channels of 8 bits), or not at all.
    """

    folder: str | None = Field(None, description="its folder; default: the modality's name")
    role: Role = Field(description="colour, continuous or exact: how it is resized and augmented")
    channels: int = Field(3, ge=1, description="3 colour, 1 grey or depth; other numbers from .npy files")
    unit: str = Field("", description="of the raw values, such as mm")
    invalid: float | None = Field(None, description="raw value that says 'not measured'")
    scaling: Literal["standardise", "imagenet", "none"] = Field("standardise", description="how values are scaled")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scaling == "imagenet" and self.channels != 3:
            raise ValueError("scaling imagenet is for three channels of 8 bits")
        if self.invalid is not None and self.role != "exact":
            raise ValueError(
                f"invalid needs role exact: {self.role} is smoothed, which would mix it with measured values"
            )
        return self

    def column(self, name: str, size: tuple[int, int]) -> Column:
        """What the tree needs to know."""
        scaling = IMAGENET if self.scaling == "imagenet" else Scaling(self.scaling)
        modality = Modality(
            name,
            "image",
            (self.channels, *size),
            replace(scaling, invalid=self.invalid),
            self.unit,
            Reading(resize="nearest" if self.role == "exact" else "area"),
        )
        return Column(modality, self.folder or name, PictureReader(self.channels, self.role, self.invalid), self.role)


class FolderOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the parts; variables are expanded.
        modalities: Name -> what it is, in column order.
        classes: Class names in the order of the indices.
        label_folder: Folder of the label maps.
        size: (H, W) of inputs; label maps keep their own size in evaluation.
        group_pattern: Regular expression whose first group, found in a sample's name, names its place or recording; a
            group is never parted when validation is carved from training.
        colours: Red, green and blue of each class, for pictures.
        augmentation: Of training.
        on_unreadable: ``error`` stops, ``missing`` counts a modality that cannot be read as absent.
    """

    root: str = Field(description="folder of the parts")
    modalities: dict[str, FolderColumn] = Field(min_length=1, description="name -> role, channels, unit, folder")
    classes: tuple[str, ...] = Field(min_length=2, max_length=255, description="class names, in the indices' order")
    label_folder: str = Field("label", description="folder of the label maps")
    size: tuple[int, int] = Field(description="[H, W] of inputs")
    group_pattern: str | None = Field(None, description="regular expression; its first group names place or recording")
    colours: tuple[tuple[int, int, int], ...] | None = Field(None, description="[red, green, blue] of each class")
    augmentation: Augmentation | None = Field(None, description="of training")
    on_unreadable: Literal["error", "missing"] = Field("error", description="stop, or count as absent")

    @classmethod
    def contract_example(cls) -> None:
        """None: a folder belongs to data."""
        return

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name stands there twice")
        if self.colours is not None and len(self.colours) != len(self.classes):
            raise ValueError(f"colours: {len(self.colours)} for {len(self.classes)} classes")
        if min(self.size) < 1:
            raise ValueError("size must be positive")
        if self.group_pattern is not None and _groups_in(self.group_pattern) < 1:
            raise ValueError(r"group_pattern needs a group in brackets, such as '(seq\d+)_'")
        return self


def _groups_in(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"group_pattern is no regular expression: {error}") from None


@dataclass(frozen=True)
class PictureReader:
    """Reads a modality's files by their suffix.

    Args:
        channels: Of the modality.
        role: Grey pictures of role ``colour`` are 8-bit; of other roles they keep their values.
        invalid: What values that are not finite become; None refuses them.
    """

    channels: int
    role: Role
    invalid: float | None

    def __call__(self, path: Path) -> Array:
        """(H, W) or (H, W, C), raw values as uint8, uint16 or float32.

        Raises:
            Unreadable: the file is damaged, has other channels, or holds values that are not finite.
        """
        values = self._read(path)
        if values.dtype in (np.uint8, np.uint16):
            return values
        values = values.astype(np.float32)
        bad = ~np.isfinite(values)
        if bad.any():
            if self.invalid is None:
                raise Unreadable(
                    "holds values that are not finite; set 'invalid' (and role exact) to say what they become"
                )
            values[bad] = self.invalid
        return values

    def _read(self, path: Path) -> Array:
        if path.suffix.lower() == ".npy":
            return read_npy(path)
        if self.channels == 3:
            return read_colour(path)
        if self.channels == 1:
            return read_grey(path) if self.role == "colour" else read_depth(path)
        raise Unreadable(f"pictures have 1 or 3 channels; {self.channels} are read from .npy files (H, W, C)")


@dataclass(frozen=True)
class Found:
    """A part: its tree and the names of its samples; ``prefix`` makes names of different parts different."""

    tree: Tree
    names: Sequence[str]
    prefix: str


def find_parts(root: Path, columns: tuple[Column, ...], label_folder: str, num_classes: int) -> dict[Part, Found]:
    """The parts that are there, as folders or as lists.

    Raises:
        DataError: nothing is there for training or testing; says what was found and what is expected.
    """
    parts: dict[Part, Found] = {}
    for part, names in PART_NAMES.items():
        for name in names:
            if (root / name).is_dir():
                tree = Tree(root / name, columns, label_folder, num_classes, may_lack=True)
                parts[part] = Found(tree, tree.stems(), f"{name}/")
            elif (root / f"{name}.txt").is_file():
                tree = Tree(root, columns, label_folder, num_classes, may_lack=True)
                parts[part] = Found(tree, read_lines(root / f"{name}.txt"), "")
    for part in ("train", "test"):
        if part not in parts:
            there = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
            what = f"holds {listed(there)}" if there else "is empty" if root.is_dir() else "is not a folder"
            folders = ",".join([*(column.folder for column in columns), label_folder])
            raise DataError(
                f"data set '{NAME}': nothing for {part}: {root} {what}; {EXPECTED.format(root=root, folders=folders)}"
            )
    return parts


def check_train(found: Found) -> None:
    """See that every modality is there for training.

    Raises:
        DataError: there is no label map, or a modality's folder is not there or empty; says what is there.
    """
    tree = found.tree
    there = sorted(entry.name for entry in tree.root.iterdir() if entry.is_dir())
    if not found.names:
        raise DataError(
            f"{tree.root / tree.label_folder}: no label map (.png or .npy) is there; folders: {listed(there) or 'none'}"
        )
    for column in tree.columns:
        if not list_files(tree.root / column.folder, PICTURES):
            raise DataError(
                f"{tree.root / column.folder}: no file of modality '{column.modality.name}' is there"
                f"{did_you_mean(column.folder, there)}; folders: {listed(there) or 'none'}; "
                f"files may be {', '.join(PICTURES)}"
            )


def count_unlabelled(part: Part, found: Found) -> int:
    """How many samples have pictures and no label map, where a part is a folder; says so in the log."""
    if not found.prefix:
        return 0
    pictured = {name for column in found.tree.columns for name in list_files(found.tree.root / column.folder, PICTURES)}
    unlabelled = sorted(pictured - set(found.names))
    if unlabelled:
        _log.warning("%s: %d samples without label map left out: %s", part, len(unlabelled), listed(unlabelled))
    return len(unlabelled)


def refuse_empty(dataset: ImageDataset) -> None:
    """Raise DataError for a sample of which no modality is there."""
    empty = [item.id for item in dataset.items if not item.places]
    if empty:
        raise DataError(f"{len(empty)} samples have a label map and no modality: {listed(empty)}; leave them out")


def groups_of(names: Sequence[str], pattern: str | None) -> torch.Tensor | None:
    """Group of each name, (N,) int64; None without a pattern.

    Raises:
        DataError: the pattern is not found in a name.
    """
    if pattern is None:
        return None
    found = [re.search(pattern, name) for name in names]
    if None in found:
        raise DataError(f"data set '{NAME}': group_pattern '{pattern}' is not found in '{names[found.index(None)]}'")
    words = [match.group(1) for match in found if match is not None]
    known = sorted(set(words))
    return torch.tensor([known.index(word) for word in words])


def build_image_folder(**options: Any) -> DataSplits:
    """The parts of a folder; see `FolderOptions`.

    Raises:
        DataError: the folder does not hold what the options say.
    """
    return build_from(FolderOptions.model_validate(options))


def build_from(options: FolderOptions) -> DataSplits:
    """As `build_image_folder`, from checked options."""
    root = expand(options.root, NAME)
    columns = tuple(option.column(name, options.size) for name, option in options.modalities.items())
    parts = find_parts(root, columns, options.label_folder, len(options.classes))
    check_train(parts["train"])
    unlabelled = {part: count_unlabelled(part, found) for part, found in parts.items()}
    datasets: Mapping[Part, ImageDataset] = {
        part: found.tree.dataset(
            found.names, options.augmentation if part == "train" else None, options.on_unreadable, found.prefix
        )
        for part, found in parts.items()
    }
    for dataset in datasets.values():
        refuse_empty(dataset)
    notes: Notes = {
        "split": "as the folders say" if parts["train"].prefix else "as the lists say",
        **{part: len(dataset) for part, dataset in datasets.items()},
        "without label map": sum(unlabelled.values()),
        "licence": "of the user's own data",
        "citation": "none",
    }
    return DataSplits(
        tuple(column.modality for column in columns),
        "segmentation",
        options.classes,
        datasets["train"],
        datasets["test"],
        datasets.get("val"),
        train_groups=groups_of(parts["train"].names, options.group_pattern),
        colours=options.colours,
        notes=notes,
    )


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer folders of pictures."""
    register(
        Component(
            NAME,
            build_image_folder,
            FolderOptions,
            "Your own pictures and label maps: a folder per part and modality; files that are not there are missing.",
            "robustmm",
        )
    )
