"""NYU Depth V2: 1449 labelled Kinect pictures of rooms with depth, 40 or 13 classes.

The split is the published one, 795 training and 654 test pictures. There is no validation part: the released codes of
ESANet, MMANet and DMRNet choose their weights on the test part. Here validation is carved from training, whole scenes
at a time, so figures are not comparable digit by digit with those that were selected on test.

Refined depth has its holes filled, and every pixel is scaled; in raw depth 0 means not measured and stays 0. Both are
scaled by the published statistics of refined depth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from robustmm import Augmentation, Component, DataSplits, Modality, Options, Scaling, Track, hookimpl

from ._files import Notes
from ._nyuv2_files import (
    MAPPING_13,
    MAPPING_40,
    MAT,
    SPLITS,
    Classes,
    Depth,
    official_source,
    prepared_source,
    write_tree,
)
from ._published import ESANET_COLOUR, IMAGENET, Published, Size, make_splits, palette
from ._rgbd_classes import NYU_13, NYU_40
from ._written_once import read_back

NAME = "nyuv2"
#: Mean and deviation of refined depth in mm over the training part, as ESANet publishes them.
DEPTH_MEAN_MM, DEPTH_STD_MM = 2841.94941272766, 1417.2594281672277
PUBLISHED = Published(
    NAME,
    {"official": (MAT, SPLITS, MAPPING_40), "prepared": ("train.txt", "test.txt", "train/rgb", "test/rgb")},
    {
        "official": f"""
{MAT}
{SPLITS}
{MAPPING_40}
{MAPPING_13}            (for 13 classes)
""",
        "prepared": """
train.txt, test.txt           (lists of four digits)
scenes.txt                    (optional: keeps the pictures of a scene together in carving)
{train,test}/rgb/NNNN.png
{train,test}/depth/NNNN.png   (16 bits, mm)
{train,test}/depth_raw/NNNN.png
{train,test}/labels_40/NNNN.png
{train,test}/labels_13/NNNN.png
""",
    },
    f"Obtain {MAT} (2.8 GB) from the page 'NYU Depth Dataset V2' "
    f"(https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html), and {SPLITS}, {MAPPING_40} and {MAPPING_13} from the "
    "public NYUv2 toolboxes (such as https://github.com/VainF/nyuv2-python-toolkit). No licence is stated; cite the "
    "paper.",
)
CITATION = "N. Silberman, D. Hoiem, P. Kohli, R. Fergus: Indoor Segmentation and Support Inference, ECCV 2012"


class NyuOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the files, in either form; variables are expanded.
        form: Which form is read.
        classes: 40, or the coarser 13.
        depth: ``refined`` has its holes filled; ``raw`` is as measured, 0 where nothing was.
        size: (H, W) of inputs; label maps keep their own size in evaluation.
        augmentation: Of training; the default is ESANet's protocol.
    """

    root: str = Field("$ROBUSTMM_DATA/nyuv2", description="folder of the files, published or prepared")
    form: Literal["auto", "official", "prepared"] = Field("auto", description="which form of the files is read")
    classes: Classes = Field(40, description="40, or the coarser 13")
    depth: Depth = Field("refined", description="holes filled, or as measured with 0 for nothing")
    size: Size = Field((480, 640), description="[H, W] of inputs")
    augmentation: Augmentation | None = Field(
        Augmentation(rescale=(1.0, 1.4), flip=0.5, **ESANET_COLOUR), description="of training; ESANet's by default"
    )

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def build_nyuv2(
    root: str,
    form: Literal["auto", "official", "prepared"],
    classes: Classes,
    depth: Depth,
    size: Size,
    augmentation: Augmentation | None,
) -> DataSplits:
    """Pictures, depth in mm and label maps; see `NyuOptions`.

    Raises:
        DataError: the files are not there, damaged or do not fit together.
    """
    found, folder = PUBLISHED.find(root, form)
    source = (official_source if found == "official" else prepared_source)(folder, classes, depth)
    scaling = Scaling("constants", (DEPTH_MEAN_MM,), (DEPTH_STD_MM,), invalid=0.0 if depth == "raw" else None)
    names = NYU_40 if classes == 40 else NYU_13
    notes: Notes = {
        "split": "published: 795 train, 654 test; the published codes select on test, here validation is carved",
        "form": found,
        "depth": f"{depth}, mm",
        "licence": "none stated",
        "citation": CITATION,
    }
    return make_splits(
        source,
        (
            Modality("rgb", "image", (3, *size), IMAGENET, "0-255"),
            Modality("depth", "image", (1, *size), scaling, "mm"),
        ),
        names,
        colours=palette(len(names)),
        augmentation=augmentation,
        notes=notes,
    )


def prepare_nyuv2(source: Path, target: Path, track: Track) -> str:
    """PNG files from the MATLAB files; see `robustmm.registry.Prepare`.

    Raises:
        DataError: the source is not as published, or what was written cannot be read.
    """
    PUBLISHED.find(str(source), "official")
    kinds = write_tree(source, target, track)
    choices: tuple[tuple[Classes, Depth], ...] = ((40, "refined"), (13 if "labels_13" in kinds else 40, "raw"))
    for classes, depth in choices:
        splits = build_nyuv2(str(target), "prepared", classes, depth, (480, 640), None)
        read_back(splits, track)
    return f"{target}: {len(splits.train)} training and {len(splits.test)} test pictures ({', '.join(kinds)})"


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer NYUv2."""
    register(
        Component(
            NAME,
            build_nyuv2,
            NyuOptions,
            "Rooms with depth, 40 or 13 classes, 795 / 654 pictures; read from the MATLAB files or from PNG files.",
            "Silberman et al., ECCV 2012; layout and scaling as TUI-NICR/ESANet",
            fidelity="code",
            prepare=prepare_nyuv2,
        )
    )
