"""Trees of pictures: a folder per modality and one of label maps, the files of a sample with one stem."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustmm import Augmentation, DataError, Modality, Role

from ._images import ImageDataset, Item, Reader, list_files, read_label_map

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".npy")
LABELS = (".png", ".npy")
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
#: So many files or names stand in a message.
NAMED = 5


@dataclass(frozen=True)
class Column:
    """A modality of a tree.

    Args:
        modality: Its shape is (C, H, W) with the size to which pictures are brought.
        folder: Where its files lie, below the tree's root.
        read: Path -> raw values.
        role: In resizing and augmentation.
    """

    modality: Modality
    folder: str
    read: Reader
    role: Role


@dataclass(frozen=True)
class Tree:
    """A folder of pictures.

    Args:
        root: The folder.
        columns: Its modalities.
        label_folder: Where label maps lie.
        num_classes: Labels are 0 to ``num_classes`` - 1, or void 255.
        may_lack: Whether a sample may lack modalities; its label map is always needed.
    """

    root: Path
    columns: tuple[Column, ...]
    label_folder: str
    num_classes: int
    may_lack: bool = False

    def stems(self) -> list[str]:
        """Names of the samples, in the order of the alphabet: of the label maps that are there."""
        return list(list_files(self.root / self.label_folder, LABELS))

    def dataset(
        self,
        names: Sequence[str],
        augmentation: Augmentation | None = None,
        on_unreadable: Literal["error", "missing"] = "error",
        prefix: str = "",
    ) -> ImageDataset:
        """Samples of the given names; their ids are the names behind ``prefix``.

        Raises:
            DataError: a label map is not there, or a modality that may not be lacking.
        """
        labels = list_files(self.root / self.label_folder, LABELS)
        files = {column.modality.name: list_files(self.root / column.folder, PICTURES) for column in self.columns}
        self._refuse_absent(names, self.label_folder, labels)
        for column in () if self.may_lack else self.columns:
            self._refuse_absent(names, column.folder, files[column.modality.name])
        items = [
            Item(prefix + name, {column: paths[name] for column, paths in files.items() if name in paths}, labels[name])
            for name in names
        ]
        shape = self.columns[0].modality.shape
        return ImageDataset(
            items,
            [column.modality for column in self.columns],
            {column.modality.name: column.read for column in self.columns},
            read_label_map,
            num_classes=self.num_classes,
            size=(shape[1], shape[2]),
            roles={column.modality.name: column.role for column in self.columns},
            augmentation=augmentation,
            on_unreadable=on_unreadable,
        )

    def _refuse_absent(self, names: Sequence[str], folder: str, found: Mapping[str, Path]) -> None:
        absent = [name for name in names if name not in found]
        if absent:
            has = f"it holds {listed(list(found))}" if found else "it is empty or not there"
            raise DataError(
                f"{self.root / folder}: no file of {len(absent)} of {len(names)} samples: {listed(absent)}; {has}"
            )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def read_splits(path: Path) -> dict[Part, list[str]]:
    """Names of the samples of each part, from a JSON file ``{"train": [...], "val": [...], "test": [...]}``.

    Raises:
        DataError: the file is damaged, a part is absent or empty, or a name stands twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error})") from None
    parts: dict[Part, list[str]] = {}
    for part in PARTS:
        names = content.get(part) if isinstance(content, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: '{part}' must be a list of names that is not empty")
        parts[part] = names
    everything = [name for names in parts.values() for name in names]
    twice = sorted({name for name in everything if everything.count(name) > 1})
    if twice:
        raise DataError(f"{path}: a sample stands in two places: {listed(twice)}")
    return parts
