"""Four MRI sequences of multiple-sclerosis patients with consensus lesion masks, slice by slice; real, not shipped.

One patient is tested and seen nowhere else. Neighbouring slices are near-copies, so a random choice of slices for
validation would leak. With two training patients neither can be spared: a model of one patient is another model. So
validation is one block of slices of each training patient, from the lower middle of the head where lesions are, and the
two slices (4 mm) beside the block on each side are used for nothing. That keeps copies out; it does not make validation
a judgement on new patients, which the test part alone is. With three training patients or more, validation is left to
whole patients, carved from training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from robustmm import Augmentation, Component, DataError, DataSplits, Modality, Options, Track, hookimpl

from ._files import Array, Notes, locate
from ._image_tree import Column, Tree, listed
from ._images import read_grey
from ._nifti import read_volume
from ._written_once import read_back, write_array, write_bytes

NAME = "ms_lesion_mri"
CLASSES = ("other", "lesion")
COLOURS = ((60, 60, 60), (220, 50, 47))
SEQUENCES = ("flair", "t1", "t1post", "t2")
PATIENTS = ("p07", "p19", "p26")
OBTAIN = (
    "Clone github.com/muschellij2/open_ms_data and run robustmm data prepare ms_lesion_mri CLONE FOLDER, "
    "which writes flair/, t1/, t1post/, t2/ and label/ too."
)
#: Where the validation block lies among a patient's slices, from below, and so many slices beside it are left out.
BLOCK, GAP = (0.35, 0.5), 2
#: With so many training patients, whole ones can be spared for validation.
ENOUGH_PATIENTS = 3
#: Published volumes (1 mm, MNI space) and what is kept of them: columns, rows, every second slice.
VOLUME_SHAPE = (182, 218, 182)
COLUMNS, ROWS, SLICES = slice(19, 163), slice(20, 196), range(18, 143, 2)
#: (H, W) of the prepared slices.
PREPARED_SIZE = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
#: A slice is kept where so much of it is brain; 255 is this percentile of the brain's values.
LEAST_BRAIN, WHITE_PERCENTILE = 0.06, 99.9
PUBLISHED = Path("cross_sectional", "MNI")
IMAGE = "{}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"
MASK = "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI.nii.gz"


class LesionOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the prepared files; variables are expanded.
        test_patient: One of ``patients``, left out of training.
        patients: Those that are used, of those that were prepared.
        size: (H, W) of inputs; prepared files are 176 x 144.
        augmentation: Of training; every sequence changes its contrast by itself.
    """

    root: str = Field("$ROBUSTMM_DATA/ms_lesion_mri", description="folder of the prepared files")
    test_patient: str = Field("p26", description="patient left out of training, one of 'patients'")
    patients: tuple[str, ...] = Field(PATIENTS, min_length=2, description="patients that are used")
    size: tuple[int, int] = Field((176, 144), description="[H, W] of inputs; the files are 176 x 144")
    augmentation: Augmentation | None = Field(
        Augmentation(rescale=(1.0, 1.2), flip=0.5, rotate=10.0, contrast=0.1),
        description="of training; contrast of each sequence by itself",
    )

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def slices_of(names: Sequence[str], patients: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Slices of each patient from below, by names such as ``p07_z044``.

    Raises:
        DataError: a patient has none.
    """
    found = {patient: [name for name in names if name.startswith(f"{patient}_z")] for patient in patients}
    for patient, slices in found.items():
        if not slices:
            there = sorted({name.partition("_")[0] for name in names})
            raise DataError(f"{folder}: no slice of patient '{patient}'; there are {listed(there) or 'none'}")
    return found


def part_blocks(slices: Sequence[str]) -> tuple[list[str], list[str]]:
    """Slices for training and for validation, without those beside the validation block."""
    first, end = (round(share * len(slices)) for share in BLOCK)
    train = [*slices[: max(first - GAP, 0)], *slices[end + GAP :]]
    return train, list(slices[first:end])


def build_ms_lesion_mri(
    root: str,
    test_patient: str,
    patients: tuple[str, ...],
    size: tuple[int, int],
    augmentation: Augmentation | None,
) -> DataSplits:
    """Slices of four sequences and their lesion masks; one patient is tested.

    Raises:
        DataError: files are absent or damaged, or a patient is not there.
    """
    if test_patient not in patients:
        raise DataError(f"data set '{NAME}': test_patient '{test_patient}' is none of patients {', '.join(patients)}")
    folder = locate(root, NAME, ["meta.json"], OBTAIN)
    columns = tuple(
        Column(Modality(name, "image", (1, *size), unit="0-255 of the volume"), name, read_grey, "colour")
        for name in SEQUENCES
    )
    tree = Tree(folder, columns, "label", len(CLASSES))
    slices = slices_of(tree.stems(), patients, folder / "label")
    others = [patient for patient in patients if patient != test_patient]
    whole = len(others) >= ENOUGH_PATIENTS
    blocks = {patient: (slices[patient], []) if whole else part_blocks(slices[patient]) for patient in others}
    train = [name for kept, _ in blocks.values() for name in kept]
    validation = [name for _, held_out in blocks.values() for name in held_out]
    notes: Notes = {
        "split": f"patient {test_patient} is tested, {', '.join(others)} train",
        "validation slices": "whole patients, carved"
        if whole
        else f"a block of each patient, {GAP} beside it left out",
        "train": len(train),
        "val": len(validation),
        "test": len(slices[test_patient]),
        "licence": "CC-BY (version not stated)",
        "citation": "Z. Lesjak et al.: A Novel Public MR Image Dataset of Multiple Sclerosis Patients With Lesion "
        "Segmentations Based on Multi-rater Consensus, Neuroinformatics 2018, doi:10.1007/s12021-017-9348-7",
    }
    return DataSplits(
        tuple(column.modality for column in columns),
        "segmentation",
        CLASSES,
        tree.dataset(train, augmentation),
        tree.dataset(slices[test_patient]),
        None if whole else tree.dataset(validation),
        train_groups=torch.tensor([others.index(name.partition("_")[0]) for name in train]),
        colours=COLOURS,
        notes=notes,
    )


def upright(volume: Array, place: int) -> Array:
    """A slice as it is looked at, front up, (176, 144)."""
    return np.ascontiguousarray(np.rot90(volume[COLUMNS, ROWS, place]))


def to_bytes(volume: Array, brain: Array) -> tuple[Array, float]:
    """Values as 8 bits, 0 to the brain's 99.9th percentile, and that percentile."""
    white = float(np.percentile(volume[brain], WHITE_PERCENTILE))
    return np.clip(np.rint(volume * (255 / white)), 0, 255).astype(np.uint8), white


def read_checked(path: Path) -> Array:
    """A published volume.

    Raises:
        DataError: it cannot be read or has another shape.
    """
    volume = read_volume(path)
    if volume.shape != VOLUME_SHAPE:
        raise DataError(f"{path}: has shape {volume.shape}, expected {VOLUME_SHAPE}")
    return volume


def find_patients(source: Path) -> dict[str, Path]:
    """Folders of the patients whose five volumes are there whole, by their short names.

    Raises:
        DataError: there is none.
    """
    folders = sorted((source / PUBLISHED).glob("patient[0-9][0-9]"))
    files = [*(IMAGE.format(name.upper()) for name in SEQUENCES), MASK]
    found = {f"p{path.name[-2:]}": path for path in folders if all((path / name).is_file() for name in files)}
    if not found:
        raise DataError(
            f"{source}: no patient with all of its volumes; expected a clone of github.com/muschellij2/open_ms_data "
            f"with {PUBLISHED}/patientNN/{{{', '.join(files)}}}"
        )
    return found


def write_patient(patient: str, folder: Path, target: Path) -> dict[str, Any]:
    """Slices of a patient; returns how many, with how many lesions, and each sequence's value of 255.

    Raises:
        DataError: a volume cannot be read, has another shape, or holds no brain.
    """
    volumes = {name: read_checked(folder / IMAGE.format(name.upper())) for name in SEQUENCES}
    lesion = (read_checked(folder / MASK) > 0.5).astype(np.uint8)
    brain = volumes["flair"] > 0
    kept = [place for place in SLICES if upright(brain, place).mean() > LEAST_BRAIN]
    if not kept:
        raise DataError(f"{folder}: no slice holds brain")
    scaled = {name: to_bytes(volume, brain) for name, volume in volumes.items()}
    pictures = {name: bytes_ for name, (bytes_, _) in scaled.items()} | {"label": lesion}
    for name, volume in pictures.items():
        for place in kept:
            write_array(target / name / f"{patient}_z{place:03d}.png", partial(upright, volume, place))
    return {
        "slices": len(kept),
        "slices_with_lesion": sum(bool(upright(lesion, place).any()) for place in kept),
        "intensity_at_255": {name: white for name, (_, white) in scaled.items()},
    }


def prepare_ms_lesion_mri(source: Path, target: Path, track: Track) -> str:
    """Slices of every patient that is there whole; see `robustmm.registry.Prepare`.

    Raises:
        DataError: the source is not as published, or what was written cannot be read.
    """
    patients = find_patients(source)
    facts = {patient: write_patient(patient, patients[patient], target) for patient in track(NAME, list(patients))}
    write_bytes(target / "meta.json", (json.dumps(facts, indent=1) + "\n").encode())
    names = tuple(patients)
    read_back(build_ms_lesion_mri(str(target), names[-1], names, PREPARED_SIZE, None), track)
    return f"{target}: {sum(fact['slices'] for fact in facts.values())} slices of {', '.join(names)}"


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the MRI slices."""
    register(
        Component(
            NAME,
            build_ms_lesion_mri,
            LesionOptions,
            "Brain slices (FLAIR, T1, T1 after contrast, T2), lesion or not; one patient tested; prepared from files.",
            "Lesjak et al., Neuroinformatics 2018; github.com/muschellij2/open_ms_data (CC-BY)",
            prepare=prepare_ms_lesion_mri,
        )
    )
