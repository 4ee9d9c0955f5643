"""Recording a part: equal to asking the model for every view anew, kept in files that a stopped pass goes on from."""

import socket
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from brute_force import SETTINGS, brute_force, holed, settled

from robustmm import Batch, CheckpointError, Metric
from robustmm.engine import record as module
from robustmm.engine.record import Recorder, Views, record
from robustmm.engine.recording import NO_SOURCE, Recording, combination_view, load_recording, unimodal_view
from robustmm.masks import all_combinations
from robustmm.methods.method import Method
from robustmm.models.modes import evaluating
from robustmm.testing import tiny as published
from robustmm.testing.contract import build as example

CPU = torch.device("cpu")


class Batches:
    """Stands for a loader: batches at hand."""

    def __init__(self, data: list[Batch]) -> None:
        self.part = [None] * sum(map(len, data))
        self.batch_size = len(data[0])
        self.data = data
        self.read: list[int] = []

    def ordered(self, indices: torch.Tensor, *, whole: bool):
        assert whole
        for number in torch.unique(indices // self.batch_size).tolist():
            self.read.append(number)
            yield self.data[number]


def doubled(name: str):
    """An alteration of one modality."""
    return lambda batch: {name: 2 * batch.inputs[name] + 1}


def views_of(method: Method) -> Views:
    first, last = method.modalities[0], method.modalities[-1]
    made = {f"altered/{name}": doubled(name) for name in (first, last)}
    return Views(all_combinations(method.modalities), made, unimodal=True)


def altered_logits(method: Method, batch: Batch, name: str) -> torch.Tensor:
    inputs = {**batch.inputs, **doubled(name)(batch)}
    return method(inputs, batch.observed, size=method.task.target_size(batch.target)).logits


def logits_of(recorder: Recorder, batch: Batch) -> dict[str, torch.Tensor]:
    """Records as logits, whatever the task keeps."""
    recorder.method.task.record = lambda logits, target: {"logits": logits.float().cpu()}
    try:
        return {view: records["logits"] for view, records in recorder(batch).items()}
    finally:
        del recorder.method.task.record


@pytest.mark.parametrize(("component", "setting"), SETTINGS, ids=lambda one: getattr(one, "name", str(one)))
def test_recorder__equals_brute_force_for_each_method(component, setting):
    batch = holed(published.batch(setting, size=6, seed=6), 6)
    method = settled(example(component, blueprint=published.blueprint(setting)), published.batch(setting))
    views = views_of(method)
    with evaluating(method), torch.no_grad():
        found = logits_of(Recorder(method, CPU, views), batch)
        for name in (method.modalities[0], method.modalities[-1]):
            expected = altered_logits(method, batch, name)
            torch.testing.assert_close(found[f"altered/{name}"], expected, rtol=1e-5, atol=1e-5)
    for combination in views.combinations:
        shown = (batch.observed & torch.tensor([name in combination for name in method.modalities])).any(dim=1)
        expected, _ = brute_force(method, [batch], combination)
        torch.testing.assert_close(found[combination_view(combination)][shown], expected, rtol=1e-5, atol=1e-5)


def data(dense: bool = False) -> list[Batch]:
    made = []
    for place, size in enumerate((4, 4, 3)):
        one = holed(tiny.batch(2, size=size, dense=dense, seed=place), place)
        ids = tuple(f"{place}-{name}" for name in one.ids)
        made.append(Batch(one.inputs, one.observed, one.target, ids, one.index))
    return made


def recorded(folder, method: Method, loader: Batches, **facts) -> Recording:
    return record(Recorder(method, CPU, views_of(method)), loader, folder, facts)


@pytest.mark.parametrize("dense", [False, True])
def test_record__holds_every_sample_in_order_and_leaves_no_shard(tmp_path, dense):
    method, batches = settled(Method(tiny.blueprint(2, dense=dense)), tiny.batch(2, dense=dense)), data(dense)
    found = recorded(tmp_path / "shards", method, Batches(batches))
    assert found.ids == tuple(name for batch in batches for name in batch.ids)
    assert torch.equal(found.observed, torch.cat([batch.observed for batch in batches]))
    assert torch.equal(found.target, torch.cat([batch.target for batch in batches]))
    assert set(found.views) == set(views_of(method).names(method.modalities))
    assert found.unimodal_source == ("masked" if dense else "split")
    assert not (tmp_path / "shards").exists()
    assert method.training


def test_record__a_pass_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    whole = recorded(tmp_path / "whole", method, Batches(data()))
    made: list[int] = []
    plain = Recorder.__call__

    def failing(self, batch):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return plain(self, batch)

    monkeypatch.setattr(Recorder, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "parts", method, Batches(data()))
    monkeypatch.setattr(Recorder, "__call__", plain)
    loader = Batches(data())
    again = recorded(tmp_path / "parts", method, loader)
    assert loader.read == [2]
    whole.save(tmp_path / "whole.npz")
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_record__parts_made_with_other_weights_are_not_taken(tmp_path):
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    shards = tmp_path / "shards"
    loader = Batches(data())
    with pytest.raises(StopIteration):
        recorded(shards, method, _cut(loader), weights="old")
    assert recorded(shards, method, loader, weights="new").facts == {"weights": "new"}
    assert loader.read[-3:] == [0, 1, 2]


def _cut(loader: Batches) -> Batches:
    """The same part, of which only the first batch can be read."""
    cut = Batches(loader.data)
    cut.ordered = lambda indices, whole: iter(loader.data[:1])  # type: ignore[method-assign]
    return cut


def test_record__every_modality_is_encoded_once_and_an_altered_one_once_more(tmp_path):
    method = settled(Method(tiny.blueprint(3)), tiny.batch(3))
    calls: dict[str, int] = {}
    for name, encoder in method.trunk.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    with evaluating(method):
        views = Views(all_combinations(method.modalities), {f"a{place}": doubled("depth") for place in range(5)}, True)
        Recorder(method, CPU, views)(tiny.batch(3))
    assert calls == {"rgb": 1, "depth": 6, "ir": 1}


class Seen(Metric):
    """Counts samples."""

    def __init__(self) -> None:
        self.samples = 0

    def update(self, logits, target) -> None:
        self.samples += len(target)

    def merge(self, other) -> None:
        self.samples += other.samples

    def compute(self) -> float:
        return float(self.samples)


def on_one_of_two(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
        view = combination_view(("rgb", "depth"))
        recorder = Recorder(method, CPU, views_of(method), extra={view: {"seen": Seen()}})
        loader = Batches(data())
        made = record(recorder, loader, folder / "shards", {})
        made.save(folder / f"{rank}.npz")
        (folder / f"{rank}.txt").write_text(f"{loader.read} {made.extra[view]['seen'].compute():g}")
    finally:
        dist.destroy_process_group()


def test_record__two_processes_share_the_shards_and_have_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(on_one_of_two, (port, tmp_path), nprocs=2)
    torch.manual_seed(0)
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    recorded(tmp_path / "shards", method, Batches(data())).save(tmp_path / "alone.npz")
    for rank in range(2):
        assert (tmp_path / f"{rank}.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["[0, 2] 11", "[1] 11"]


def test_recorder__own_predictions_that_cannot_be_had_are_said_so(monkeypatch):
    monkeypatch.setattr(module, "unimodal_logits", lambda method, output: None)
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    recorder = Recorder(method, CPU, Views(unimodal=True))
    with evaluating(method):
        assert recorder(tiny.batch(2)) == {}
    assert recorder.unimodal_source == NO_SOURCE


def test_under__takes_each_sample_from_the_combination_that_it_shows(tmp_path):
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    found = recorded(tmp_path / "shards", method, Batches(data()))
    mask = torch.tensor([[True, False], [False, True], [True, True]] * 3 + [[True, True]] * 2)
    logits = found.under(mask)["logits"]
    for row, shown in enumerate(mask.tolist()):
        combination = tuple(name for name, on in zip(found.modalities, shown, strict=True) if on)
        assert torch.equal(logits[row], found.combination(combination)["logits"][row])
    few = Recording(found.modalities, found.ids, found.observed, found.target, {}, {})
    with pytest.raises(CheckpointError, match="no predictions of the combination depth are recorded"):
        few.under(mask)


def test_load_recording__gives_back_what_was_saved_and_names_what_is_damaged(tmp_path):
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    found = recorded(tmp_path / "shards", method, Batches(data()), weights="a")
    path = tmp_path / "predictions.npz"
    found.save(path)
    again = load_recording(path)
    assert (again.ids, again.modalities, again.facts) == (found.ids, found.modalities, {"weights": "a"})
    assert again.unimodal_source == "split"
    for view, records in found.views.items():
        assert torch.equal(again.views[view]["logits"], records["logits"])
    assert again.lacks([unimodal_view("rgb"), "other"]) == ["other"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        CheckpointError, match=r"predictions\.npz cannot be read .*; delete it, and it will be made anew"
    ):
        load_recording(path)
