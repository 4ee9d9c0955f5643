"""Breast cancer subtypes from three omics; the protein assay was made for the training subjects alone.

The test part lacks a modality by nature: nothing is masked, the key is None.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field

from robustmm import ArrayDataset, Component, DataError, DataSplits, Modality, Options, hookimpl

from ._files import Array, Notes, as_float, locate, read_matrix, read_table

NAME = "tcga_breast"
OMICS = ("mrna", "mirna", "protein")
#: What each part holds.
PARTS = {"train": OMICS, "test": ("mrna", "mirna")}
CLASSES = ("Basal", "Her2", "LumA")
FILES = [f"{part}_{omics}.csv.gz" for part, names in PARTS.items() for omics in names]
LABELS = [f"{part}_labels.csv" for part in PARTS]
OBTAIN = (
    "Export breast.TCGA of the R package mixOmics to CSV and run tools/prepare_tcga_breast.py EXPORT --out FOLDER; "
    "the tool's help shows the R lines."
)


class TcgaOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the prepared files; variables are expanded.
    """

    root: str = Field("$ROBUSTMM_DATA/tcga_breast", description="folder of the prepared files")

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def read_labels(path: Path) -> tuple[list[str], list[int]]:
    """Sample names and class indices.

    Raises:
        DataError: a subtype is unknown.
    """
    rows = read_table(path, ["sample", "subtype"])
    for row in rows:
        if row["subtype"] not in CLASSES:
            raise DataError(f"{path}:{row.line} subtype '{row['subtype']}' is unknown; known: {', '.join(CLASSES)}")
    return [row["sample"] for row in rows], [CLASSES.index(row["subtype"]) for row in rows]


def read_omics(path: Path, samples: list[str]) -> tuple[list[str], Array]:
    """Feature names and values, (samples, features), of one table.

    Raises:
        DataError: its rows are not the samples in their order.
    """
    names, features, values = read_matrix(path)
    if names != samples:
        line = next((number for number, pair in enumerate(zip(names, samples)) if pair[0] != pair[1]), None)  # noqa: B905 - lengths may differ
        where = f"differ at line {line + 2}" if line is not None else f"are {len(names)}, expected {len(samples)}"
        raise DataError(
            f"{path}: its samples {where} from the labels' table; every file has the same rows in one order"
        )
    return features, values


def read_part(folder: Path, part: str, columns: dict[str, list[str]]) -> ArrayDataset:
    """Samples of ``train`` or ``test``.

    Args:
        columns: Modality -> feature names of the training part; filled while that is read.

    Raises:
        DataError: tables do not fit together.
    """
    samples, labels = read_labels(folder / f"{part}_labels.csv")
    inputs = {}
    for omics in OMICS:
        if omics not in PARTS[part]:
            inputs[omics] = torch.zeros(len(samples), len(columns[omics]))
            continue
        path = folder / f"{part}_{omics}.csv.gz"
        features, values = read_omics(path, samples)
        if columns.setdefault(omics, features) != features:
            raise DataError(f"{path}:1 its features are not those of train_{omics}.csv.gz in the same order")
        inputs[omics] = as_float(values)
    observed = torch.tensor([[omics in PARTS[part] for omics in OMICS]]).expand(len(samples), -1)
    return ArrayDataset(inputs, torch.tensor(labels, dtype=torch.int64), samples, observed)


def build_tcga_breast(root: str) -> DataSplits:
    """The training and test subjects of mixOmics; the test subjects have no protein.

    Raises:
        DataError: files are absent, damaged or do not fit together.
    """
    folder = locate(root, NAME, FILES + LABELS, OBTAIN)
    columns: dict[str, list[str]] = {}
    train, test = read_part(folder, "train", columns), read_part(folder, "test", columns)
    shared = set(train.ids) & set(test.ids)
    if shared:
        raise DataError(f"{folder}: sample {min(shared)} lies in train and in test")
    notes: Notes = {
        "split": "of mixOmics; protein is absent from the whole test part; validation is carved from train",
        "train": len(train),
        "test": len(test),
        "licence": "TCGA open-access tier; package mixOmics GPL (>= 2)",
        "citation": "The Cancer Genome Atlas Network, Nature 490, 2012; A. Singh et al., Bioinformatics 35(17), 2019",
    }
    return DataSplits(
        tuple(Modality(omics, "vector", (len(columns[omics]),)) for omics in OMICS),
        "classification",
        CLASSES,
        train,
        test,
        train_labels=train.target,
        notes=notes,
    )


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the three omics."""
    register(
        Component(
            NAME,
            build_tcga_breast,
            TcgaOptions,
            "Breast cancer subtypes from mRNA, miRNA and protein; protein is really absent from the test part.",
            "TCGA Network, Nature 490, 2012; mixOmics breast.TCGA, A. Singh et al., Bioinformatics 35(17), 2019",
        )
    )
