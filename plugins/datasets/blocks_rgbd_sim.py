"""Rendered scenes of boxes, cylinders and balls with depth: a SYNTHETIC set, shipped with the package.

A fixture and a controlled experiment, no evidence about the real world: report it as synthetic. Neither modality is
enough, by design. A share of the objects (40 %) wears the floor's own texture, so that only depth shows them; decals
are prints of 1 mm on the floor, so that only colour shows them. ``tools/generate_blocks_rgbd.py`` renders it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from robustmm import Augmentation, Component, DataError, DataSplits, Modality, Options, Scaling, hookimpl

from ._files import embedded, expand
from ._image_tree import Column, Tree, read_splits
from ._images import read_colour, read_depth

NAME = "blocks_rgbd_sim"
CLASSES = ("floor", "wall", "box", "cylinder", "ball", "decal")
COLOURS = ((187, 187, 187), (102, 153, 204), (238, 102, 119), (204, 187, 68), (34, 136, 51), (170, 51, 119))
TREE = "splits.json, rgb/NNNN.webp, depth/NNNN.png (16 bits, mm), label/NNNN.png"


class BlocksOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of a set that the generator wrote; empty takes the part that is shipped.
        size: (H, W) of inputs; rendered at 120 x 160.
        augmentation: Of training.
    """

    root: str = Field("", description="folder that tools/generate_blocks_rgbd.py wrote; empty: the part shipped here")
    size: tuple[int, int] = Field((120, 160), description="[H, W] of inputs; rendered at 120 x 160")
    augmentation: Augmentation | None = Field(
        Augmentation(rescale=(1.0, 1.4), flip=0.5, hue=0.1, saturation=0.1, value=25.0), description="of training"
    )


def find(root: str) -> Path:
    """The folder.

    Raises:
        DataError: nothing is there; says how it is made.
    """
    folder = expand(root, NAME) if root else embedded(NAME)
    if not (folder / "splits.json").is_file():
        raise DataError(
            f"data set '{NAME}': {folder} lacks splits.json; expected {TREE}. Render it: pip install pybullet, then "
            f"python tools/generate_blocks_rgbd.py --out {folder}; or leave 'root' out for the part that is shipped"
        )
    return folder


def build_blocks_rgbd_sim(root: str, size: tuple[int, int], augmentation: Augmentation | None) -> DataSplits:
    """Colour, depth in mm and label maps.

    Raises:
        DataError: files are absent or damaged.
    """
    folder = find(root)
    columns = (
        Column(Modality("rgb", "image", (3, *size), unit="0-255"), "rgb", read_colour, "colour"),
        Column(
            Modality("depth", "image", (1, *size), Scaling("standardise", invalid=0.0), "mm"),
            "depth",
            read_depth,
            "exact",
        ),
    )
    tree = Tree(folder, columns, "label", len(CLASSES))
    names = read_splits(folder / "splits.json")
    return DataSplits(
        tuple(column.modality for column in columns),
        "segmentation",
        CLASSES,
        tree.dataset(names["train"], augmentation),
        tree.dataset(names["test"]),
        tree.dataset(names["val"]),
        colours=COLOURS,
        notes={
            "synthetic": "rendered scenes; no evidence about the real world",
            "split": "by scene; scenes are independent",
            **{part: len(found) for part, found in names.items()},
            "licence": "own work, licence of the project",
            "citation": "none",
        },
    )


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the rendered scenes."""
    register(
        Component(
            NAME,
            build_blocks_rgbd_sim,
            BlocksOptions,
            "SYNTHETIC rendered RGB-D scenes, six classes; each modality sees what the other cannot; shipped.",
            "robustmm: rendered by tools/generate_blocks_rgbd.py",
        )
    )
