"""The balancer contract as it stands: "none"."""

import pytest
import tiny_models as tiny
import torch

from robustmm import Balancer, LossTerm, Method
from robustmm.balancing.balancer import EpochPlan, Update, total


def test_defaults__make_one_plain_update():
    balancer, presence = Balancer(), tiny.mixed_presence(2)
    updates = list(balancer.updates(presence, ("rgb", "depth")))
    assert len(updates) == 1
    assert updates[0].presence is presence
    assert updates[0].trains is None
    features = {"rgb": torch.ones(2, 3)}
    assert balancer.modulate_features(0, features, None) is features
    assert balancer.on_epoch_start(None) is None
    assert balancer.state_dict() == {}


def test_backward__is_that_of_the_sum_of_all_terms():
    method, data = Method(tiny.blueprint(2)), tiny.batch(2)
    view = tiny.step_view(method, data, data.observed)
    weight = torch.tensor(2.0, requires_grad=True)
    terms = {"task": LossTerm(3 * weight, "task"), "kl": LossTerm(weight**2, "regulariser")}
    assert Balancer().weigh(terms, view) is terms
    Balancer().backward(terms, view)
    assert weight.grad.item() == 7.0
    assert total(terms).item() == 10.0


@pytest.mark.parametrize(
    ("trains", "left"),
    [(None, {"rgb", "depth"}), (("rgb",), {"rgb"}), ((), set()), (("rgb", "depth"), {"rgb", "depth"})],
)
def test_update__drops_gradients_of_encoders_it_does_not_train(trains, left):
    method, data = Method(tiny.blueprint(2)), tiny.batch(2)
    view = tiny.step_view(method, data, data.observed)
    Update(data.observed, trains).freeze_others(view.groups)
    for name, parameters in view.groups.items():
        assert all((parameter.grad is not None) is (name in left) for parameter in parameters)
    assert all(parameter.grad is not None for parameter in method.head.parameters())


def test_plan_again__adds_samples_to_the_whole_part():
    plan = EpochPlan.again(3, torch.tensor([2, 2]), torch.tensor([[True, False], [False, True]]))
    assert plan.indices.tolist() == [0, 1, 2, 2, 2]
    assert plan.keep.tolist() == [[True, True]] * 3 + [[True, False], [False, True]]
