"""Spoken and written digits: the reader on tiny files of the same layout, the preparer, and the real data."""

import csv
import gzip
import zipfile

import numpy as np
import pytest
import torch
from robustmm_plugins.datasets import av_digits as plugin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from robustmm import DataError

SPEAKERS = ("ann", "bob")
#: Images of the tiny set: five of each digit; 0 and 1 for ann and bob in training, the others for testing.
PER_DIGIT = 5


@pytest.fixture
def write_set(tmp_path, wav_bytes):
    """Write the tiny set, with changed rows where asked, and return its folder."""

    def write(change=lambda rows: rows, left_out=()):
        rows = []
        with zipfile.ZipFile(tmp_path / "fsdd_recordings.zip", "w") as archive:
            for digit in range(10):
                for number, speaker in enumerate(SPEAKERS):
                    for split, index, images in (("train", 5, [number]), ("test", 0, [2, 3, 4])):
                        name = f"{digit}_{speaker}_{index}.wav"
                        tone = np.sin(np.arange(2000) * (0.1 + 0.2 * digit)) * 9000 * (1 + number)
                        if name not in left_out:
                            archive.writestr(f"recordings/{name}", wav_bytes(tone))
                        rows += [[split, digit, name, speaker, digit * PER_DIGIT + image] for image in images]
        with gzip.open(tmp_path / "mnist_5k.csv.gz", "wt") as file:
            for row in range(10 * PER_DIGIT):
                file.write(",".join([str(row)] * 783 + ["255", str(row // PER_DIGIT)]) + "\n")
        with (tmp_path / "pairs.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["split", "digit", "wav", "speaker", "mnist_row"], *change(rows)])
        return str(tmp_path)

    return write


def test_av_digits__official_split_follows_the_pairs(write_set):
    splits = plugin.build_av_digits(root=write_set(), protocol="official", test_speaker="george")
    assert (len(splits.train), len(splits.test)) == (20, 60)
    sample = splits.train[3]  # digit 1 of bob
    assert sample["id"] == "1_bob_5+6"
    assert sample["inputs"]["audio"].shape == splits.modalities[0].shape == (1, 40, 48)
    assert sample["inputs"]["image"].shape == splits.modalities[1].shape == (1, 28, 28)
    torch.testing.assert_close(sample["inputs"]["image"][0, 27, 26:], torch.tensor([6 / 255, 1.0]))
    assert sample["target"] == 1
    assert splits.train_groups is None
    assert splits.train_labels.tolist() == [digit for digit in range(10) for _ in SPEAKERS]


def test_av_digits__unseen_speaker_shares_no_recording_image_or_voice(write_set):
    splits = plugin.build_av_digits(root=write_set(), protocol="unseen_speaker", test_speaker="bob")
    assert all("_ann_" in name for name in splits.train.ids)
    assert all("_bob_" in name for name in splits.test.ids)
    assert (len(splits.train), len(splits.test)) == (10, 40)
    train_images, test_images = ({name.partition("+")[2] for name in part.ids} for part in (splits.train, splits.test))
    assert not train_images & test_images
    assert splits.train_groups.tolist() == [0] * 10


def test_av_digits__louder_recording_has_more_energy(write_set):
    splits = plugin.build_av_digits(root=write_set(), protocol="official", test_speaker="george")
    audio = splits.train.inputs["audio"].flatten(1).amax(dim=1)
    # bob's tones have twice the amplitude of ann's: four times the power.
    torch.testing.assert_close(audio[1::2] - audio[::2], torch.full((10,), np.log(4)), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: [["dev", *rows[0][1:]]], r"pairs\.csv:2 split 'dev' is not train or test"),
        (lambda rows: [*rows[:1], [*rows[1][:4], 50]], r"pairs\.csv:3 mnist_row '50' is not a row number below 50"),
        (lambda rows: [[*rows[0][:4], 7]], r"pairs\.csv:2 digit 0 is paired with 0_ann_5\.wav and an image of a 1"),
        (lambda rows: [["train", 3, *rows[0][2:]]], r"pairs\.csv:2 digit 3 is paired with 0_ann_5\.wav"),
        (lambda rows: [rows[0][:4]], r"pairs\.csv:2 has fewer cells than the header"),
        (lambda rows: rows[:1], r"protocol official leaves no pair for test"),
    ],
)
def test_av_digits__names_the_line_that_is_wrong(write_set, change, text):
    with pytest.raises(DataError, match=text):
        plugin.build_av_digits(root=write_set(change), protocol="official", test_speaker="george")


def test_av_digits__names_absent_recordings_speakers_and_files(write_set, tmp_path):
    root = write_set(left_out=["4_bob_0.wav"])
    with pytest.raises(DataError, match=r"lacks 1 recordings of pairs\.csv, the first is 4_bob_0\.wav"):
        plugin.build_av_digits(root=root, protocol="official", test_speaker="george")
    with pytest.raises(DataError, match=r"test_speaker 'george' is unknown; known: ann, bob"):
        plugin.build_av_digits(root=root, protocol="unseen_speaker", test_speaker="george")
    (tmp_path / "pairs.csv").unlink()
    with pytest.raises(DataError, match=r"lacks pairs\.csv; expected .*tools/prepare_av_digits\.py"):
        plugin.build_av_digits(root=root, protocol="official", test_speaker="george")


@pytest.mark.parametrize("name", ["fsdd_recordings.zip", "mnist_5k.csv.gz"])
def test_av_digits__names_a_damaged_file(write_set, tmp_path, name):
    root = write_set()
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match=f"{name}: not a readable"):
        plugin.build_av_digits(root=root, protocol="official", test_speaker="george")


def test_prepare_av_digits__writes_what_the_reader_reads(load_tool, tmp_path, wav_bytes, capsys):
    tool = load_tool("prepare_av_digits")
    source = tmp_path / "recordings"
    source.mkdir()
    for digit in range(10):
        for index in (0, 5, 6):
            (source / f"{digit}_ann_{index}.wav").write_bytes(wav_bytes(np.arange(900)))
    with gzip.open(tmp_path / "mnist_5k.csv.gz", "wt", compresslevel=1) as file:
        file.writelines("0," * 784 + f"{row // 500}\n" for row in range(5000))
    tool.main([str(source), "--mnist", str(tmp_path / "mnist_5k.csv.gz"), "--out", str(tmp_path / "out")])
    assert "30 recordings, 20 training and 30 test pairs" in capsys.readouterr().out
    splits = plugin.build_av_digits(root=str(tmp_path / "out"), protocol="official", test_speaker="ann")
    assert (len(splits.train), len(splits.test)) == (20, 30)


def test_prepare_av_digits__refuses_foreign_files(load_tool, tmp_path):
    tool = load_tool("prepare_av_digits")
    with pytest.raises(SystemExit, match="holds no WAV file"):
        tool.find_recordings(tmp_path)
    (tmp_path / "hello.wav").touch()
    with pytest.raises(SystemExit, match=r"expected a name such as 7_jackson_32\.wav"):
        tool.find_recordings(tmp_path)
    with gzip.open(tmp_path / "short.csv.gz", "wt") as file:
        file.write("0,0\n")
    with pytest.raises(SystemExit, match="expected 500 rows of each digit"):
        tool.check_mnist(tmp_path / "short.csv.gz")


@pytest.mark.data("av_digits")
def test_prepare_av_digits__makes_the_published_pairs_again(load_tool, external_data):
    with (external_data / "pairs.csv").open(newline="") as file:
        published = list(csv.reader(file))[1:]
    with zipfile.ZipFile(external_data / "fsdd_recordings.zip") as archive:
        names = sorted(name.rpartition("/")[2] for name in archive.namelist() if name.endswith(".wav"))
    assert [[str(cell) for cell in row] for row in load_tool("prepare_av_digits").make_pairs(names, 0)] == published


@pytest.mark.data("av_digits")
def test_av_digits__both_modalities_tell_the_digit_of_an_unseen_speaker(external_data):
    splits = plugin.build_av_digits(root=str(external_data), protocol="unseen_speaker", test_speaker="nicolas")
    assert (len(splits.train), len(splits.test)) == (2250, 600)
    for modality, size, at_least in (("audio", (20, 6), 0.45), ("image", (9, 9), 0.8)):
        train, test = (
            torch.nn.functional.adaptive_avg_pool2d(part.inputs[modality], size).flatten(1).numpy()
            for part in (splits.train, splits.test)
        )
        scaler = StandardScaler().fit(train)
        model = LogisticRegression(max_iter=300, C=0.01, tol=0.01).fit(scaler.transform(train), splits.train.target)
        # Published for this speaker's recordings: 60 % by sound; 88.5 % by image on the official test part.
        assert model.score(scaler.transform(test), splits.test.target) >= at_least
