"""Make the folder that the data set tcga_breast reads, from CSV files written by R.

In R, with the Bioconductor package mixOmics::

    library(mixOmics); data(breast.TCGA); dir.create("export")
    for (part in c("train", "test")) {
      x <- breast.TCGA[[paste0("data.", part)]]
      for (omics in intersect(c("mrna", "mirna", "protein"), names(x)))
        write.csv(x[[omics]], file.path("export", paste0(part, "_", omics, ".csv")))
      write.csv(data.frame(subtype = x$subtype, row.names = rownames(x$mrna)),
                file.path("export", paste0(part, "_labels.csv")))
    }

Then ``python tools/prepare_tcga_breast.py export --out FOLDER``. Values are written with six significant digits.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

TABLES = ("train_mrna", "train_mirna", "train_protein", "test_mrna", "test_mirna")
LABELS = ("train_labels", "test_labels")
CLASSES = ("Basal", "Her2", "LumA")


def read_export(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """A table of ``write.csv``: column names without the first, and the cells by row name.

    Raises:
        SystemExit: the file is not there, is empty, or its rows differ in length or share a name.
    """
    if not path.is_file():
        raise SystemExit(f"{path} is not there; the first lines of this script show how R writes it")
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    if len(table) < 2:
        raise SystemExit(f"{path} holds no rows")
    rows = {row[0]: row[1:] for row in table[1:]}
    if len(rows) != len(table) - 1:
        raise SystemExit(f"{path}: two rows have one name")
    for name, cells in rows.items():
        if len(cells) != len(table[0]) - 1:
            raise SystemExit(f"{path}: row {name} has {len(cells)} values, the header names {len(table[0]) - 1}")
    return table[0][1:], rows


def shortened(cell: str, path: Path, name: str) -> str:
    """A number with six significant digits."""
    try:
        return f"{float(cell):.6g}"
    except ValueError:
        raise SystemExit(f"{path}: row {name} holds '{cell}', which is not a number") from None


def write_table(source: Path, target: Path, samples: Sequence[str]) -> None:
    """Write one omics table, its rows in the order of ``samples``; equal input gives equal bytes.

    Raises:
        SystemExit: the rows are not the samples.
    """
    features, rows = read_export(source)
    if set(rows) != set(samples):
        raise SystemExit(f"{source}: its {len(rows)} rows are not the {len(samples)} samples of the labels' table")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample", *features])
    for name in samples:
        writer.writerow([name, *(shortened(cell, source, name) for cell in rows[name])])
    target.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def write_labels(source: Path, target: Path) -> list[str]:
    """Write the subtypes and return the sample names.

    Raises:
        SystemExit: a subtype is unknown.
    """
    _, rows = read_export(source)
    unknown = sorted({cells[0] for cells in rows.values()} - set(CLASSES))
    if unknown:
        raise SystemExit(f"{source}: subtype {unknown[0]} is unknown; known: {', '.join(CLASSES)}")
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sample", "subtype"])
        writer.writerows([name, cells[0]] for name, cells in rows.items())
    return list(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the seven files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="folder of the CSV files from R")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, such as $ROBUSTMM_DATA/tcga_breast")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    samples = {
        name.partition("_")[0]: write_labels(given.export / f"{name}.csv", given.out / f"{name}.csv") for name in LABELS
    }
    for name in track(TABLES, "tables"):
        write_table(given.export / f"{name}.csv", given.out / f"{name}.csv.gz", samples[name.partition("_")[0]])
    print(f"{given.out}: {len(samples['train'])} training and {len(samples['test'])} test samples")


if __name__ == "__main__":
    main()
