"""QMF: the released code's fusion and gradients, the history of losses, and who takes part in the ranking."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from robustmm_plugins.methods.qmf import QMF, LossHistory, energy_confidence, sample_confidence, weighted_sum

from robustmm import SegmentationTask, confidence_ranking

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "qmf.json").read_text())


def ready(count, *, task=None, dense=False, **options):
    torch.manual_seed(0)
    return QMF(tiny.blueprint(count, task=task, dense=dense), **options).train()


def terms_of(method, data, presence=None, clock=None):
    presence = data.observed if presence is None else presence
    output = method(data.inputs, presence, size=method.task.target_size(data.target))
    return method.losses(output, data, clock or tiny.clock())


@pytest.mark.parametrize(("case", "detached"), [("fusion", False), ("fusion_detached", True)])
def test_fused_logits__equal_the_released_code_with_its_gradients(case, detached):
    golden = GOLDEN[case]
    logits = torch.tensor(golden["logits"], dtype=torch.float64).transpose(0, 1).requires_grad_()  # (B, M, C)
    decision = ready(2, detach_confidence=detached).decide(logits, torch.ones(4, 2).bool())
    expected = torch.tensor(golden["fused"], dtype=torch.float64)
    torch.testing.assert_close(decision.logits, expected, rtol=0, atol=1e-10)
    (decision.logits * torch.tensor(golden["weights"])).sum().backward()
    gradient = torch.tensor(golden["gradient"], dtype=torch.float64).transpose(0, 1)
    torch.testing.assert_close(logits.grad, gradient, rtol=0, atol=1e-10)
    if not detached:
        confidence = torch.tensor(golden["confidence"], dtype=torch.float64).T
        torch.testing.assert_close(decision.extras["confidence"], confidence, rtol=0, atol=1e-10)


def test_fused_logits__equal_the_worked_example():
    logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    confidence = energy_confidence(logits, 0.1)
    torch.testing.assert_close(confidence, torch.tensor([[0.223954, 0.155144]]), rtol=0, atol=1e-6)
    fused = weighted_sum(logits, confidence, torch.ones(1, 2).bool())
    torch.testing.assert_close(fused, torch.tensor([[0.447909, 0.155144, 0.0]]), rtol=0, atol=1e-6)


def test_confidence__moves_with_a_constant_and_holds_large_logits():
    logits = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(energy_confidence(logits + 5, 0.1), energy_confidence(logits, 0.1) + 0.5)
    assert energy_confidence(torch.full((1, 1, 3), 1e4), 0.1).isfinite().all()
    assert energy_confidence(torch.zeros(1, 1, 3), 0.1).item() == pytest.approx(0.1098612)


def test_absent_modality__weighs_nothing_and_has_no_loss():
    method, data = ready(2), tiny.batch(2)
    presence = tiny.shown(("rgb",), 2)
    output = method(data.inputs, presence)
    own = output.extras["opinions"][:, 0]
    torch.testing.assert_close(output.logits, own * output.extras["confidence"][:, :1])
    terms = method.losses(output, data, tiny.clock())
    assert terms["unimodal/depth"].value.item() == 0
    assert not method.history.losses[:, 1].any()
    assert not method.history.shown[:, 1].any()
    torch.testing.assert_close(method.history.losses[:8, 0], method.task.sample_losses(own, data.target).detach())


def test_history__equals_the_released_code_as_a_sum():
    history = LossHistory(7, 1)
    for step in GOLDEN["history"]["steps"]:
        losses = torch.tensor(step["losses"])[:, None]
        history.add(torch.tensor(step["index"]), losses, torch.ones(4, 1).bool())
        torch.testing.assert_close(history.losses[:, 0], torch.tensor(step["history"]))
    found, known = history.normalised(torch.arange(7), "sum")
    torch.testing.assert_close(found[:, 0], torch.tensor(GOLDEN["history"]["normalised"]))
    assert known.all()


def test_history__as_a_mean_counts_those_shown_less_often_alike():
    history = LossHistory(4, 2)
    everyone, first = torch.ones(3, 2).bool(), torch.tensor([[True, True], [True, False], [True, True]])
    history.add(torch.tensor([0, 1, 2]), torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), everyone)
    history.add(torch.tensor([0, 1, 2]), torch.tensor([[1.0, 1.0], [2.0, 9.0], [3.0, 3.0]]), first)
    found, known = history.normalised(torch.tensor([2, 1, 0, 3]), "mean")
    assert known.tolist() == [[True, True], [True, True], [True, True], [False, False]]
    assert found[:3].tolist() == [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]
    summed, _ = history.normalised(torch.tensor([2, 1, 0]), "sum")
    assert summed.tolist() == [[1.0, 1.0], [0.5, 0.0], [0.0, 0.0]]


def test_history__counts_a_sample_that_a_batch_holds_twice():
    history = LossHistory(3, 1)
    history.add(torch.tensor([1, 1]), torch.tensor([[2.0], [4.0]]), torch.ones(2, 1).bool())
    assert history.losses[:, 0].tolist() == [0.0, 6.0, 0.0]
    assert history.shown[:, 0].tolist() == [0.0, 2.0, 0.0]


def test_first_steps__have_no_ranking_and_are_finite():
    method, data = ready(2), tiny.batch(2)
    assert terms_of(method, data)["rank"].value.item() == 0
    later = replace(data, index=data.index + 8)  # other samples, as in the first epoch
    assert terms_of(method, later)["rank"].value.item() == 0
    assert terms_of(method, data)["rank"].value.item() > 0


@pytest.mark.parametrize("margin", ["paper", "code"])
def test_ranking__is_that_of_the_samples_seen_before(margin):
    method, data = ready(2, rank_weight=0.5, margin=margin), tiny.batch(2)
    terms_of(method, data, tiny.mixed_presence(2))
    output = method(data.inputs, data.observed)
    known = tiny.mixed_presence(2)
    expected = 0.0
    for column in range(2):
        rows = known[:, column]  # those that showed the modality in the step before
        past = method.history.losses[:8, column][rows]
        past = (past - past.min()) / (past.max() - past.min())
        expected += confidence_ranking(output.extras["confidence"][rows, column], past, form=margin)
    term = method.losses(output, data, tiny.clock())["rank"]
    torch.testing.assert_close(term.value, 0.5 * expected)
    assert term.role == "regulariser"


def test_evaluation__leaves_the_history_untouched():
    method, data = ready(2), tiny.batch(2)
    terms_of(method, data)
    before = method.history.losses.clone()
    method.eval()
    assert "rank" not in terms_of(method, data)
    assert torch.equal(method.history.losses, before)


def test_deployed_model__has_no_history_and_the_method_keeps_its_own():
    method = ready(2)
    deployed = method.deployable()
    assert not [name for name in deployed.state_dict() if name.startswith("history")]
    assert method.history is not None
    data = tiny.batch(2)
    method.eval()
    assert torch.equal(deployed.eval()(data.inputs, data.observed).logits, method(data.inputs, data.observed).logits)


def test_checkpoint__holds_the_history():
    method, data = ready(2), tiny.batch(2)
    terms_of(method, data)
    other = ready(2)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.history.losses, method.history.losses)
    assert other.history.losses.any()


def test_batch_of_one__ranks_nothing():
    method, data = ready(2).eval(), tiny.batch(2, size=2)
    method.history.train()
    method.training = True
    one = replace(data, inputs={n: x[:1] for n, x in data.inputs.items()}, observed=data.observed[:1])
    one = replace(one, target=data.target[:1], index=data.index[:1], ids=data.ids[:1])
    for _ in range(2):
        assert terms_of(method, one)["rank"].value.item() == 0


def test_rank_weight_0__is_without_history():
    method = ready(2, rank_weight=0.0, unimodal_weight=0.0)
    assert list(terms_of(method, tiny.batch(2))) == ["task"]
    assert method.history is None


def test_dense__ranks_the_mean_over_valid_pixels():
    task = SegmentationTask(["a", "b", "c"])
    target = torch.tensor([[[0, 255], [1, 255]], [[255, 255], [255, 255]]])
    confidence = torch.tensor([[[[1.0, 9.0], [3.0, 9.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])  # (B, 1, H, W)
    assert sample_confidence(task, confidence, target).tolist() == [[2.0], [0.0]]
    method, data = ready(2, task=task, dense=True), tiny.batch(2, dense=True)
    terms_of(method, data)
    found = terms_of(method, data)
    assert found["rank"].value.item() > 0
    assert method.history.shown[:8].tolist() == [[2.0, 2.0]] * 8


def test_mixed_precision__keeps_fusion_and_terms_in_float32():
    method, data = ready(3), tiny.batch(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms_of(method, data)
        output = method(data.inputs, tiny.mixed_presence(3))
        terms = method.losses(output, data, tiny.clock())
    assert output.logits.dtype == torch.float32
    assert all(term.value.dtype == torch.float32 and term.value.isfinite() for term in terms.values())


def history_of(places, losses, presence):
    history = LossHistory(8, 2)
    for step in range(2):
        history.add(places + 4 * step, losses + step, presence)
    return {name: value.clone() for name, value in history.named_buffers()}


def on_one_of_two(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        own = slice(2 * rank, 2 * rank + 2)
        torch.save(history_of(*(part[own] for part in a_batch())), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def a_batch():
    losses = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    return torch.arange(4), losses, torch.tensor([[True, True], [True, False], [False, True], [True, True]])


def test_history__is_the_same_on_all_processes_and_holds_the_samples_of_all(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(on_one_of_two, (port, tmp_path), nprocs=2)
    expected = history_of(*a_batch())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(found[name], value) for name, value in expected.items())
