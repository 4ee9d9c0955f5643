"""What a balancer sees before an epoch."""

import pytest
import tiny_models as tiny
import torch

from robustmm import EpochView, Method, combination_table
from robustmm.methods import probes
from robustmm.types import Batch


def view_of(count=3, *, dense=False, **options):
    torch.manual_seed(0)
    method = Method(tiny.blueprint(count, dense=dense)).train()
    data = [tiny.batch(count, seed=seed, dense=dense) for seed in range(2)]
    return EpochView(
        method=method,
        clock=tiny.clock(epoch=2),
        groups=method.trunk.parameter_groups(),
        samples=16,
        batches=lambda indices=None: iter(data),
        held_out=lambda: iter(data[:1]),
        evaluate=None,
        trial=None,
        forget=None,
        **options,
    )


def incomplete(count) -> Batch:
    data = tiny.batch(count)
    return Batch(data.inputs, tiny.mixed_presence(count), data.target, data.ids, data.index)


def accuracy(logits, target):
    return (logits.argmax(dim=1) == target).float()


def test_outputs__are_those_of_evaluation_and_change_nothing():
    view = view_of()
    before = {name: value.clone() for name, value in view.method.state_dict().items()}
    found = [output.logits for _, output in view.outputs(view.batches())]
    assert all(torch.equal(value, before[name]) for name, value in view.method.state_dict().items())
    assert all(part.training for part in view.method.modules())
    view.method.eval()
    for data, logits in zip(view.batches(), found, strict=True):
        assert not logits.requires_grad
        torch.testing.assert_close(logits, view.method(data.inputs, data.observed).logits.detach())


def test_outputs__are_those_of_a_copy_where_one_is_given():
    view, other = view_of(), Method(tiny.blueprint(3)).eval()
    for data, output in view.outputs(view.batches(), other):
        torch.testing.assert_close(output.logits, other(data.inputs, data.observed).logits.detach())


def test_outputs__leave_mode_and_gradients_alone_between_batches_and_when_they_are_left_half_read():
    """Two of them side by side must not switch gradients off for good, whichever ends first."""
    view = view_of()
    for _ in zip(view.outputs(view.held_out()), view.outputs(view.batches()), strict=False):
        assert torch.is_grad_enabled()
        assert all(part.training for part in view.method.modules())
    half = view.outputs(view.batches())
    next(half)
    assert torch.is_grad_enabled()
    assert all(part.training for part in view.method.modules())


def test_outputs__have_the_precision_of_the_run():
    view = view_of(autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    assert {output.logits.dtype for _, output in view.outputs(view.batches())} == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("at_once", [1, 1 << 22])
@pytest.mark.parametrize(("count", "dense"), [(1, False), (2, False), (3, False), (2, True)])
def test_subset_scores__equal_predictions_from_each_subset_alone(monkeypatch, at_once, count, dense):
    monkeypatch.setattr(probes, "FUSE_AT_ONCE", at_once)
    view, data = view_of(count, dense=dense), incomplete(count) if not dense else tiny.batch(count, dense=True)
    table = combination_table(view.modalities)

    def first_logit(logits, target):
        return logits[:, 0].flatten(1).sum(dim=1) if dense else logits[:, 0]

    [(same, scores)] = view.subset_scores([data], first_logit)
    assert same is data
    assert scores.shape == (len(data), 2**count - 1)
    view.method.eval()
    for column, combination in enumerate(table):
        shown = data.observed & combination
        usable = shown.any(dim=1)
        logits = view.method(data.inputs, shown, size=tuple(data.target.shape[1:])).logits
        torch.testing.assert_close(scores[usable, column], first_logit(logits, data.target)[usable].detach())


def test_subset_scores__encode_again_where_features_cannot_be_fused_anew(monkeypatch):
    view, data = view_of(), incomplete(3)
    [(_, expected)] = view.subset_scores([data], accuracy)
    monkeypatch.setattr(view.method.trunk, "refuse", lambda features, presence: None)
    [(_, scores)] = view.subset_scores([data], accuracy)
    usable = (data.observed[:, None] & combination_table(view.modalities)).any(dim=2)
    assert torch.equal(scores[usable], expected[usable])
    assert all(part.training for part in view.method.modules())


def test_generator__depends_on_seed_epoch_and_purpose():
    def draw(purpose, **options):
        return torch.rand(1, generator=view_of(**options).generator(purpose)).item()

    assert draw("split") == draw("split")
    assert len({draw("split"), draw("list"), draw("split", seed=1)}) == 3


def test_alone_losses__stand_by_position_and_leave_out_what_a_sample_lacks():
    data = incomplete(3)
    turned = Batch(data.inputs, data.observed, data.target, data.ids, data.index.flip(0))
    view = view_of()
    view.samples, view.batches = 8, lambda indices=None: iter([turned])
    losses = view.alone_losses().flip(0)
    assert torch.equal(losses.isnan(), ~data.observed)
    view.method.eval()
    for column in range(3):
        alone = torch.zeros(8, 3).bool()
        alone[:, column] = data.observed[:, column]
        rows = data.observed[:, column]
        logits = view.method(data.inputs, alone).logits
        own = torch.nn.functional.cross_entropy(logits, data.target, reduction="none").detach()
        torch.testing.assert_close(losses[rows, column], own[rows])
