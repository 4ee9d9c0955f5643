"""UMT: the distance to the teachers, what it leaves alone, and where teachers come from."""

import copy

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods.umt import UMT, masked_mse

from robustmm import Batch, ConfigError, Method, RunFailed


class Fit:
    """Trains teachers for a few steps on their own modality, or pretends to load one."""

    def __init__(self):
        self.calls = []

    def train(self, name, method, *, epochs=None):
        self.calls.append(("train", name, method.modalities, epochs))
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    def load(self, path, method):
        self.calls.append(("load", path, method.modalities))


def ready(count, *, dense=False, fit=None, **options):
    torch.manual_seed(0)
    method = UMT(tiny.blueprint(count, dense=dense), **options)
    method.on_fit_start(fit or Fit())
    return method.train()


def terms_of(method, data, presence):
    output = method(data.inputs, presence, size=method.task.target_size(data.target))
    return output, method.losses(output, data, tiny.clock())


def test_distance__equals_the_worked_example():
    one = torch.ones(1).bool()
    assert masked_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]), one) == 2
    assert masked_mse(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]]), one) == 1


def test_distance__is_a_mean_over_present_rows_and_holds_nan_in_absent_ones():
    student = torch.tensor([[1.0, 2.0], [torch.nan, 0.0]], requires_grad=True)
    loss = masked_mse(student, torch.tensor([[1.0, 0.0], [5.0, torch.nan]]), torch.tensor([True, False]))
    loss.backward()
    assert loss.item() == 2
    assert student.grad.tolist() == [[0.0, 2.0], [0.0, 0.0]]
    assert masked_mse(student.detach(), student.detach(), torch.zeros(2).bool()) == 0


def test_terms__add_the_weighted_distance_of_each_modality():
    method, data = ready(2, distill_weight=10.0), tiny.batch(2)
    presence = tiny.mixed_presence(2)
    output, terms = terms_of(method, data, presence)
    assert {name: term.role for name, term in terms.items()} == {
        "task": "task",
        "distill/rgb": "auxiliary",
        "distill/depth": "auxiliary",
    }
    rows = presence[:, 1]
    known, _ = method._teachers["depth"].trunk({"depth": data.inputs["depth"]}, data.observed[:, 1:])
    expected = 10 * torch.nn.functional.mse_loss(output.features["depth"][0][rows], known["depth"][0][rows])
    torch.testing.assert_close(terms["distill/depth"].value, expected)


def test_student_equal_to_its_teachers__has_no_distance_and_no_gradient():
    method, data = ready(2), tiny.batch(2)
    method.eval()  # teachers are, and BatchNorm must agree
    for name, teacher in method._teachers.items():
        method.trunk.encoders[name].load_state_dict(teacher.trunk.encoders[name].state_dict())
    method.training = True
    _, terms = terms_of(method, data, data.observed)
    loss = terms["distill/rgb"].value + terms["distill/depth"].value
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in method.trunk.encoders.parameters())


def test_step__leaves_teachers_and_the_random_state_alone():
    method, data = ready(2), tiny.batch(2)
    before = {name: copy.deepcopy(teacher.state_dict()) for name, teacher in method._teachers.items()}
    state = torch.get_rng_state()
    _, terms = terms_of(method, data, tiny.mixed_presence(2))
    sum(term.value for term in terms.values()).backward()
    assert torch.equal(torch.get_rng_state(), state)
    for name, teacher in method._teachers.items():
        assert all(torch.equal(value, before[name][key]) for key, value in teacher.state_dict().items())
        assert all(parameter.grad is None for parameter in teacher.parameters())
        assert not teacher.training


def test_weight_0__is_the_joint_network_to_the_bit():
    fit = Fit()
    torch.manual_seed(0)
    method = UMT(tiny.blueprint(2), distill_weight=0.0)
    method.on_fit_start(fit)
    torch.manual_seed(0)
    plain = Method(tiny.blueprint(2))
    assert fit.calls == []
    ours, theirs = tiny.train_steps(method), tiny.train_steps(plain)
    assert list(ours) == list(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("count", [1, 3])
def test_checkpoint_and_optimiser__hold_no_teacher(count):
    method, plain = ready(count), Method(tiny.blueprint(count))
    assert list(method.state_dict()) == list(plain.state_dict())
    assert sum(p.numel() for p in method.parameters()) == sum(p.numel() for p in plain.parameters())
    method.train()
    assert not any(teacher.training for teacher in method._teachers.values())


def test_teachers__are_trained_one_per_modality_or_loaded():
    fit = Fit()
    ready(2, fit=fit, teacher_epochs=3, teachers={"depth": "depth.safetensors"})
    assert fit.calls == [("train", "teacher_rgb", ("rgb",), 3), ("load", "depth.safetensors", ("depth",))]


def test_teachers__of_no_modality_are_refused():
    with pytest.raises(ConfigError, match=r"method.teachers.deepth: no modality 'deepth' - did you mean 'depth'"):
        UMT(tiny.blueprint(2), teachers={"deepth": "a.safetensors"})


def test_training_without_teachers__says_so():
    method, data = UMT(tiny.blueprint(2)).train(), tiny.batch(2)
    with pytest.raises(RunFailed, match="on_fit_start"):
        terms_of(method, data, data.observed)


def test_evaluation__has_the_task_term_alone():
    method, data = ready(2).eval(), tiny.batch(2)
    assert list(terms_of(method, data, data.observed)[1]) == ["task"]


def test_teacher_that_is_not_finite__shows_in_its_term():
    method, data = ready(2), tiny.batch(2)
    with torch.no_grad():
        next(method._teachers["rgb"].parameters()).fill_(torch.nan)
    _, terms = terms_of(method, data, data.observed)
    assert terms["distill/rgb"].value.isnan()
    assert terms["task"].value.isfinite()


def test_samples_that_lack_a_modality__stay_out_of_its_distance():
    method, data = ready(2), tiny.batch(2)
    observed = tiny.mixed_presence(2)
    incomplete = Batch(dict(data.inputs), observed, data.target, data.ids, data.index)
    other = {name: x.clone() for name, x in data.inputs.items()}
    other["depth"][~observed[:, 1]] = 100.0
    changed = Batch(other, observed, data.target, data.ids, data.index)
    method.eval()
    method.training = True
    one, two = (terms_of(method, batch, observed)[1]["distill/depth"].value for batch in (incomplete, changed))
    assert torch.equal(one, two)


@pytest.mark.parametrize(("levels", "count"), [("last", 1), ("all", 2)])
def test_dense__holds_the_last_level_or_all(levels, count):
    method, data = ready(2, dense=True, levels=levels, distill_weight=1.0), tiny.batch(2, dense=True)
    output, terms = terms_of(method, data, data.observed)
    known, _ = method._teachers["rgb"].trunk({"rgb": data.inputs["rgb"]}, data.observed[:, :1])
    levels = zip(output.features["rgb"][-count:], known["rgb"][-count:], strict=True)
    torch.testing.assert_close(
        terms["distill/rgb"].value, sum(torch.nn.functional.mse_loss(own, theirs) for own, theirs in levels)
    )


def test_deployed_model__is_the_student_as_a_plain_method():
    method, data = ready(2), tiny.batch(2)
    deployed = method.deployable().eval()
    assert type(deployed) is Method
    method.eval()
    assert torch.equal(deployed(data.inputs, data.observed).logits, method(data.inputs, data.observed).logits)


def test_mixed_precision__measures_in_float32():
    method, data = ready(2), tiny.batch(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, terms = terms_of(method, data, tiny.mixed_presence(2))
    assert terms["distill/rgb"].value.dtype == torch.float32
    assert terms["distill/rgb"].value.isfinite()
