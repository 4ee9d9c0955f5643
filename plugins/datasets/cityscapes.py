"""Cityscapes: 5000 street scenes from 50 cities with stereo disparity, 19 classes.

The labels of the test split are withheld by the publishers. As in the published codes the ``val`` split (500 frames)
is what is tested on; to keep it out of model selection, validation is carved from training (2975 frames), whole cities
at a time.

Depth is made from disparity and the camera's parameters, in metres; 0 where nothing was measured, and beyond 300 m. It
passes through half precision, as in the files that ESANet's code writes, so that both forms give the same numbers.

Training cuts pieces of ``size`` from pictures of 1024 x 2048, magnified by 0.5 to 2. Evaluation resizes whole pictures
to ``evaluation_size``; label maps keep their own size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from robustmm import Augmentation, Component, DataSplits, Modality, Options, Scaling, Track, hookimpl

from ._cityscapes_files import (
    DEPTH_FOLDERS,
    OFFICIAL,
    Depth,
    modality_of,
    official_source,
    prepared_source,
    write_tree,
)
from ._files import Notes
from ._published import ESANET_COLOUR, IMAGENET, Published, Size, make_splits
from ._rgbd_classes import CITYSCAPES
from ._written_once import read_back

NAME = "cityscapes"
#: Mean and deviation over what was measured in the training part, as ESANet publishes them.
STATISTICS: dict[Depth, tuple[float, float]] = {
    "metres": (31.715617493177906, 38.70280704877372),
    "disparity": (9069.706336834102, 7178.335960071306),
}
UNITS: dict[Depth, str] = {"metres": "m", "disparity": "1/256 pixel, plus 1"}
PUBLISHED = Published(
    NAME,
    {
        "official": tuple(
            f"{folder}/{split}" for folder, _ in list(OFFICIAL.values())[:3] for split in ("train", "val")
        ),
        "prepared": tuple(f"{split}_{kind}.txt" for split in ("train", "valid") for kind in ("rgb", "labels_19")),
    },
    {
        "official": """
leftImg8bit/{train,val}/CITY/CITY_SEQ_FRAME_leftImg8bit.png
gtFine/{train,val}/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png
disparity/{train,val}/CITY/CITY_SEQ_FRAME_disparity.png
camera/{train,val}/CITY/CITY_SEQ_FRAME_camera.json    (for depth in metres)
""",
        "prepared": """
{train,valid}_{rgb,depth_raw,disparity_raw,labels_19,labels_33}.txt
{train,valid}/{rgb,depth_raw,disparity_raw,labels_19,labels_33}/CITY/
""",
    },
    "Obtain leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip, disparity_trainvaltest.zip and "
    "camera_trainvaltest.zip from https://www.cityscapes-dataset.com and unpack them into one folder; registration, "
    "non-commercial use.",
)
CITATION = "M. Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016"


class CityscapesOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the files, in either form; variables are expanded.
        form: Which form is read.
        depth: ``metres``, in a modality called depth; or ``disparity``, the numbers of the files, in one called so.
        size: (H, W) of training inputs.
        evaluation_size: (H, W) of test inputs; null means ``size``. Validation, a part of training, has ``size``.
        augmentation: Of training; the default is ESANet's protocol.
    """

    root: str = Field("$ROBUSTMM_DATA/cityscapes", description="folder of the files, published or prepared")
    form: Literal["auto", "official", "prepared"] = Field("auto", description="which form of the files is read")
    depth: Depth = Field("metres", description="depth in metres, or disparity as in the files")
    size: Size = Field((512, 1024), description="[H, W] of training inputs")
    evaluation_size: Size | None = Field(None, description="[H, W] of test inputs; null: as in training")
    augmentation: Augmentation | None = Field(
        Augmentation(rescale=(0.5, 2.0), rescale_from="native", flip=0.5, **ESANET_COLOUR),
        description="of training; ESANet's by default",
    )

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def build_cityscapes(
    root: str,
    form: Literal["auto", "official", "prepared"],
    depth: Depth,
    size: Size,
    evaluation_size: Size | None,
    augmentation: Augmentation | None,
) -> DataSplits:
    """Pictures, depth or disparity, and label maps; see `CityscapesOptions`.

    Raises:
        DataError: the files are not there, damaged or do not fit together.
    """
    found, folder = PUBLISHED.find(root, form)
    source = (official_source if found == "official" else prepared_source)(folder, depth)
    mean, std = STATISTICS[depth]
    scaling = Scaling("constants", (mean,), (std,), invalid=0.0)
    notes: Notes = {
        "split": "train, and val as test: the labels of the test split are withheld; validation is carved from train",
        "form": found,
        "depth": f"{modality_of(depth)}, {UNITS[depth]}",
        "licence": "registration, non-commercial use",
        "citation": CITATION,
    }
    return make_splits(
        source,
        (
            Modality("rgb", "image", (3, *size), IMAGENET, "0-255"),
            Modality(modality_of(depth), "image", (1, *size), scaling, UNITS[depth]),
        ),
        tuple(CITYSCAPES),
        colours=tuple(colour for _, colour in CITYSCAPES.values()),
        augmentation=augmentation,
        test_size=evaluation_size,
        notes=notes,
    )


def prepare_cityscapes(source: Path, target: Path, track: Track) -> str:
    """The tree that ESANet's code prepares; see `robustmm.registry.Prepare`.

    Raises:
        DataError: the source is not as published, or what was written cannot be read.
    """
    PUBLISHED.find(str(source), "official")
    write_tree(source, target, track)
    for depth in DEPTH_FOLDERS:
        splits = build_cityscapes(str(target), "prepared", depth, (512, 1024), None, None)
        read_back(splits, track)
    return f"{target}: {len(splits.train)} frames of train and {len(splits.test)} of val (test has no labels)"


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer Cityscapes."""
    register(
        Component(
            NAME,
            build_cityscapes,
            CityscapesOptions,
            "Street scenes with depth from stereo, 19 classes; train 2975, tested on val 500, as published codes do.",
            "Cordts et al., CVPR 2016; layout and scaling as TUI-NICR/ESANet",
            fidelity="code",
            prepare=prepare_cityscapes,
        )
    )
