"""Adapters that break their contract are found out, each by the check that is meant for it."""

import pytest
import torch
from broken import component

from robustmm import Adapter
from robustmm.testing import check_component


class Learns(Adapter):
    def prepare(self, parameters):
        self.optimizer = torch.optim.SGD(parameters, lr=0.1)

    def adapt(self, predict):
        predict().logits.square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            return predict()


class TouchesAnother(Learns):
    """Changes the head, which it does not name."""

    def parameters(self, method):
        self.head = method.head
        return super().parameters(method)

    def adapt(self, predict):
        with torch.no_grad():
            next(self.head.parameters()).add_(0.1)
        return super().adapt(predict)


class Draws(Learns):
    """Takes noise from torch's global generator."""

    def adapt(self, predict):
        output = super().adapt(predict)
        output.logits = output.logits + torch.randn_like(output.logits)
        return output


class Shares(Learns):
    """Counts batches over all of its objects."""

    batches = 0

    def adapt(self, predict):
        Shares.batches += 1
        output = super().adapt(predict)
        output.logits = output.logits + Shares.batches
        return output


class Remembers(Learns):
    """Says that it forgets, and keeps a count."""

    reset = "batch"
    seen = 0

    def adapt(self, predict):
        self.seen += 1
        output = super().adapt(predict)
        output.logits = output.logits * self.seen
        return output


def test_sound_adapter__passes():
    check_component("adapter", component(Learns, name="sound"))


@pytest.mark.parametrize(
    ("adapter", "check"),
    [
        (TouchesAnother, "changes_nothing_but_its_parameters"),
        (TouchesAnother, "leaves_the_model_as_it_was"),
        (Draws, "repeats_itself"),
        (Shares, "streams_do_not_mix"),
        (Remembers, "forgets_where_it_says_so"),
    ],
)
def test_broken_adapter__is_found_out(adapter, check):
    with pytest.raises(AssertionError, match=check):
        check_component("adapter", component(adapter, name="broken"))
