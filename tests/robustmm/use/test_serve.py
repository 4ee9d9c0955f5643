"""The local page: what it shows of a sample, what it answers, and what it asks of nobody else."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from used_runs import DENSE, train_run

import robustmm
from robustmm import DataError, RobustmmError
from robustmm.cli import run
from robustmm.engine.run_folder import RunFolder
from robustmm.plugin_manager import get_plugins
from robustmm.use.explore import DRAWN, chosen_combinations, drawn, explore
from robustmm.use.held_out import HeldOut, held_out
from robustmm.use.serve import HOME, make_app, serve

pytest.importorskip("flask")
DIABETES = {"data": {"dataset": {"name": "diabetes"}, "batch_size": 64}, "method": "monig"}


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
def client_of() -> Callable[[Path], Any]:
    """Makes a client of the page of a run."""

    def make(folder: Path) -> Any:
        predictor = robustmm.load(folder, device="cpu")
        return make_app(predictor, held_out(RunFolder(folder), get_plugins().registry)).test_client()

    return make


def test_explore__has_every_combination_of_what_is_given(runs: Callable[..., Path]) -> None:
    predictor = robustmm.load(runs("vectors"), device="cpu")
    shown = explore(predictor, {"m0": np.arange(8.0), "m1": np.ones(8)}, id="a", target=torch.tensor(1))
    assert [one["name"] for one in shown["combinations"]] == ["m0", "m1", "m0+m1"]
    for one in shown["combinations"]:
        given = {
            name: value for name, value in {"m0": np.arange(8.0), "m1": np.ones(8)}.items() if name in one["modalities"]
        }
        own = predictor.predict(given)
        assert one["label"] == own.label
        assert one["right"] is (own.label == predictor.classes[1])
        assert one["bars"][0][1] == pytest.approx(own.probability, rel=1e-4)
    assert shown["target"] == {"label": predictor.classes[1]}
    assert shown["inputs"][0]["lines"] == [list(range(8))]
    alone = explore(predictor, {"m1": "1 1 1 1 1 1 1 1"}, id="b")
    assert [one["name"] for one in alone["combinations"]] == ["m1"]
    assert alone["inputs"][0] == {"name": "m0", "kind": "vector", "shape": "8", "unit": "", "given": False}
    assert alone["combinations"][0]["right"] is None


def test_explore__dense_maps_have_colours_and_scores(runs: Callable[..., Path]) -> None:
    predictor = robustmm.load(runs("dense", **DENSE), device="cpu")
    picture = np.random.default_rng(0).normal(size=(3, 12, 10)).astype(np.float32)
    shown = explore(predictor, {"m0": picture}, id="a", target=torch.zeros(6, 5, dtype=torch.int64))
    (one,) = shown["combinations"]
    assert one["picture"].startswith("data:image/png;base64,")
    assert one["below"] == "m0"
    assert sum(share for _, share, _ in one["bars"]) == pytest.approx(1, abs=1e-4)
    assert re.fullmatch(r"rgb\(\d+ \d+ \d+\)", one["bars"][0][2])
    assert 0 <= one["score"] <= 1
    assert shown["target"]["picture"].startswith("data:")


def test_explore__quantities_have_values_and_scales(runs: Callable[..., Path]) -> None:
    predictor = robustmm.load(runs("monig", **DIABETES), device="cpu")
    (first, *_) = predictor.modalities
    shown = explore(predictor, {first.name: np.zeros(first.shape)}, id="a", target=torch.tensor(3.5))
    ((name, value, scale),) = shown["combinations"][0]["values"]
    assert name == predictor.classes[0]
    assert value > 0
    assert scale > 0
    assert shown["target"] == {"values": [[name, 3.5]]}


def test_explore__refuses_what_the_predictor_refuses(runs: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="sample 'a' has no modality at all"):
        explore(robustmm.load(runs("vectors"), device="cpu"), {}, id="a")


def test_combinations__of_many_modalities_are_few() -> None:
    assert len(chosen_combinations("abcdef")) == 63
    assert len(chosen_combinations("abcdefgh")) == 8 + 8 + 1


def test_drawn__averages_many_numbers() -> None:
    assert drawn(torch.tensor([1.0, 2.0])) == [1.0, 2.0]
    assert drawn(torch.ones(10 * DRAWN)) == [1.0] * DRAWN


def test_page__asks_for_nothing_from_outside(runs: Callable[..., Path], client_of: Callable[[Path], Any]) -> None:
    answer = client_of(runs("vectors")).get("/")
    text = answer.get_data(as_text=True)
    assert answer.status_code == 200
    addresses = set(re.findall(r"https?://[^\s\"')]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace, which nobody fetches
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert 'data-samples="16"' in text
    assert 'name="m1"' in text


def test_page__scripts_read_no_text_as_markup() -> None:
    source = (HOME / "page.js").read_text(encoding="utf-8")
    assert "innerHTML" not in source
    assert "insertAdjacentHTML" not in source


def test_sample__is_one_of_the_test_part(runs: Callable[..., Path], client_of: Callable[[Path], Any]) -> None:
    client = client_of(runs("vectors"))
    found = client.get("/sample/3").get_json()
    assert found["target"]["label"]
    assert len(found["combinations"]) == 3
    beyond = client.get("/sample/99")
    assert beyond.status_code == 400
    assert beyond.get_json() == {"error": "there is no test sample 99"}


def test_files__are_read_and_not_kept(
    runs: Callable[..., Path], client_of: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = client_of(runs("dense", **DENSE))
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 7, 3), 50, np.uint8)).save(buffer, "PNG")
    sent = {"m1": (io.BytesIO(buffer.getvalue()), "../../a.PNG"), "m0": (io.BytesIO(), "")}
    found = client.post("/files", data=sent).get_json()
    assert [one["name"] for one in found["combinations"]] == ["m1"]
    assert not list(tmp_path.iterdir())
    wrong = client.post("/files", data={"m1": (io.BytesIO(b"no picture"), "a.png")})
    assert wrong.status_code == 400
    assert "not a readable picture" in wrong.get_json()["error"]
    assert str(tmp_path) not in wrong.get_json()["error"]
    assert client.post("/files", data={}).status_code == 400


def test_files__a_vector_may_be_numbers(runs: Callable[..., Path], client_of: Callable[[Path], Any]) -> None:
    client = client_of(runs("vectors"))
    assert client.post("/files", data={"m0": "1 2 3 4 5 6 7 8", "m1": " "}).get_json()["inputs"][0]["given"]
    assert "expected (8,)" in client.post("/files", data={"m0": "1"}).get_json()["error"]


def test_app__answers_under_its_own_name_alone(runs: Callable[..., Path], client_of: Callable[[Path], Any]) -> None:
    client = client_of(runs("vectors"))
    assert client.get("/", headers={"Host": "localhost:7860"}).status_code == 200
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 403


def test_app__works_without_test_data(runs: Callable[..., Path]) -> None:
    app = make_app(robustmm.load(runs("vectors"), device="cpu"), HeldOut(None, "the disk is away"), hosts=())
    client = app.test_client()
    text = client.get("/", headers={"Host": "any.example"}).get_data(as_text=True)
    assert "Test samples are not there: the disk is away" in text
    assert client.get("/sample/0").status_code == 400


def test_serve__names_a_port_that_is_taken(runs: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    app = make_app(robustmm.load(runs("vectors"), device="cpu"), HeldOut(None))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        capsys.readouterr()
        message = rf"127.0.0.1:\d+ cannot be used \({os.strerror(errno.EADDRINUSE)}\); give another --port"
        with pytest.raises(RobustmmError, match=message):
            serve(app, "127.0.0.1", taken.getsockname()[1], print)
    assert capsys.readouterr() == ("", "")


def test_serve__tells_its_address(
    runs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socketserver.BaseServer.serve_forever", lambda *_, **__: None)
    assert run(["serve", str(runs("vectors")), "--port", "0", "--accelerator", "cpu"]) == 0
    assert re.search(r"made at http://127.0.0.1:\d+ - Ctrl-C stops", capsys.readouterr().out)


def test_serve__names_the_extra(
    runs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    assert run(["serve", str(runs("vectors"))]) == 2
    assert "robustmm serve needs flask: pip install 'robustmm[serve]'" in capsys.readouterr().err
