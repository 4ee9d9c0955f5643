"""How a schedule's values reach the optimiser."""

import pytest
import torch

from robustmm import Schedule, ScheduleValues
from robustmm.engine.optim import apply_schedule


class Halving(Schedule):
    """A rate that halves, and a momentum that follows the step."""

    def __call__(self, step):
        return ScheduleValues(0.5**step, None if step == 0 else 0.1 * step)


def weights():
    return [torch.nn.Parameter(torch.ones(2))]


def test_apply_schedule__scales_the_configured_rate_not_the_current_one():
    optimizer = torch.optim.SGD(weights(), lr=0.8, momentum=0.9)
    assert [apply_schedule(optimizer, Halving(1, 4), step) for step in (0, 1, 2)] == [0.8, 0.4, 0.2]
    assert apply_schedule(optimizer, Schedule(1, 4), 3) == 0.8


def test_apply_schedule__each_group_keeps_its_own_rate():
    optimizer = torch.optim.SGD([{"params": weights(), "lr": 0.8}, {"params": weights(), "lr": 0.08}], lr=1.0)
    apply_schedule(optimizer, Halving(1, 4), 1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4, 0.04])


def test_apply_schedule__sets_momentum_or_the_first_beta():
    sgd, adam = torch.optim.SGD(weights(), lr=1.0, momentum=0.9), torch.optim.Adam(weights(), betas=(0.9, 0.99))
    plain = torch.optim.Adagrad(weights())
    for optimizer in (sgd, adam, plain):
        apply_schedule(optimizer, Halving(1, 4), 0)
    assert (sgd.param_groups[0]["momentum"], adam.param_groups[0]["betas"]) == (0.9, (0.9, 0.99))
    for optimizer in (sgd, adam, plain):
        apply_schedule(optimizer, Halving(1, 4), 3)
    assert sgd.param_groups[0]["momentum"] == pytest.approx(0.3)
    assert adam.param_groups[0]["betas"] == pytest.approx((0.3, 0.99))


def test_apply_schedule__configured_rate_survives_the_optimizer_state():
    before = torch.optim.Adam(weights(), lr=0.8)
    apply_schedule(before, Halving(1, 4), 3)
    after = torch.optim.Adam(weights(), lr=0.8)
    after.load_state_dict(before.state_dict())
    assert apply_schedule(after, Halving(1, 4), 1) == pytest.approx(0.4)
