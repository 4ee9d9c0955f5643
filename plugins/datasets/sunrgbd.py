"""SUN RGB-D: 10335 pictures of rooms from four depth cameras, 37 classes.

The published split has 5285 training and 5050 test frames: what ``allsplit.mat`` does not list for training is for
testing. There is no validation part; it is carved from training, where frames of one SUN3D scan stay together.

Pictures of the four cameras have different sizes: inputs are resized to ``size``, label maps stay as they are and are
judged in their own size, so evaluate with ``evaluation.batch_size: 1``.

Depth files hold 16 bits rotated by three. ESANet and the codes after it do not undo that; ``values: raw_rotated`` gives
the same numbers, scaled by the published statistics. ``values: mm`` undoes it and clips at 8 m, as the toolbox of the
data set does; its statistics are an eighth of the published ones, because rotating by three bits multiplies by eight
where no bit is carried over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from robustmm import Augmentation, Component, DataSplits, Modality, Options, Scaling, Track, hookimpl

from ._files import Notes
from ._published import ESANET_COLOUR, IMAGENET, Published, Size, make_splits, palette
from ._rgbd_classes import SUN_37
from ._sunrgbd_files import LABELS, META, PICTURES, Depth, Values, official_source, prepared_source, write_tree
from ._written_once import read_back

NAME = "sunrgbd"
#: Mean and deviation of refined depth over the training part in the rotated numbers, as ESANet publishes them.
DEPTH_MEAN, DEPTH_STD = 19025.14930492213, 9880.916071806689
PUBLISHED = Published(
    NAME,
    {
        "official": (PICTURES, META, LABELS),
        "prepared": (PICTURES, *(f"{part}_{kind}.txt" for part in ("train", "test") for kind in ("rgb", "label"))),
    },
    {
        "official": """
SUNRGBD/{kv1,kv2,realsense,xtion}/.../FRAME/{image,depth,depth_bfx}/
SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat
SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat
SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat
""",
        "prepared": """
SUNRGBD/{kv1,kv2,realsense,xtion}/.../FRAME/{image,depth,depth_bfx,label}/
{train,test}_{rgb,depth,label}.txt
""",
    },
    "Obtain SUNRGBD.zip and SUNRGBDtoolbox.zip from https://rgbd.cs.princeton.edu and unpack both into one "
    "folder; terms: research, cite the paper and the four sets it is made from.",
)
CITATION = "S. Song, S. Lichtenberg, J. Xiao: SUN RGB-D: A RGB-D Scene Understanding Benchmark Suite, CVPR 2015"


class SunOptions(Options):
    """Options of the data set.

    Args:
        root: Folder that holds ``SUNRGBD`` and ``SUNRGBDtoolbox``, or the lists; variables are expanded.
        form: Which form is read.
        depth: ``refined`` has its holes filled (``depth_bfx``); ``raw`` is as measured, 0 where nothing was.
        values: See the module's docstring.
        size: (H, W) of inputs; label maps keep their own size in evaluation.
        augmentation: Of training; the default is ESANet's protocol.
    """

    root: str = Field("$ROBUSTMM_DATA/sunrgbd", description="folder of the files, published or prepared")
    form: Literal["auto", "official", "prepared"] = Field("auto", description="which form of the files is read")
    depth: Depth = Field("refined", description="holes filled, or as measured with 0 for nothing")
    values: Values = Field("raw_rotated", description="numbers of the files as ESANet reads them, or millimetres")
    size: Size = Field((480, 640), description="[H, W] of inputs")
    augmentation: Augmentation | None = Field(
        Augmentation(rescale=(1.0, 1.4), rescale_from="native", flip=0.5, **ESANET_COLOUR),
        description="of training; ESANet's by default",
    )

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def build_sunrgbd(
    root: str,
    form: Literal["auto", "official", "prepared"],
    depth: Depth,
    values: Values,
    size: Size,
    augmentation: Augmentation | None,
) -> DataSplits:
    """Pictures, depth and label maps; see `SunOptions`.

    Raises:
        DataError: the files are not there, damaged or do not fit together.
    """
    found, folder = PUBLISHED.find(root, form)
    source = (official_source if found == "official" else prepared_source)(folder, depth, values)
    divisor = 8 if values == "mm" else 1
    scaling = Scaling(
        "constants", (DEPTH_MEAN / divisor,), (DEPTH_STD / divisor,), invalid=0.0 if depth == "raw" else None
    )
    unit = "mm" if values == "mm" else "mm, rotated by 3 bits"
    notes: Notes = {
        "split": "published: 5285 train, 5050 test; validation is carved from train",
        "form": found,
        "depth": f"{depth}, {unit}",
        "licence": "research",
        "citation": CITATION,
    }
    return make_splits(
        source,
        (
            Modality("rgb", "image", (3, *size), IMAGENET, "0-255"),
            Modality("depth", "image", (1, *size), scaling, unit),
        ),
        SUN_37,
        colours=palette(len(SUN_37)),
        augmentation=augmentation,
        notes=notes,
    )


def prepare_sunrgbd(source: Path, target: Path, track: Track) -> str:
    """Label files and lists from the toolbox; see `robustmm.registry.Prepare`.

    Raises:
        DataError: the source is not as published, or what was written cannot be read.
    """
    PUBLISHED.find(str(source), "official")
    write_tree(source, target, track)
    for depth in ("refined", "raw"):
        splits = build_sunrgbd(str(target), "prepared", depth, "raw_rotated", (480, 640), None)
        read_back(splits, track)
    return f"{target}: {len(splits.train)} training and {len(splits.test)} test frames (pictures, depth, labels, lists)"


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer SUN RGB-D."""
    register(
        Component(
            NAME,
            build_sunrgbd,
            SunOptions,
            "Rooms from four depth cameras, 37 classes, 5285 / 5050 frames; depth as stored or in mm.",
            "Song et al., CVPR 2015; layout and scaling as TUI-NICR/ESANet",
            fidelity="code",
            prepare=prepare_sunrgbd,
        )
    )
