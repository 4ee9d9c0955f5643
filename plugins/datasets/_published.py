"""What the readers of published RGB-D sets share: which form of the set is there, what to say if none is, and parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from robustmm import VOID, Augmentation, DataError, DataSplits, Modality, Reading, Role, Scaling

from ._cells import Unreadable
from ._files import DATA_VARIABLE, Array, Notes, expand
from ._images import ImageDataset, Item, Reader

Form = Literal["official", "prepared"]
Size = tuple[int, int]
#: Mean and deviation of ImageNet's pictures, in levels of 255.
IMAGENET = Scaling("constants", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
#: ESANet's photometric changes; its jitter of the value was 25 levels in the releases that the papers used.
ESANET_COLOUR = {"hue": 0.1, "saturation": 0.1, "value": 25.0}


@dataclass(frozen=True)
class Published:
    """What is said of a data set that is not part of the project.

    Args:
        name: Of the data set.
        needs: Form -> files and folders that tell that it is there.
        trees: Form -> the expected tree, without the root.
        obtain: What to get, from where, and on which terms.
    """

    name: str
    needs: Mapping[Form, tuple[str, ...]]
    trees: Mapping[Form, str]
    obtain: str

    def find(self, root: str, wanted: Literal["auto", "official", "prepared"]) -> tuple[Form, Path]:
        """Which form lies in ``root``; the prepared one goes first, it was made on purpose.

        Raises:
            DataError: a variable is not set, or no form is whole; says what to obtain and where to put it.
        """
        forms: tuple[Form, ...] = ("prepared", "official") if wanted == "auto" else (wanted,)
        try:
            folder = expand(root, self.name)
        except DataError as error:
            raise DataError(f"{error}\n{self.advice(root)}") from None
        absent = {form: [need for need in self.needs[form] if not (folder / need).exists()] for form in forms}
        for form in forms:
            if not absent[form]:
                return form, folder
        closest = min(reversed(forms), key=lambda form: len(absent[form]) / len(self.needs[form]))
        lack = f"lacks {', '.join(absent[closest])} ({closest})" if folder.is_dir() else "is not a folder"
        raise DataError(f"data set '{self.name}': {folder} {lack}\n{self.advice(root)}")

    def advice(self, root: str) -> str:
        """What to obtain, where to put it, and the expected trees; many lines."""
        lines = [
            self.obtain,
            f"Expected below {root}, as published:",
            _indented(self.trees["official"]),
            f"or as written by 'robustmm data prepare {self.name} SOURCE TARGET':",
            _indented(self.trees["prepared"]),
            f"Then set {DATA_VARIABLE} to the folder of your data sets, or the option 'root' to this one.",
        ]
        return "\n".join(lines)


def _indented(tree: str) -> str:
    return "\n".join(f"    {line}" for line in tree.strip("\n").splitlines())


@dataclass(frozen=True)
class Source:
    """The parts of a data set in one of its forms, and how they are read.

    Args:
        train: Items of the training part.
        test: Items of the test part.
        readers: Modality -> reader of raw values.
        read_label: Reader of label maps with classes from 0 and void 255.
        groups: What a group of the training part is, such as ``scene``; empty where there are none.
    """

    train: tuple[Item, ...]
    test: tuple[Item, ...]
    readers: Mapping[str, Reader]
    read_label: Reader
    groups: str = ""


@dataclass(frozen=True)
class Targets:
    """Reads label maps as targets.

    Args:
        read: Gives (H, W) with 0 for void and classes from 1.
    """

    read: Reader

    def __call__(self, place: Any) -> Array:
        """(H, W) uint8 with classes from 0 and 255 for void.

        Raises:
            Unreadable: as for ``read``, or there are labels that 8 bits do not hold.
        """
        labels = self.read(place)
        if labels.dtype != np.uint8 and ((labels < 0) | (labels >= VOID)).any():
            raise Unreadable(f"holds labels {labels.min()} to {labels.max()}; expected 0 for void and classes from 1")
        shifted: Array = labels.astype(np.uint8) - np.uint8(1)  # 0 wraps round to 255
        return shifted


def depth_roles(modalities: Sequence[Modality]) -> dict[str, Role]:
    """Colour for pictures of three channels, exact values for everything else."""
    return {modality.name: "colour" if modality.shape[0] == 3 else "exact" for modality in modalities}


def make_splits(
    source: Source,
    modalities: tuple[Modality, ...],
    classes: tuple[str, ...],
    *,
    colours: tuple[tuple[int, int, int], ...],
    augmentation: Augmentation | None,
    test_size: Size | None = None,
    notes: Notes,
) -> DataSplits:
    """The parts as data sets.

    Args:
        source: Items and readers.
        modalities: Columns, each of shape (C, H, W) with the size of training.
        classes: Without void.
        colours: One per class.
        augmentation: For training.
        test_size: (H, W) of test inputs; None means as in training.
        notes: Facts beside those that are counted here.
    """
    size = (modalities[0].shape[1], modalities[0].shape[2])
    parts = [
        ImageDataset(
            items,
            modalities,
            source.readers,
            source.read_label,
            num_classes=len(classes),
            size=part_size,
            roles=depth_roles(modalities),
            augmentation=augmentation,
        )
        for items, part_size in ((source.train, size), (source.test, test_size or size))
    ]
    by = f"by {source.groups}" if source.groups else "by picture"
    return DataSplits(
        tuple(_read_by_role(modality) for modality in modalities),
        "segmentation",
        classes,
        parts[0],
        parts[1],
        train_groups=torch.tensor([item.group for item in source.train]) if source.groups else None,
        colours=colours,
        notes={**notes, "carved": by, "train": len(parts[0]), "test": len(parts[1])},
    )


def _read_by_role(modality: Modality) -> Modality:
    """The modality with how `depth_roles` has it resized."""
    return modality if modality.shape[0] == 3 else replace(modality, reading=Reading(resize="nearest"))


def number_groups(names: Sequence[str]) -> list[int]:
    """Names as numbers, equal names alike, in the order of the alphabet."""
    known = {name: number for number, name in enumerate(sorted(set(names)))}
    return [known[name] for name in names]


def read_lines(path: Path) -> list[str]:
    """Lines of a list, without empty ones.

    Raises:
        DataError: the file cannot be read, or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list ({error})") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} lists nothing")
    return found


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of classes 1 to ``count`` in the palette of PASCAL VOC, where bits of the class number become colour."""
    return tuple((_bits(label, 0), _bits(label, 1), _bits(label, 2)) for label in range(1, count + 1))


def _bits(label: int, channel: int) -> int:
    """Every third bit of a label, from ``channel`` on, the lowest as the highest of a byte."""
    return sum((label >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
