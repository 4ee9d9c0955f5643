"""A trained run in use: the same numbers as evaluation, every form of input, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from used_runs import DENSE, PHOTO, evaluated, train_run
from wav_files import wav_bytes

import robustmm
from robustmm import ArrayDataset, CheckpointError, ConfigError, DataError, Predictor, RobustmmError
from robustmm.build import assemble
from robustmm.config.load import load_config
from robustmm.data.parts import Part
from robustmm.data.transforms import Augmentation, JointTransform
from robustmm.plugin_manager import get_plugins

IMAGES = {
    "data": {"dataset": {"name": "synthetic", "modalities": 2, "samples": 16, "size": 8, "kind": "image"}},
    "model": {"encoders": {"default": {"name": "small_cnn"}}},
}
DIABETES = {"data": {"dataset": {"name": "diabetes"}, "batch_size": 64}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a run once per name."""
    made: dict[str, Path] = {}

    def train(name: str, **changes: Any) -> Path:
        if name not in made:
            made[name] = train_run(tmp_path_factory.mktemp(name), **changes)
        return made[name]

    return train


@pytest.fixture
def vectors(runs: Callable[..., Path]) -> Predictor:
    return robustmm.load(runs("vectors"), device="cpu")


@pytest.fixture
def pictures(runs: Callable[..., Path]) -> Predictor:
    return robustmm.load(runs("pictures", **IMAGES), device="cpu")


def picture(shape: tuple[int, ...] = (3, 8, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vectors", {}),
        ("dense", DENSE),
        ("lacking", {"data": {"dataset": {"name": "synthetic", "modalities": 3, "samples": 24, "missing_rate": 0.4}}}),
        ("token", {"model": {"missing_policy": "learned_token"}}),
        ("regression", DIABETES),
        ("monig", {**DIABETES, "method": "monig"}),
        ("heads", {"method": "tmc"}),
        ("balanced", {"balancer": "dgl"}),
        ("codes", {"method": "cpm_nets"}),
    ],
)
def test_predict__equals_evaluation(runs: Callable[..., Path], name: str, changes: dict[str, Any]) -> None:
    folder = runs(name, **changes)
    samples, logits, usable = evaluated(folder)
    predictor = robustmm.load(folder, device="cpu", batch_size=3)
    for (combination, own), there in zip(logits.items(), usable.tolist(), strict=True):
        given = [
            {name: sample["inputs"].get(name) for name in combination}
            for sample, usable_here in zip(samples, there, strict=True)
            if usable_here
        ]
        predictions = predictor.predict(given)
        expected = own[torch.tensor(there)]
        torch.testing.assert_close(torch.stack([one.logits for one in predictions]), expected, atol=1e-5, rtol=1e-5)


def test_load__needs_no_data(runs: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(
        "".join(
            ["photo,sensor,label,split\n"]
            + [f",{i} {i % 3},{'ab'[i % 2]},{part}\n" for i in range(8) for part in ("train", "test")]
        ).replace("\n,", "\nphoto.png,", 1),
        encoding="utf-8",
    )
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(tmp_path / "photo.png")
    folder = train_run(
        tmp_path,
        data={"dataset": {"name": "manifest", "csv": str(tmp_path / "set.csv"), "modalities": PHOTO}, "batch_size": 4},
        model={"encoders": {"default": None, "image": "small_cnn", "vector": {"name": "mlp", "hidden": [4]}}},
    )
    (tmp_path / "set.csv").unlink()
    predictor = robustmm.load(folder, device="cpu")
    assert [one.name for one in predictor.modalities] == ["photo", "sensor"]
    assert predictor.classes == ("a", "b")
    from_file = predictor.predict({"photo": tmp_path / "photo.png"})
    from_array = predictor.predict({"photo": np.full((8, 8, 3), 99, np.uint8)})
    from_shares = predictor.predict({"photo": np.full((8, 8, 3), 99 / 255, np.float32)})
    torch.testing.assert_close(from_file.logits, from_array.logits)
    torch.testing.assert_close(from_file.logits, from_shares.logits)
    assert predictor.predict({"sensor": "0.5 1.25"}).modalities == ("sensor",)


def test_load__says_what_to_do_with_an_old_run(runs: Callable[..., Path], tmp_path: Path) -> None:
    folder = train_run(tmp_path)
    (folder / "checkpoints/model.json").unlink()
    with pytest.raises(CheckpointError, match=r"model.json is not there; `robustmm evaluate .*made` writes it"):
        robustmm.load(folder)
    from robustmm.cli import run

    assert run(["evaluate", str(folder)]) == 0
    assert robustmm.load(folder).classes


def test_load__names_a_damaged_or_newer_signature(tmp_path: Path) -> None:
    folder = train_run(tmp_path)
    path = folder / "checkpoints/model.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "format": 99}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="format 99, this version of robustmm reads 1"):
        robustmm.load(folder)
    del content["modalities"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="is damaged"):
        robustmm.load(folder)
    with pytest.raises(CheckpointError, match="is no run folder"):
        robustmm.load(tmp_path)


@pytest.mark.parametrize("marked", [True, False])
def test_load__says_that_training_failed(tmp_path: Path, marked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    from robustmm.cli import run
    from robustmm.engine.run_folder import RunFolder

    folder = RunFolder(tmp_path / "made")
    folder.begin("name: made\n", [])
    if marked:
        folder.fail(robustmm.RobustmmError("step 3: the loss is nan"))
    says = "training failed: .*step 3: the loss is nan" if marked else "has it been trained\\?"
    message = rf"made has no weights \(checkpoints/best.safetensors\); {says}$"
    with pytest.raises(CheckpointError, match=message):
        robustmm.load(folder.path)
    for arguments in (["predict", "--input", "m0=1"], ["export", "--format", "torch"]):
        assert run([arguments[0], str(folder.path), *arguments[1:]]) == 2
        assert re.search(message, capsys.readouterr().err, re.MULTILINE)


def test_load__leaves_the_random_generator(runs: Callable[..., Path]) -> None:
    folder = runs("vectors")
    before = torch.get_rng_state()
    robustmm.load(folder, device="cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_load__knows_devices(runs: Callable[..., Path]) -> None:
    with pytest.raises(RobustmmError, match="device 'gppu'"):
        robustmm.load(runs("vectors"), device="gppu")


def test_predict__absent_is_absent_in_every_form(vectors: Predictor) -> None:
    value = np.arange(8, dtype=np.float32)
    alone = vectors.predict({"m0": value})
    none = vectors.predict({"m0": value, "m1": None})
    batch = {"m0": value[None], "m1": np.full((1, 8), 1e6, np.float32)}
    (hidden,) = vectors.predict(batch, presence=[[True, False]])
    assert alone.modalities == none.modalities == hidden.modalities == ("m0",)
    assert torch.equal(alone.logits, none.logits)
    assert torch.equal(alone.logits, hidden.logits)


def test_predict__gives_names_probabilities_and_doubt(vectors: Predictor) -> None:
    one = vectors.predict({"m0": np.ones(8), "m1": np.ones(8)}, ids="mine")
    assert one.id == "mine"
    assert one.label in vectors.classes
    assert one.probabilities is not None
    assert float(one.probabilities.sum()) == pytest.approx(1)
    assert one.probability == pytest.approx(one.top(1)[0][1])
    assert one.uncertainty is not None
    assert float(one.uncertainty) == pytest.approx(1 - (one.probability or 0), abs=1e-6)
    assert next(name for name, _ in one.top(99)) == one.label
    assert one.map is one.values is None


def test_predict__quantities_have_the_unit_of_the_targets(runs: Callable[..., Path]) -> None:
    predictor = robustmm.load(runs("monig", **DIABETES, method="monig"), device="cpu")
    one = predictor.predict({predictor.modalities[0].name: np.zeros(predictor.modalities[0].shape)})
    assert one.label is one.probabilities is None
    assert one.values is not None
    assert one.scales is not None
    assert list(one.values) == list(one.scales) == list(predictor.classes)
    assert 20 < next(iter(one.values.values())) < 400
    assert next(iter(one.scales.values())) > 0


def test_predict__a_batch_equals_its_samples(vectors: Predictor) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    listed = vectors.predict([{"m0": row} for row in rows], ids=list("abcde"))
    stacked = vectors.predict({"m0": torch.from_numpy(rows)})
    column = vectors.predict({"m0": list(rows), "m1": None})
    assert [one.id for one in listed] == list("abcde")
    assert [one.id for one in stacked] == list("01234")
    for one, two, three in zip(listed, stacked, column, strict=True):
        assert torch.equal(one.logits, two.logits)
        assert torch.equal(one.logits, three.logits)


def test_predict__takes_pictures_in_every_form(pictures: Predictor, tmp_path: Path) -> None:
    first = picture()
    np.save(tmp_path / "a.npy", first)
    np.savez(tmp_path / "a.npz", first)
    last = np.ascontiguousarray(first.transpose(1, 2, 0))
    expected = pictures.predict({"m0": first}).logits
    for given in (last, torch.from_numpy(first), torch.from_numpy(last), str(tmp_path / "a.npy"), tmp_path / "a.npz"):
        torch.testing.assert_close(pictures.predict({"m0": given}).logits, expected)


def test_predict__takes_pil_pictures_and_files_alike(pictures: Predictor, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    expected = pictures.predict({"m0": pixels}).logits
    assert torch.equal(pictures.predict({"m0": image}).logits, expected)
    assert torch.equal(pictures.predict({"m0": tmp_path / "a.png"}).logits, expected)
    fitted = JointTransform(Augmentation(), (8, 8), {"m0": "colour"}).fit("m0", pixels)
    assert torch.equal(pictures.predict({"m0": fitted}).logits, expected)


def test_predict__dense_comes_back_in_the_size_that_was_given(runs: Callable[..., Path]) -> None:
    predictor = robustmm.load(runs("dense", **DENSE), device="cpu")
    one, two = predictor.predict([{"m0": picture((3, 12, 20)), "m1": picture((3, 8, 8))}, {"m1": picture((3, 8, 8))}])
    assert one.map is not None
    assert one.map.shape == (12, 20)
    assert one.uncertainty is not None
    assert one.uncertainty.shape == (12, 20)
    assert two.probabilities is not None
    assert two.probabilities.shape == (4, 8, 8)
    assert torch.equal(two.map, two.logits.argmax(dim=0))
    native = robustmm.load(runs("dense", **DENSE), device="cpu", resize=False).predict({"m0": picture((3, 16, 16))})
    assert native.map is not None
    assert native.map.shape == (16, 16)


def test_every_combination__is_what_remains_as_modalities_are_taken_away(vectors: Predictor) -> None:
    given = {"m0": np.arange(8.0), "m1": np.ones(8)}
    predictions = vectors.every_combination(given, id="mine")
    assert [one.modalities for one in predictions] == [("m0",), ("m1",), ("m0", "m1")]
    for one in predictions:
        own = vectors.predict({name: given[name] for name in one.modalities})
        assert torch.equal(one.logits, own.logits)
        assert one.id == "mine"
    (alone,) = vectors.every_combination(given, [("m1",)])
    assert alone.modalities == ("m1",)
    with pytest.raises(DataError, match=r"combination 'm0\+m1': given are m0"):
        vectors.every_combination({"m0": np.ones(8)}, [("m0", "m1")])


def test_predict__logits_that_are_not_finite_are_no_class(runs: Callable[..., Path]) -> None:
    folder = runs("vectors")
    predictor = robustmm.load(folder, device="cpu")
    for parameter in predictor.method.head.parameters():
        parameter.data[0] = float("nan")
    one = predictor.predict({"m0": np.ones(8)})
    assert one.label is one.probability is None
    assert one.top(3) == []
    dense = robustmm.load(runs("dense", **DENSE), device="cpu")
    for parameter in dense.method.head.parameters():
        parameter.data[0] = float("nan")
    maps = dense.predict({"m0": picture()}).map
    assert maps is not None
    assert set(maps.unique().tolist()) == {robustmm.VOID}


def test_signature__knows_where_test_samples_are_larger(runs: Callable[..., Path]) -> None:
    folder = runs("dense", **DENSE)
    registry = get_plugins().registry
    assembly = assemble(load_config([folder / "config.yaml"], [], registry).config, registry, fit_scalers=False)
    assert assembly.signature().sizes == {}
    larger = ArrayDataset({"m0": torch.zeros(2, 3, 16, 12)}, torch.zeros(2, 16, 12, dtype=torch.int64), ["a", "b"])
    parts = dataclasses.replace(assembly.parts, test=Part(larger, range(2)))
    signature = dataclasses.replace(assembly, parts=parts).signature()
    assert signature.sizes == {"m0": (16, 12), "m1": (16, 12)}
    predictor = Predictor(assembly.method, signature, torch.device("cpu"), batch_size=2)
    given = picture((3, 16, 12))
    unchanged = Predictor(assembly.method, signature, torch.device("cpu"), batch_size=2, resize=False)
    assert torch.equal(predictor.predict({"m1": given}).logits, unchanged.predict({"m1": given}).logits)


def test_predict__is_deterministic_and_leaves_the_model(vectors: Predictor) -> None:
    before = {name: value.clone() for name, value in vectors.method.state_dict().items()}
    first, second = (vectors.predict({"m0": np.ones(8)}).logits for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in vectors.method.state_dict().items())


def test_predict__adapts_each_call_from_the_trained_weights(runs: Callable[..., Path]) -> None:
    folder = runs("attention", model={"fusion": {"name": "attention", "dim": 8, "heads": 2}})
    rows = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    plain = robustmm.load(folder, device="cpu", batch_size=2)
    adapting = robustmm.load(folder, device="cpu", batch_size=2, adapter="read", adapter_options={"lr": 0.5})
    given = {"m0": rows, "m1": rows}
    once, again = (torch.stack([one.logits for one in adapting.predict(given)]) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.allclose(once, torch.stack([one.logits for one in plain.predict(given)]))
    with pytest.raises(ConfigError, match="unknown adapter 'reed'"):
        robustmm.load(folder, adapter="reed")


REFUSED = [
    ({"M0x": np.ones(8)}, r"no modality 'M0x' \(the model has m0, m1\)"),
    ({"m00": np.ones(8)}, r"no modality 'm00' - did you mean 'm0'\? \(the model has m0, m1\)"),
    ({}, "has no modality at all; give at least one of m0, m1"),
    ({"m0": None}, "has no modality at all"),
    ({"m0": np.ones(7)}, r"m0: has shape \(7,\); expected \(8,\) \(features\)"),
    ({"m0": np.array([1, 2, np.nan, 4, 5, 6, 7, 8])}, r"m0: holds NaN \(1 of 8 values\)"),
    ({"m0": np.array([1, 2, np.inf, 4, 5, 6, 7, 8])}, "m0: holds infinite values"),
    ({"m0": np.ones(8, bool)}, "m0: values of type bool"),
    ({"m0": np.array(["a"] * 8)}, "m0: values of type <U1"),
    ({"m0": "a b c"}, "could not convert string to float: 'a'"),
    ({"m0": "no_such.npy"}, "no_such.npy: there is no such file"),
    ({"m0": "no_such.png"}, "no_such.png: there is no such file"),
    (
        {"m0": np.ones((2, 8)), "m1": np.ones(8)},
        "a batch holds as many samples of every modality; got m0 several, m1 one",
    ),
    ({"m0": np.ones((2, 8)), "m1": np.ones((3, 8))}, "got m0 2, m1 3"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_predict__refuses(vectors: Predictor, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        vectors.predict(given)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (picture((4, 8, 8)), "expected 3 channels on the first or the last axis"),
        (picture((8, 8)), r"has shape \(8, 8\); expected one map of shape \(3, H, W\) or \(H, W, 3\)"),
        (picture((3, 9, 3)), "the first and the last axis may be the 3 channels; say channels='first' or"),
        (np.full((3, 8, 8), np.nan), "holds NaN"),
    ],
)
def test_predict__refuses_pictures(pictures: Predictor, value: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=f"sample '0', m1: .*{message}"):
        pictures.predict({"m1": value})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"1.0 2.0 3.0", "a.npy: is no .npy file$"),
        ("a.npz", b"hello", "a.npz: is no .npz file$"),
        ("a.npy", b"", "a.npy: is no .npy file$"),
        ("a.npy", b"\x93NUMPY\x01\x00", "a.npy: not a readable array"),
        ("a.npz", b"PK\x03\x04", "a.npz: not a readable array"),
    ],
)
def test_predict__names_files_that_hold_no_array(
    vectors: Predictor, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        vectors.predict({"m0": tmp_path / name})
    assert "pickle" not in str(caught.value)


def test_predict__names_arrays_of_objects(vectors: Predictor, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a readable array \(it holds Python objects, not numbers\)"):
        vectors.predict({"m0": tmp_path / "a.npy"})


def test_predict__channels_may_be_said(runs: Callable[..., Path]) -> None:
    last = robustmm.load(runs("pictures", **IMAGES), device="cpu", channels="last")
    assert last.predict({"m0": picture((3, 9, 3))}).label
    with pytest.raises(DataError, match="with channels last; expected 3"):
        last.predict({"m0": picture((3, 8, 8))})
    with pytest.raises(RobustmmError, match=r"channels 'lst' - did you mean 'last'\? \(accepted: auto, first, last\)"):
        robustmm.load(runs("pictures", **IMAGES), device="cpu", channels="lst")


def test_predict__refuses_masks_and_names_that_do_not_fit(vectors: Predictor) -> None:
    rows = np.ones((2, 8), np.float32)
    with pytest.raises(DataError, match=r"expected bool of shape \(2, 2\): samples x modalities \(m0, m1\)"):
        vectors.predict({"m0": rows}, presence=[[True, False]])
    with pytest.raises(DataError, match="sample 0: presence shows m1, which is not given"):
        vectors.predict({"m0": rows}, presence=[[True, True]] * 2)
    with pytest.raises(DataError, match="presence is for several samples"):
        vectors.predict({"m0": rows[0]}, presence=[[True, False]])
    with pytest.raises(DataError, match="1 ids for 2 samples; give one for each"):
        vectors.predict({"m0": rows}, ids=["a"])
    with pytest.raises(DataError, match="3 ids for 2 samples"):
        vectors.predict([{"m0": row} for row in rows], ids=["a", "b", "c"])
    with pytest.raises(DataError, match="ids: 'a' given more than once"):
        vectors.predict({"m0": rows}, ids=["a", "a"])
    with pytest.raises(DataError, match=r"presence is torch.float32 .*, or whole numbers 0 and 1"):
        vectors.predict({"m0": rows}, presence=[[1.0, 0.0]] * 2)
    with pytest.raises(DataError, match=r"presence is torch.int64 of shape"):
        vectors.predict({"m0": rows}, presence=[[2, 0]] * 2)
    with pytest.raises(DataError, match="presence is no mask"):
        vectors.predict({"m0": rows}, presence=[[1, 0], [1]])


def test_predict__presence_may_be_whole_numbers(vectors: Predictor) -> None:
    rows = np.ones((2, 8), np.float32)
    mask = np.array([[1, 0], [1, 1]])
    for presence in (mask, mask.astype(np.uint8), mask.tolist(), torch.from_numpy(mask)):
        numbers = vectors.predict({"m0": rows, "m1": rows}, presence=presence)
        assert [one.modalities for one in numbers] == [("m0",), ("m0", "m1")]


def test_predict__names_everything_wrong_with_a_sample(vectors: Predictor) -> None:
    with pytest.raises(DataError) as caught:
        vectors.predict([{"m0": "away.npy", "m1": "gone.npy"}], ids=["x"])
    assert str(caught.value).splitlines() == [
        "sample 'x', m0: away.npy: there is no such file",
        "sample 'x', m1: gone.npy: there is no such file",
    ]


def test_predictor__says_what_it_takes_and_gives(vectors: Predictor) -> None:
    name = vectors.signature.facts["name"]
    assert repr(vectors) == f"Predictor({name}: m0 8, m1 8 -> classification of {len(vectors.classes)} classes, on cpu)"


def test_predict__depth_keeps_holes_and_reads_16_bits(tmp_path: Path) -> None:
    modality = robustmm.Modality("depth", "image", (1, 2, 2), robustmm.Scaling(invalid=0.0), "mm")
    from robustmm.use.values import read_value

    depth = np.array([[0, 1000, 2000, 40000]] * 4, np.uint16)
    Image.fromarray(depth).save(tmp_path / "depth.png")
    value = read_value(tmp_path / "depth.png", modality, (2, 2))
    assert value.size == (4, 4)
    assert set(value.tensor.flatten().tolist()) <= {0.0, 1000.0, 2000.0, 40000.0}
    holes = np.array([[np.nan, 5.0], [5.0, 5.0]], np.float32)
    assert read_value(holes, modality, (2, 2)).tensor[0, 0, 0] == 0


def test_predict__warns_once_of_shares_where_pixels_were_trained_on(
    runs: Callable[..., Path], recwarn: pytest.WarningsRecorder
) -> None:
    predictor = robustmm.load(runs("pictures", **IMAGES), device="cpu")
    predictor.method.trunk.scalers["m0"].set(torch.full((3,), 120.0), torch.full((3,), 3600.0))
    predictor = Predictor(predictor.method, predictor.signature, predictor.device, batch_size=2)
    shares = np.linspace(0, 1, 192, dtype=np.float32).reshape(3, 8, 8)
    for given in (shares * 255, (shares * 255).astype(np.uint8), (shares > 2).astype(np.float32), shares - 0.5):
        predictor.predict({"m0": given, "m1": shares})  # m1 was trained on values about 0
    assert not recwarn.list
    predictor.predict([{"m0": shares}, {"m0": shares}])
    (warning,) = recwarn.list
    assert str(warning.message) == (
        "m0: values lie in 0 to 1; the model was trained on values of mean 120 and deviation 60; "
        "give pixels of 8 bits, or multiply by 255"
    )


def test_ranges__repair_depends_on_what_was_trained_on() -> None:
    from robustmm.models.scaler import Scaler
    from robustmm.use.ranges import RangeWatch, scalers_of

    depth = robustmm.Modality("depth", "image", (1, 2, 2), unit="mm")
    scaler = Scaler(depth)
    RangeWatch({"depth": scaler}).look(torch.full((1, 2, 2), 0.9), depth)  # nothing is known of its training
    scaler.set(torch.tensor([2000.0]), torch.tensor([250000.0]))
    with pytest.warns(UserWarning, match=r"mean 2000 and deviation 500 \(unit mm\); give raw values$"):
        RangeWatch({"depth": scaler}).look(torch.full((1, 2, 2), 0.9), depth)
    assert scalers_of(torch.nn.Linear(1, 1)) == {}


@pytest.mark.parametrize(
    ("scaling", "unit", "expected"),
    [(robustmm.Scaling(), "mm", "values in mm"), (robustmm.Scaling(invalid=0.0), "", "measured values")],
)
def test_read_value__colours_are_no_measurement(
    tmp_path: Path, scaling: robustmm.Scaling, unit: str, expected: str
) -> None:
    from robustmm.use.values import read_value

    depth = robustmm.Modality("depth", "image", (1, 4, 4), scaling, unit)
    colours = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    colours.save(tmp_path / "a.png")
    message = rf"a picture of 3 channels \(RGB\) with colours; expected one channel of {expected}"
    for given, place in ((tmp_path / "a.png", "depth: .*a.png: "), (colours, "depth: "), (colours.convert("CMYK"), "")):
        with pytest.raises(DataError, match=place + message.replace("3 channels", ". channels").replace("RGB", ".*")):
            read_value(given, depth, None)
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    assert torch.equal(read_value(grey.convert("RGB"), depth, None).tensor, read_value(grey, depth, None).tensor)
    assert read_value(colours, robustmm.Modality("grey", "image", (1, 4, 4)), None).tensor.shape == (1, 4, 4)


def test_read_value__pictures_that_a_data_set_prepares_are_not_read(tmp_path: Path) -> None:
    from robustmm.use.values import read_value

    image = Image.fromarray(np.ones((4, 4), np.uint8))
    image.save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.ones((4, 4), np.float32))
    reading = robustmm.Reading(prepared="less the median")
    modality = robustmm.Modality("depth", "image", (1, 4, 4), reading=reading)
    for given in (image, tmp_path / "a.png"):
        with pytest.raises(
            DataError, match=r"the data set makes other values of files \(less the median\); give these"
        ):
            read_value(given, modality, None)
    assert read_value(tmp_path / "a.npy", modality, None).tensor.sum() == 16


def test_read_value__recordings_become_the_spectrograms_of_training(tmp_path: Path) -> None:
    from robustmm.use.values import read_value

    recording = robustmm.LogMel(bands=4, frames=6)
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.arange(2000), rate=8000))
    modality = robustmm.Modality("audio", "spectrogram", (1, 4, 6), reading=robustmm.Reading(recording=recording))
    value = read_value(tmp_path / "a.wav", modality, None).tensor
    with (tmp_path / "a.wav").open("rb") as file:
        assert torch.equal(value, recording(*robustmm.read_wav(file, "a.wav")))
    with pytest.raises(DataError, match="does not say how recordings become spectrograms; give the spectrogram itself"):
        read_value(tmp_path / "a.wav", robustmm.Modality("audio", "spectrogram", (1, 4, 6)), None)
