"""How a diabetes patient's disease goes on, from an examination and from blood serum, shipped with the package."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field

from robustmm import ArrayDataset, Component, DataSplits, Modality, Options, generator_for, hookimpl

from ._files import Array, Notes, as_float, embedded, read_matrix

NAME = "diabetes"
TEST_SHARE = 0.2
#: Modality -> its columns: what an examination shows, and what a laboratory measures.
COLUMNS = {"clinical": ("age", "sex", "bmi", "bp"), "serum": ("s1", "s2", "s3", "s4", "s5", "s6")}
TARGET = "progression"


class DiabetesOptions(Options):
    """Options of the data set.

    Args:
        split_seed: Seed of the train/test split alone; one seed names one split on every machine.
    """

    split_seed: int = Field(0, ge=0, description="seed of the 80/20 train/test split; equal seeds give equal splits")


def read_patients() -> tuple[list[str], dict[str, Array]]:
    """Names of all 442 patients, and column -> values, (442,) float32 in their own units."""
    names, columns, values = read_matrix(embedded(NAME) / "patients.csv")
    return names, dict(zip(columns, values.T, strict=True))


def build_diabetes(split_seed: int) -> DataSplits:
    """354 training and 88 test patients."""
    names, columns = read_patients()
    inputs = {
        modality: torch.stack([as_float(columns[name]) for name in own], dim=1) for modality, own in COLUMNS.items()
    }
    target = as_float(columns[TARGET])
    order = torch.randperm(len(names), generator=generator_for(NAME, "split", split_seed))
    count = round(TEST_SHARE * len(names))
    train, test = (
        ArrayDataset(
            {modality: values[rows] for modality, values in inputs.items()},
            target[rows],
            [names[row] for row in rows.tolist()],
        )
        for rows in (order[count:].sort().values, order[:count].sort().values)
    )
    notes: Notes = {
        "split": f"random 80/20, split_seed {split_seed}; validation is carved from train",
        "train": len(train),
        "test": len(test),
        "licence": "BSD-3-Clause",
        "citation": "B. Efron et al., Least Angle Regression, Annals of Statistics 32(2), 2004",
    }
    modalities = tuple(Modality(name, "vector", (len(own),)) for name, own in COLUMNS.items())
    return DataSplits(modalities, "regression", (TARGET,), train, test, notes=notes)


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the patients."""
    register(
        Component(
            NAME,
            build_diabetes,
            DiabetesOptions,
            "Disease progression of 442 diabetes patients from an examination and blood serum; shipped, regression.",
            "B. Efron et al., Annals of Statistics 32(2), 2004, as in scikit-learn (BSD-3-Clause)",
        )
    )
