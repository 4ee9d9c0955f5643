"""What every method that decides per modality has from its base."""

import tiny_models as tiny
import torch

from robustmm import Decision, DecisionMethod, mean_over_present


class Voting(DecisionMethod):
    """Counts who was there beside the mean."""

    def decide(self, opinions, presence):
        return Decision(self.combine(opinions, presence), {"voters": presence.sum(dim=1)})


def test_readout__hands_on_what_came_out_beside_the_logits():
    data, presence = tiny.batch(2), tiny.mixed_presence(2)
    output = Voting(tiny.blueprint(2))(data.inputs, presence)
    assert list(output.extras) == ["opinions", "voters"]
    assert output.extras["voters"].tolist() == presence.sum(dim=1).tolist()
    torch.testing.assert_close(output.logits, mean_over_present(output.extras["opinions"], presence))


def test_decision__has_no_extras_of_its_own():
    method, data = DecisionMethod(tiny.blueprint(2)), tiny.batch(2)
    assert list(method(data.inputs, data.observed).extras) == ["opinions"]


def test_absent_opinions__are_0_and_reach_no_head():
    method, data, presence = DecisionMethod(tiny.blueprint(2)), tiny.batch(2), tiny.mixed_presence(2)
    output = method(data.inputs, presence)
    assert not output.extras["opinions"][~presence].any()
    assert output.extras["opinions"][presence].any()
