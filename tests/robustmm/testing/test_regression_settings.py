"""What requires regression is held to the contract on regression, and nothing else is."""

from dataclasses import replace

import pytest
import torch
from broken import component

from robustmm import LossTerm, Method, StudentT, pack_student_t, student_t_nll
from robustmm.plugin_manager import get_plugins
from robustmm.testing import check_component
from robustmm.testing.tiny import Setting, batch, settings

REGRESSION = frozenset({"task:regression"})


class StudentHead(Method):
    """A distribution around the head's output, of one learned width."""

    def __init__(self, blueprint):
        super().__init__(blueprint)
        self.width = torch.nn.Parameter(torch.zeros(2, self.task.num_outputs))

    def readout(self, features, fused, presence, size):
        output = super().readout(features, fused, presence, size)
        location = output.logits
        output.logits = pack_student_t(StudentT(location, *self.width[:, None].expand(-1, len(location), -1)))
        return output

    def losses(self, output, batch, clock):
        count = self.task.num_outputs
        parts = StudentT(*output.logits.split(count, dim=1))
        nll = student_t_nll(parts, self.task.standardised(batch.target)).mean()
        return {"nll": LossTerm(nll, "task")}


def of_regression(kind, name):
    found = get_plugins().registry.get(kind, name)
    return replace(found, requires=found.requires | REGRESSION)


def test_settings__of_regression_have_one_to_four_modalities_and_one_or_two_quantities():
    found = list(settings(component(dict, requires=REGRESSION)))
    assert [(one.count, one.quantities) for one in found] == [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2)]
    assert not any(one.dense for one in found)
    assert str(found[0]) == "M = 1, regression of 1"


def test_settings__of_others_hold_no_regression():
    assert not any(one.quantities for one in settings(component(dict)))


@pytest.mark.parametrize("quantities", [1, 2])
def test_batch__has_targets_of_another_size_and_a_task_that_knows_it(quantities):
    setting = Setting(2, quantities=quantities)
    target = batch(setting, size=400).target
    assert target.shape == ((400,) if quantities == 1 else (400, 2))
    assert target.is_floating_point()
    assert float(setting.task().standardised(target).mean()) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("name", ["plain", "modality_dropout", "dmrnet"])
def test_methods__keep_their_contract_on_regression(name):
    check_component("method", of_regression("method", name))


def test_methods__may_predict_distributions():
    check_component("method", component(StudentHead, name="student", requires=REGRESSION))


def test_balancer__keeps_its_contract_on_regression():
    check_component("balancer", of_regression("balancer", "none"))
