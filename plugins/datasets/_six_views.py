"""What the two splits of the six-view digits share: names and sizes of the views, licence and citation."""

from __future__ import annotations

from robustmm import Modality

from ._files import Notes

#: View -> number of features, in the order x1 .. x6 of the literature.
VIEWS = {"pixel": 240, "fourier": 76, "profile": 216, "zernike": 47, "karhunen": 64, "morphological": 6}
CLASSES = tuple("0123456789")
MODALITIES = tuple(Modality(name, "vector", (size,)) for name, size in VIEWS.items())
NOTES: Notes = {
    "licence": "CC BY 4.0",
    "citation": "R. Duin, Multiple Features, UCI Machine Learning Repository, 1998, doi:10.24432/C5HC70",
}
