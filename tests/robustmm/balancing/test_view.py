"""What a balancer sees of a step."""

import dataclasses

import pytest
import tiny_models as tiny
import torch

from robustmm import Method, evaluating
from robustmm.balancing.statistics import true_class_sums
from robustmm.methods.probes import masked_logits


class Pixels(tiny.TinyTask):
    """Dense; pixels with label 255 are invalid."""

    def rows(self, logits, target):
        rows = super().rows(logits, target)
        valid = rows.target != 255
        return type(rows)(rows.logits[valid], rows.target[valid], rows.sample[valid])


def view_of(count, presence, **options):
    torch.manual_seed(0)
    return tiny.step_view(Method(tiny.blueprint(count)), tiny.batch(count), presence, **options)


def test_sums__count_valid_pixels_of_the_whole_batch():
    """Probabilities 0.9 and 0.5 in one sample, 0.1 ignored in the other: 0.7 over 2 rows, not 0.5."""
    probability = torch.tensor([[[0.9, 0.5]], [[0.1, 0.1]]])  # (B, 1, 2)
    logits = {"rgb": torch.stack([probability, 1 - probability], dim=1).log()}
    target = torch.tensor([[[0, 0]], [[255, 255]]])
    sums, counts = true_class_sums(Pixels(dense=True, classes=2), logits, target, torch.ones(2, 1).bool())
    assert sums.item() == pytest.approx(1.4)
    assert counts.item() == 2


def test_sums__leave_out_rows_in_which_a_modality_is_absent():
    logits = {"rgb": torch.zeros(3, 2), "depth": torch.tensor([[9.0, 0], [0, 0], [0, 9.0]])}
    presence = torch.tensor([[1, 0], [1, 1], [0, 0]]).bool()
    sums, counts = true_class_sums(tiny.TinyTask(classes=2), logits, torch.zeros(3).long(), presence)
    assert counts.tolist() == [2, 1]
    assert sums.tolist() == pytest.approx([1.0, 0.5])


def test_score__is_nan_for_a_modality_without_a_row():
    score = view_of(3, tiny.shown(("rgb", "ir"), 3)).true_class_probability()
    assert score.isnan().tolist() == [False, True, False]
    assert view_of(3, tiny.shown(("rgb", "ir"), 3)).true_class_probability(complete_rows=True).isnan().all()


def test_score__of_complete_rows_ignores_the_others():
    view = view_of(2, tiny.mixed_presence(2))
    complete = view.presence.all(dim=1)
    own = view.unimodal.logits["rgb"][complete].softmax(dim=1)
    expected = own.gather(1, view.batch.target[complete][:, None]).mean()
    torch.testing.assert_close(view.true_class_probability(complete_rows=True)[0], expected)


def test_score__divides_sums_over_processes_once():
    """Means 0.9 of one row and 0.5 of three: 0.6, not 0.7."""
    view = view_of(1, torch.ones(8, 1).bool())
    view = dataclasses.replace(view, all_reduce=lambda sums: torch.tensor([[0.9 + 1.5], [4.0]]))
    assert view.true_class_probability().item() == pytest.approx(0.6)


def test_unimodal__is_computed_once_without_gradient():
    view = view_of(2, torch.ones(8, 2).bool())
    assert view.unimodal is view.unimodal
    assert not any(logits.requires_grad for logits in view.unimodal.logits.values())


def test_unimodal__encodes_again_where_features_cannot_be_fused_anew(monkeypatch):
    view = view_of(2, torch.ones(8, 2).bool())
    expected = masked_logits(view.method, view.output)
    statistics = {name: value.clone() for name, value in view.method.named_buffers()}
    monkeypatch.setattr(view.method.trunk, "refuse", lambda features, presence: None)
    monkeypatch.setattr(view.method.trunk, "summands", lambda features, presence: None)
    assert view.unimodal.source == "masked"
    assert view.unimodal.logits.keys() == expected.keys()
    assert all(torch.equal(value, statistics[name]) for name, value in view.method.named_buffers())
    with evaluating(view.method):
        alone = view.method(view.batch.inputs, tiny.shown(("depth",), 2)).logits
    torch.testing.assert_close(view.unimodal.logits["depth"], alone)


def test_generator__depends_on_seed_step_and_purpose():
    presence = torch.ones(8, 2).bool()

    def draw(purpose, **options):
        return torch.rand(1, generator=view_of(2, presence, **options).generator(purpose)).item()

    assert draw("noise") == draw("noise")
    others = [draw("noise", seed=1), draw("noise", at=tiny.clock(step=1)), draw("mask")]
    assert len({draw("noise"), *others}) == 4


def test_alone_logits__are_computed_once_and_lose_their_graph_after_backward():
    view = view_of(2, tiny.mixed_presence(2))
    losses = view.shared_head_losses()
    alone = view.alone_logits
    assert all(own.requires_grad for own in alone.values())
    expected = masked_logits(view.method, view.output)
    assert all(torch.equal(alone[name], own) for name, own in expected.items())
    column = view.presence[:, 1]
    by_hand = torch.nn.functional.cross_entropy(expected["depth"][column], view.batch.target[column])
    torch.testing.assert_close(losses["depth"], by_hand)
    view.release_graph()
    assert all(torch.equal(view.alone_logits[name], own) for name, own in alone.items())
    assert not any(own.requires_grad for own in (view.output.logits, *view.alone_logits.values()))


def test_alone_losses__are_means_over_the_samples_that_show_a_modality():
    presence = torch.zeros(8, 3).bool()
    presence[:6, 0] = presence[4:, 1] = True
    view = view_of(3, presence)
    losses = view.alone_losses()
    assert losses[2].isnan()
    for column, name in enumerate(("rgb", "depth")):
        rows = presence[:, column]
        own = torch.nn.functional.cross_entropy(view.alone_logits[name][rows], view.batch.target[rows])
        torch.testing.assert_close(losses[column], own.detach())
    assert not losses.requires_grad


def test_alone_losses__divide_sums_over_processes_once():
    """Losses of 8 samples here and of 24 elsewhere that are 0: a quarter of the mean here."""
    view = view_of(1, torch.ones(8, 1).bool())
    both = dataclasses.replace(view, all_reduce=lambda sums: sums + torch.tensor([[0.0], [24.0]]))
    torch.testing.assert_close(both.alone_losses(), view.alone_losses() / 4)


def test_scale_gradients__leaves_heads_and_unknown_factors():
    view = view_of(3, torch.ones(8, 3).bool())
    before = {name: p.grad.clone() for name, p in view.method.named_parameters()}
    view.scale_gradients(torch.tensor([0.5, torch.nan, 2.0]))
    factors = {"trunk.encoders.rgb": 0.5, "trunk.encoders.ir": 2.0}
    for name, parameter in view.method.named_parameters():
        factor = next((own for place, own in factors.items() if name.startswith(place)), 1.0)
        assert torch.equal(parameter.grad, factor * before[name])
