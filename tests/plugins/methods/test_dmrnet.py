"""DMRNet: worked examples, invariants, released forms, mining, state."""

import json
import math

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from robustmm_plugins.methods import dmrnet
from robustmm_plugins.methods._combination_set import CombinationSet, combination_loss
from robustmm_plugins.methods.dmrnet import DMRNet, DMRNetOptions, NormalisedLinear, VarianceLedger
from robustmm_plugins.methods.modality_dropout import ModalityDropout

from robustmm import Method, RobustmmError, ShapeError
from robustmm.masks import all_combinations
from robustmm.methods.probes import unimodal_logits

COUNTS = [1, 2, 3, 4]


def terms_at(method, data, presence, epoch):
    output = method(data.inputs, presence, size=tuple(data.target.shape[1:]))
    return method.losses(output, data, tiny.clock(epoch))


class FixedLosses(tiny.TinyTask):
    """Three samples whose losses are 0.5, 1 and 2."""

    def sample_losses(self, logits, target):
        return torch.tensor([0.5, 1.0, 2.0]) + 0 * logits.sum()


# --- worked examples of the method card ---


class Fixed(torch.nn.Module):
    """Gives the same value whatever it reads."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.tensor(value)

    def forward(self, x):
        return self.value


def test_sampling__matches_worked_example(monkeypatch):
    """mu (1, 0), sigma (1, 0.5), eps (0.5, -1) give z (1.5, -0.5) and logits (2, -0.25); mu gives (1, 0.5).

    Cross-entropies for class 0: 0.474076 (mu), 0.100207 (z).
    """
    method = DMRNet(tiny.blueprint(1, task=tiny.TinyTask(classes=2)))
    method.mean, method.log_var = Fixed([[1.0, 0.0]]), Fixed([[0.0, 2 * math.log(0.5)]])
    method.head = tiny.LinearHead([2], 2)
    method.head.linear.weight.data = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    method.head.linear.bias.data.zero_()
    monkeypatch.setattr(torch, "randn_like", lambda mu: torch.tensor([[0.5, -1.0]]))
    for training, logits, loss in ((True, [2.0, -0.25], 0.100207), (False, [1.0, 0.5], 0.474076)):
        output = method.train(training).readout({}, [torch.zeros(1, 2)], torch.ones(1, 1).bool(), ())
        torch.testing.assert_close(output.logits, torch.tensor([logits]))
        assert method.task.loss(output.logits, torch.tensor([0])).item() == pytest.approx(loss, abs=1e-6)


def test_kl__matches_worked_example(monkeypatch):
    """Samples of 0.818147 and 2.806853 nats: batch mean 1.8125, times the weight."""
    method = DMRNet(tiny.blueprint(2), kl_weight=0.1, hcr_weight=0)
    data = tiny.batch(2, size=2)
    output = method(data.inputs, torch.ones(2, 2, dtype=torch.bool))
    output.extras["mu"] = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    output.extras["log_var"] = 2 * torch.tensor([[1.0, 0.5], [2.0, 1.0]]).log()
    term = method.losses(output, data, tiny.clock())["kl"]
    assert term.role == "regulariser"
    assert term.value.item() == pytest.approx(0.18125, abs=1e-6)


@pytest.mark.parametrize(("form", "expected"), [("masked", 1.0), ("outer", 2.333333)])
def test_hcr__matches_worked_example_in_both_forms(form, expected):
    keep = torch.tensor([False, True, True])
    loss = combination_loss(FixedLosses(), [torch.zeros(3, 3)], torch.zeros(3).long(), keep, form)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_mining__matches_worked_example():
    """Mean variances 0.9, 1.2, 0.8, 1.6 of audio, visual, both, visual: audio 0.9, visual 1.4."""
    ledger = VarianceLedger(CombinationSet(("audio", "visual"), [("audio",), ("visual",)]))
    presence = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 1]]).bool()
    ledger.add(torch.tensor([0.9, 1.2, 0.8, 1.6]).log()[:, None].expand(-1, 5), presence)
    assert ledger.means() == pytest.approx([0.9, 1.4])


def test_start_value__is_half_exp_half_nats_per_dimension():
    """BatchNorm outputs at the start: mu and log variance standard normal, 0.824 nats per dimension."""
    torch.manual_seed(0)
    mean, log_var, x = NormalisedLinear(16), NormalisedLinear(16), torch.randn(4096, 16)
    divergence = dmrnet.gaussian_kl(mean(x), log_var(x)).mean() / 16
    assert divergence.item() == pytest.approx(0.824, abs=0.02)


# --- the bottleneck ---


@pytest.mark.parametrize("dense", [False, True])
def test_evaluation__is_deterministic_and_reads_the_mean(dense):
    method = DMRNet(tiny.blueprint(2, dense=dense)).eval()
    data, presence = tiny.batch(2, dense=dense), tiny.mixed_presence(2)
    output = method(data.inputs, presence, size=tuple(data.target.shape[1:]))
    assert torch.equal(output.logits, tiny.run_forward(method, data, presence))
    expected = method.head([*output.fused[:-1], method.mean(output.fused[-1])], tuple(data.target.shape[1:]))
    assert torch.equal(output.logits, expected)
    assert not output.extras


def test_training__draws_another_sample_each_time_around_the_mean():
    method = DMRNet(tiny.blueprint(2))
    data, presence = tiny.batch(2), tiny.mixed_presence(2)
    torch.manual_seed(0)
    outputs = [method(data.inputs, presence).extras for _ in range(300)]
    assert not torch.equal(outputs[0]["sample"], outputs[1]["sample"])
    average = torch.stack([extras["sample"] for extras in outputs]).mean(dim=0)
    error = (average - outputs[0]["mu"]) / (0.5 * outputs[0]["log_var"]).exp()
    assert error.abs().max() < 5 / 300**0.5


def test_training__equals_the_mean_without_variance():
    method = DMRNet(tiny.blueprint(2), log_var_limit=200.0)
    torch.nn.init.zeros_(method.log_var.norm.weight)
    torch.nn.init.constant_(method.log_var.norm.bias, -200.0)
    data = tiny.batch(2)
    output = method(data.inputs, tiny.mixed_presence(2))
    assert torch.equal(output.logits, method.head([output.extras["mu"]], ()))


def test_log_variance__is_clamped():
    method = DMRNet(tiny.blueprint(2), log_var_limit=0.25)
    data = tiny.batch(2)
    log_var = method(data.inputs, tiny.mixed_presence(2)).extras["log_var"]
    assert log_var.abs().max() == 0.25


def test_normalised_linear__on_a_map_is_a_1x1_convolution_with_batch_norm():
    torch.manual_seed(0)
    ours, convolution, norm = NormalisedLinear(3), torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)
    convolution.weight.data = ours.linear.weight.data[:, :, None, None].clone()
    convolution.bias.data = ours.linear.bias.data.clone()
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(ours(x), norm(convolution(x)))
    torch.testing.assert_close(ours.norm.running_var, norm.running_var)
    torch.testing.assert_close(ours.eval()(x), norm.eval()(convolution(x)))


def test_one_row_in_training__is_refused_with_its_shape():
    method = DMRNet(tiny.blueprint(2))
    with pytest.raises(ShapeError, match=r"fused feature is \(1, 8\), one row.*batches of at least 2"):
        method.readout({}, [torch.zeros(1, 8)], torch.ones(1, 2).bool(), ())
    assert method.eval().readout({}, [torch.zeros(1, 8)], torch.ones(1, 2).bool(), ()).logits.shape == (1, 3)


def test_absent_input__does_not_change_evaluation():
    method = DMRNet(tiny.blueprint(2)).eval()
    data, presence = tiny.batch(2), tiny.shown(("rgb",), 2)
    before = tiny.run_forward(method, data, presence)
    data.inputs["depth"].fill_(7.0)
    assert torch.equal(before, tiny.run_forward(method, data, presence))


def test_probes__read_unimodal_logits_from_the_mean():
    method = DMRNet(tiny.blueprint(2))
    data = tiny.batch(2)
    output = method(data.inputs, torch.ones(8, 2, dtype=torch.bool))
    statistics = method.mean.norm.running_mean.clone()
    first, second = unimodal_logits(method, output), unimodal_logits(method, output)
    assert first.source == "masked"
    assert torch.equal(first.logits["rgb"], second.logits["rgb"])
    assert torch.equal(statistics, method.mean.norm.running_mean)


# --- losses ---


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_every_trained_parameter_gets_a_finite_gradient(count, dense):
    method = DMRNet(tiny.blueprint(count, dense=dense), hard="incomplete", warmup_epochs=0)
    data = tiny.batch(count, dense=dense)
    terms = terms_at(method, data, tiny.mixed_presence(count), 0)
    sum(term.value for term in terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert set(terms) == ({"task", "kl"} if count == 1 else {"task", "kl", "hcr"})


def test_kl__has_gradient_in_both_heads_unless_detached():
    for detached in (False, True):
        method = DMRNet(tiny.blueprint(2), kl_detached=detached)
        value = terms_at(method, tiny.batch(2), tiny.mixed_presence(2), 0)["kl"].value
        assert value.requires_grad is not detached
        if not detached:
            value.backward()
            for head in (method.mean, method.log_var):
                assert head.norm.weight.grad.any()
                assert head.norm.bias.grad.any()


def test_kl_positions__sum_is_the_mean_times_the_positions():
    values = []
    for positions in ("mean", "sum"):
        torch.manual_seed(0)
        method = DMRNet(tiny.blueprint(2, dense=True), kl_positions=positions)
        values.append(terms_at(method, tiny.batch(2, dense=True), tiny.mixed_presence(2), 0)["kl"].value)
    torch.testing.assert_close(values[1], values[0] * 2 * 3)  # the last level is half of (4, 6)


def test_weight_zero__leaves_the_task_term_alone():
    method = DMRNet(tiny.blueprint(2), kl_weight=0, hcr_weight=0)
    assert set(terms_at(method, tiny.batch(2), tiny.mixed_presence(2), 9)) == {"task"}
    assert method.auxiliary_head is None


def test_evaluation_mode__gives_the_task_term_alone():
    method = DMRNet(tiny.blueprint(2), hard="incomplete").eval()
    assert set(terms_at(method, tiny.batch(2), tiny.mixed_presence(2), 9)) == {"task"}


def test_hcr__begins_after_the_warm_up():
    method = DMRNet(tiny.blueprint(2), hard="incomplete", warmup_epochs=6)
    data, presence = tiny.batch(2), tiny.mixed_presence(2)
    assert "hcr" not in terms_at(method, data, presence, 5)
    assert terms_at(method, data, presence, 6)["hcr"].role == "auxiliary"


def test_hcr__without_a_hard_sample_is_exactly_zero_in_value_and_gradient():
    method = DMRNet(tiny.blueprint(2), hard=["depth"], warmup_epochs=0)
    value = terms_at(method, tiny.batch(2), tiny.shown(("rgb",), 2), 0)["hcr"].value
    value.backward()
    assert value.item() == 0
    assert not any(p.grad.any() for p in method.auxiliary_head.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in method.parameters())


def test_hcr__weighs_the_mean_over_the_batch_of_the_hard_losses():
    method = DMRNet(tiny.blueprint(2), hard=["depth"], warmup_epochs=0, hcr_weight=0.5)
    data, presence = tiny.batch(2), tiny.mixed_presence(2)
    output = method(data.inputs, presence)
    own = torch.nn.functional.cross_entropy(
        method.auxiliary_head([output.extras["sample"]], ()), data.target, reduction="none"
    )
    expected = 0.5 * own[1::3].sum() / 8  # rgb, depth, rgb+depth in turn
    torch.testing.assert_close(method.losses(output, data, tiny.clock())["hcr"].value, expected)


def test_hcr__shared_head_in_the_released_form_is_the_task_loss_times_the_hard_samples():
    method = DMRNet(
        tiny.blueprint(2), hard="incomplete", warmup_epochs=0, hcr_weight=0.2, hcr_form="outer", auxiliary_head="shared"
    )
    terms = terms_at(method, tiny.batch(2), tiny.mixed_presence(2), 0)
    torch.testing.assert_close(terms["hcr"].value, 0.2 * 6 * terms["task"].value)
    assert method.auxiliary_head is None


def test_hcr__in_dense_prediction_is_normalised_by_its_own_pixels():
    method = DMRNet(tiny.blueprint(2, dense=True), hard=["depth"], warmup_epochs=0, hcr_weight=1.0)
    data, presence = tiny.batch(2, dense=True), tiny.mixed_presence(2)
    output = method(data.inputs, presence, size=tiny.GRID)
    logits = method.auxiliary_head([output.fused[0], output.extras["sample"]], tiny.GRID)
    expected = torch.nn.functional.cross_entropy(logits[1::3], data.target[1::3])
    torch.testing.assert_close(method.losses(output, data, tiny.clock())["hcr"].value, expected)


@pytest.mark.parametrize("dense", [False, True])
def test_mixed_precision__gives_terms_in_float32_and_finite_gradients(dense):
    method = DMRNet(tiny.blueprint(2, dense=dense), hard=["rgb"])
    data = tiny.batch(2, size=16, dense=dense)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = terms_at(method, data, tiny.mixed_presence(2, 16), 6)
    assert len(terms) == 3
    assert {term.value.dtype for term in terms.values()} == {torch.float32}
    sum(term.value for term in terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


# --- mining ---


def mine(method, variances):
    """Feed one warm-up batch whose variance per combination is given, and close the warm-up."""
    presence = torch.stack([tiny.presence_of(combination, method.modalities) for combination in variances])
    method.ledger.add(torch.tensor(list(variances.values())).log()[:, None].expand(-1, 4), presence)
    method.on_epoch_end(lambda combinations: {}, tiny.clock(method.warmup_epochs - 1))


def test_mining__takes_the_largest_variance_with_its_subsets():
    method = DMRNet(tiny.blueprint(3))
    mine(method, {("rgb", "depth"): 1.0, ("rgb", "ir"): 3.0, ("depth", "ir"): 2.0, ("depth",): 9.0})
    assert method.hard.names == ["rgb", "ir", "rgb+ir"]


def test_mining__decides_once_at_the_end_of_the_warm_up():
    method = DMRNet(tiny.blueprint(2), warmup_epochs=3)
    data = tiny.batch(2)
    for epoch in range(5):
        terms = terms_at(method, data, tiny.mixed_presence(2), epoch)
        assert ("hcr" in terms) is (epoch >= 3)
        counts = method.ledger.totals[1].tolist()
        method.on_epoch_end(lambda combinations: {}, tiny.clock(epoch))
        assert bool(method.hard.names) is (epoch >= 2)
        assert counts == [3.0 * min(epoch + 1, 3)] * 2


def test_mining__ignores_combinations_that_were_never_shown():
    method = DMRNet(tiny.blueprint(3))
    mine(method, {("rgb", "depth"): 0.5})
    assert method.hard.names == ["rgb", "depth", "rgb+depth"]
    nothing = DMRNet(tiny.blueprint(3))
    mine(nothing, {("rgb", "depth", "ir"): 0.5})
    assert nothing.hard.names == []
    assert "hcr" not in terms_at(nothing, tiny.batch(3), tiny.mixed_presence(3), 9)


def test_mining__adds_up_over_processes(monkeypatch):
    """Depth has the larger variance here, rgb over all processes."""
    elsewhere = torch.tensor([[90.0, 1.0], [10.0, 10.0]])
    monkeypatch.setattr(dmrnet, "all_reduce_sum", lambda totals: totals + elsewhere)
    method = DMRNet(tiny.blueprint(2))
    mine(method, {("rgb",): 1.0, ("depth",): 2.0})
    assert method.hard.names == ["rgb"]


def test_mining__with_one_modality_finds_nothing():
    method = DMRNet(tiny.blueprint(1), warmup_epochs=1)
    tiny.train_steps(method)
    method.on_epoch_end(lambda combinations: {}, tiny.clock(0))
    assert method.hard.names == []
    assert set(terms_at(method, tiny.batch(1), tiny.mixed_presence(1), 5)) == {"task", "kl"}


def test_hard_list__is_the_published_face_anti_spoofing_choice():
    method = DMRNet(tiny.blueprint(3), hard=["rgb", "ir+rgb", "ir"])
    assert method.hard.names == ["rgb", "rgb+ir", "ir"]
    contains = method.hard.contains(torch.tensor([[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]).bool())
    assert contains.tolist() == [True, True, False, False]


def test_hard_list__names_an_unknown_modality():
    with pytest.raises(RobustmmError, match="combination 'rbg': no modality 'rbg' - did you mean 'rgb'"):
        DMRNet(tiny.blueprint(2), hard=["rbg"])


# --- state ---


def test_state__survives_json_in_and_after_the_warm_up():
    method = DMRNet(tiny.blueprint(3))
    tiny.train_steps(method)
    other = DMRNet(tiny.blueprint(3))
    other.load_method_state(json.loads(json.dumps(method.method_state())))
    assert torch.equal(other.ledger.totals, method.ledger.totals)
    mine(method, {("rgb", "ir"): 50.0})
    other.load_method_state(json.loads(json.dumps(method.method_state())))
    assert other.hard.names == method.hard.names == ["rgb", "ir", "rgb+ir"]
    assert torch.equal(other.hard.table, method.hard.table)


def test_state__is_not_among_the_weights():
    """Mining leaves the keys alone, so a checkpoint from before it fits."""
    method = DMRNet(tiny.blueprint(3))
    keys = set(method.state_dict())
    mine(method, {("rgb", "ir"): 1.0})
    assert set(method.state_dict()) == keys


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_deployable__gives_equal_output_on_every_combination(count, dense):
    method = DMRNet(tiny.blueprint(count, dense=dense))
    tiny.train_steps(method, dense=dense)
    method.eval()
    deployed = method.deployable()
    assert isinstance(deployed, Method)
    data = tiny.batch(count, dense=dense)
    for combination in all_combinations(method.modalities):
        presence = tiny.shown(combination, count)
        assert torch.equal(tiny.run_forward(method, data, presence), tiny.run_forward(deployed, data, presence))


def test_deployable__drops_the_variance_and_the_auxiliary_head():
    method = DMRNet(tiny.blueprint(2))
    keys = set(method.deployable().state_dict())
    assert keys == {key for key in method.state_dict() if not key.startswith(("log_var.", "auxiliary_head."))}
    assert keys < set(method.state_dict())


def test_first_weights__are_those_of_the_plain_network():
    torch.manual_seed(0)
    ours = DMRNet(tiny.blueprint(2)).state_dict()
    torch.manual_seed(0)
    plain = ModalityDropout(tiny.blueprint(2)).state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


# --- options ---


def test_options__defaults_are_those_of_the_constructor():
    import inspect

    parameters = inspect.signature(DMRNet).parameters
    assert {name: parameters[name].default for name in DMRNetOptions.model_fields} == DMRNetOptions().model_dump()
    assert all(field.description for field in DMRNetOptions.model_fields.values())


def test_options__refuse_unknown_keys_and_mining_without_epochs():
    with pytest.raises(ValidationError, match="kl_wieght"):
        DMRNetOptions(kl_wieght=0.1)
    with pytest.raises(ValidationError, match="hard: mined needs warmup_epochs of at least 1"):
        DMRNetOptions(warmup_epochs=0)
    assert DMRNetOptions(warmup_epochs=0, hard="incomplete").hard == "incomplete"
    assert DMRNetOptions(hard=["rgb"]).hard == ["rgb"]


def test_component__carries_its_source():
    found = []
    dmrnet.robustmm_register_methods(found.append)
    assert (found[0].name, found[0].fidelity, found[0].build.sampler) == ("dmrnet", "code", "uniform")
    assert "2407.04458" in found[0].source
