"""Three omics: the reader on tiny files of the same layout, the preparer, and the real data."""

import csv
import gzip

import pytest
import torch
from robustmm_plugins.datasets import tcga_breast as plugin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from robustmm import DataError

HEADERS = {"mrna": ["RTN2", "NDRG2"], "mirna": ["hsa-let-7a"], "protein": ["ER", "PR", "AKT"]}
SAMPLES = {"train": [("A1", "Basal"), ("A2", "LumA"), ("A3", "Her2")], "test": [("B1", "LumA"), ("B2", "Basal")]}


def tables():
    """File name without suffix -> rows with header, as the prepared folder holds them."""
    content = {}
    for part, samples in SAMPLES.items():
        content[f"{part}_labels"] = [["sample", "subtype"], *map(list, samples)]
        for number, (omics, header) in enumerate(HEADERS.items()):
            if (part, omics) != ("test", "protein"):
                rows = [[name, *(f"{number}.{row}{column}" for column in range(len(header)))]
                        for row, (name, _) in enumerate(samples)]  # fmt: skip
                content[f"{part}_{omics}"] = [["sample", *header], *rows]
    return content


def write_prepared(folder, content):
    for name, rows in content.items():
        plain = name.endswith("labels")
        path = folder / (f"{name}.csv" if plain else f"{name}.csv.gz")
        with path.open("wt", newline="") if plain else gzip.open(path, "wt", newline="") as file:
            csv.writer(file).writerows(rows)
    return str(folder)


def test_tcga__protein_is_absent_from_the_test_part(tmp_path):
    splits = plugin.build_tcga_breast(root=write_prepared(tmp_path, tables()))
    assert [(modality.name, modality.shape) for modality in splits.modalities] == [
        ("mrna", (2,)),
        ("mirna", (1,)),
        ("protein", (3,)),
    ]
    sample = splits.test[1]
    assert sample["inputs"]["protein"] is None
    torch.testing.assert_close(sample["inputs"]["mrna"], torch.tensor([0.10, 0.11]))
    assert (sample["target"], sample["id"]) == (0, "B2")
    torch.testing.assert_close(splits.train[2]["inputs"]["protein"], torch.tensor([2.20, 2.21, 2.22]))
    assert splits.train_labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("name", "row", "column", "value", "text"),
    [
        ("train_labels", 2, 1, "LumB", r"train_labels\.csv:3 subtype 'LumB' is unknown; known: Basal, Her2, LumA"),
        ("test_mirna", 2, 0, "B9", r"test_mirna\.csv\.gz: its samples differ at line 3"),
        ("test_mrna", 0, 2, "OTHER", r"test_mrna\.csv\.gz:1 its features are not those of train_mrna"),
        ("train_mrna", 1, 1, "high", r"train_mrna\.csv\.gz: could not convert string to float: 'high'"),
        ("train_mrna", 1, 1, "nan", r"train_mrna\.csv\.gz:2 has a value that is not finite"),
    ],
)
def test_tcga__names_file_and_line_of_what_is_wrong(tmp_path, name, row, column, value, text):
    content = tables()
    content[name][row][column] = value
    with pytest.raises(DataError, match=text):
        plugin.build_tcga_breast(root=write_prepared(tmp_path, content))


def test_tcga__refuses_tables_of_other_lengths_and_shared_samples(tmp_path):
    content = tables()
    content["train_mirna"].pop()
    with pytest.raises(DataError, match=r"train_mirna\.csv\.gz: its samples are 2, expected 3"):
        plugin.build_tcga_breast(root=write_prepared(tmp_path, content))
    content = tables()
    for name in ("test_labels", "test_mrna", "test_mirna"):
        content[name][1][0] = "A2"
    with pytest.raises(DataError, match="sample A2 lies in train and in test"):
        plugin.build_tcga_breast(root=write_prepared(tmp_path, content))


def test_tcga__says_how_to_obtain_absent_files(tmp_path):
    content = tables()
    del content["train_protein"]
    with pytest.raises(DataError, match=r"lacks train_protein\.csv\.gz; expected .*mixOmics.*prepare_tcga_breast"):
        plugin.build_tcga_breast(root=write_prepared(tmp_path, content))


def test_prepare_tcga__orders_rows_and_rounds(load_tool, tmp_path, capsys):
    source = tmp_path / "export"
    source.mkdir()
    for name, rows in tables().items():
        first, *others = rows
        if name == "train_mirna":
            others = [[row[0], "1.23456789"] for row in reversed(others)]
        with (source / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["", *first[1:]], *others])
    load_tool("prepare_tcga_breast").main([str(source), "--out", str(tmp_path / "out")])
    assert "3 training and 2 test samples" in capsys.readouterr().out
    assert gzip.decompress((tmp_path / "out" / "train_mirna.csv.gz").read_bytes()).decode() == (
        "sample,hsa-let-7a\nA1,1.23457\nA2,1.23457\nA3,1.23457\n"
    )
    assert len(plugin.build_tcga_breast(root=str(tmp_path / "out")).train) == 3


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "holds no rows"),
        (',"a"\n"r",1\n"r",2\n', "two rows have one name"),
        (',"a"\n"r",1,2\n', "row r has 2 values, the header names 1"),
        (',"a"\n"r",NA\n', "row r holds 'NA', which is not a number"),
        (',"a"\n"q",1\n', "are not the 1 samples"),
    ],
)
def test_prepare_tcga__refuses_what_it_cannot_convert(load_tool, tmp_path, content, text):
    tool = load_tool("prepare_tcga_breast")
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(SystemExit, match=text):
        tool.write_table(tmp_path / "in.csv", tmp_path / "out.csv.gz", ["r"])


@pytest.mark.data("tcga_breast")
def test_tcga__real_data_have_their_sizes_and_signal(external_data):
    splits = plugin.build_tcga_breast(root=str(external_data))
    assert [modality.shape for modality in splits.modalities] == [(200,), (184,), (142,)]
    assert torch.bincount(splits.train.target).tolist() == [45, 30, 75]
    assert torch.bincount(splits.test.target).tolist() == [21, 14, 35]
    for omics, at_least in (("mrna", 0.92), ("mirna", 0.85)):  # published: 95.7 and 90.0 %
        scaler = StandardScaler().fit(splits.train.inputs[omics].numpy())
        model = LogisticRegression(C=0.01).fit(
            scaler.transform(splits.train.inputs[omics].numpy()), splits.train.target
        )
        assert model.score(scaler.transform(splits.test.inputs[omics].numpy()), splits.test.target) >= at_least
