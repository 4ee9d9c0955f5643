"""Each check of methods, balancers, optimisers and schedules fails on a component that breaks its promise."""

import broken
import torch
from broken import GENERAL, Broken, component
from torch import nn
from torch.optim import SGD, Optimizer

from robustmm import Balancer, EpochPlan, LossTerm, Method, Schedule, ScheduleValues


class OneLogitTooMany(Method):
    def readout(self, features, fused, presence, size):
        output = super().readout(features, fused, presence, size)
        output.logits = torch.cat([output.logits, output.logits[:, :1]], dim=1)
        return output


class LossPerClass(Method):
    def losses(self, output, batch, clock):
        return {"task": LossTerm(output.logits.transpose(0, 1).flatten(1).mean(dim=1), "task")}


class MadeUpRole(Method):
    def losses(self, output, batch, clock):
        return super().losses(output, batch, clock) | {"more": LossTerm(output.logits.mean(), "main")}


class WithIdleHead(Method):
    def __init__(self, blueprint):
        super().__init__(blueprint)
        self.idle = blueprint.make_head(self.trunk.fused_channels)


class DecaysWeights(Method):
    def losses(self, output, batch, clock):
        squares = torch.stack([p.square().sum() for p in self.trunk.parameters()]).sum()
        return super().losses(output, batch, clock) | {"decay": LossTerm(0.01 * squares, "regulariser")}


class ReadsAbsentInputs(Method):
    def forward(self, inputs, presence, edit=None, *, size=()):
        output = super().forward(inputs, presence, edit, size=size)
        means = torch.stack([x.flatten(1).mean(dim=1) for x in inputs.values()]).sum(dim=0)
        output.logits = output.logits + means.view(-1, *[1] * (output.logits.dim() - 1))
        return output


class ScalesOutsideOfReadout(Method):
    def forward(self, inputs, presence, edit=None, *, size=()):
        output = super().forward(inputs, presence, edit, size=size)
        output.logits = 2 * output.logits
        return output


class CountsReadouts(Method):
    def __init__(self, blueprint):
        super().__init__(blueprint)
        self.register_buffer("calls", torch.zeros(()))

    def readout(self, features, fused, presence, size):
        self.calls += 1
        return super().readout(features, fused, presence, size)


class DividesByAbsence(Method):
    def losses(self, output, batch, clock):
        share = batch.observed.float().mean(dim=1).floor()
        return {"task": LossTerm((self.task.sample_losses(output.logits, batch.target) / share).mean(), "task")}


class RemembersInSecret(Method):
    seen = 0

    def losses(self, output, batch, clock):
        self.seen += 1
        return {"task": LossTerm(self.task.loss(output.logits, batch.target) * self.seen, "task")}


class DeploysAnother(Method):
    def __init__(self, blueprint):
        super().__init__(blueprint)
        self.parts = blueprint

    def deployable(self):
        return Method(self.parts)


class DeploysEverythingTwice(Method):
    def deployable(self):
        self.own = nn.Parameter(torch.ones(1))
        self.other = [self]
        return Doubled(self)


class Doubled(nn.Module):
    def __init__(self, method):
        super().__init__()
        self.extra = nn.Linear(100, 100)
        self.__dict__["method"] = method

    def forward(self, inputs, presence, *, size=()):
        return self.method(inputs, presence, size=size)


class FusesInSecret(Method):
    """Keeps a balancer's edit from the trunk."""

    def train_output(self, batch, presence, edit=None):
        return super().train_output(batch, presence)


class Doubles(Balancer):
    """Breaks M = 1."""

    def weigh(self, terms, view):
        return {name: term._replace(value=2 * term.value) for name, term in terms.items()}


class Misspelt(Balancer):
    def modulate_gradient(self, view):
        raise AssertionError("never called")


class ResamplesAlone(Balancer):
    def on_epoch_start(self, epoch):
        return EpochPlan(torch.zeros(32, dtype=torch.int64))


class CountsAllModalities(Balancer):
    """A no-op for M = 1, not for one shown modality of several."""

    def weigh(self, terms, view):
        factor = len(view.modalities) / view.presence.any(dim=0).sum()
        return {name: term._replace(value=factor * term.value) for name, term in terms.items()}


class CountsBatches(Balancer):
    """A no-op for one batch, not for several."""

    def weigh(self, terms, view):
        return {name: term._replace(value=len(view.parts) * term.value) for name, term in terms.items()}


class DividesByRows(Balancer):
    def modulate_gradients(self, view):
        counts = view.presence.sum(dim=0)
        for name, count in zip(view.modalities, counts, strict=True):
            for parameter in view.groups[name]:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad.mul_(count / count)


class AddsNoise(Balancer):
    def modulate_gradients(self, view):
        for parameter in (p for group in view.groups.values() for p in group):
            parameter.grad = torch.ones_like(parameter)


class DropsOtherTerms(Balancer):
    def weigh(self, terms, view):
        return {name: term for name, term in terms.items() if term.role == "task"}


class ForgetsState(Balancer):
    steps = 0

    def modulate_gradients(self, view):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}


class HidesState(ForgetsState):
    def weigh(self, terms, view):
        return {name: term._replace(value=term.value / (1 + self.steps)) for name, term in terms.items()}

    def state_dict(self):
        return {}


class DampsTheFirst(Balancer):
    def modulate_gradients(self, view):
        for parameter in view.groups[view.modalities[0]]:
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)


class DrawsGlobally(Balancer):
    def modulate_gradients(self, view):
        torch.rand(1)


class LeavesEvaluation(Balancer):
    def modulate_gradients(self, view):
        view.method.head.eval()


class MovesEverything(Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self):
        for weight in self.param_groups[0]["params"]:
            weight.mul_(0.9)


class HiddenMomentum(SGD):
    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.rate = 0.1

    def step(self):
        self.rate *= 0.5
        self.param_groups[0]["lr"] = self.rate
        super().step()


class Negative(Schedule):
    def __call__(self, step):
        return ScheduleValues(1 - step / 3)


class CountsCalls(Schedule):
    calls = 0

    def __call__(self, step):
        self.calls += 1
        return ScheduleValues(1 / self.calls)


class PlainNumber(Schedule):
    def __call__(self, step):
        return 1.0


CASES = [
    Broken("method", "predicts_every_combination", component(OneLogitTooMany), r"logits \(16, 4\), not \(16, 3\)"),
    Broken("method", "losses_are_scalars_with_roles", component(MadeUpRole), "term 'more' has role 'main'"),
    Broken("method", "losses_are_scalars_with_roles", component(LossPerClass), r"term 'task' has shape \(3,\)"),
    Broken("method", "every_parameter_trains", component(WithIdleHead), "no gradient reaches idle.linear.weight, idle"),
    Broken("method", "says_where_it_fuses_nothing", component(FusesInSecret), "it never calls a balancer's edit"),
    Broken(
        "method",
        "says_where_it_fuses_nothing",
        component(Method, provides=frozenset({"no_fusion"})),
        "it provides 'no_fusion', but lets balancers",
    ),
    Broken("method", "absent_modality_trains_nothing", component(DecaysWeights), "of m1, which is absent, gets a grad"),
    Broken("method", "evaluation_depends_on_shown_inputs_alone", component(ReadsAbsentInputs), "place of absent"),
    Broken("method", "fusing_again_equals_encoding_again", component(ScalesOutsideOfReadout), "m0: logits from kept"),
    Broken("method", "probes_leave_no_trace", component(CountsReadouts), "after a probe: .*calls differs by up to 1"),
    Broken("method", "trains_on_incomplete_data", component(DividesByAbsence), "the loss in epoch 0 is not finite"),
    Broken("method", "resumed_run_equals_uninterrupted", component(RemembersInSecret), "resumed in epoch 3 and of one"),
    Broken("method", "deployed_model_predicts_alike", component(DeploysAnother), "logits of the deployed model: they"),
    Broken("method", "deployed_model_predicts_alike", component(DeploysEverythingTwice), "has 10100 parameters"),
    Broken("balancer", "overrides_members_that_are_called", component(Misspelt), "did you mean 'modulate_gradients'"),
    Broken("balancer", "one_modality_is_left_alone", component(Doubles), "with one modality there is nothing"),
    Broken("balancer", "one_modality_is_left_alone", component(ResamplesAlone), "every sample once, or None"),
    Broken("balancer", "one_shown_modality_is_left_alone", component(CountsAllModalities), "where only m0 is shown"),
    Broken("balancer", "weights_stay_finite", component(DividesByRows), "encoders.m1.* is not finite"),
    Broken("balancer", "accumulates_batches", component(CountsBatches), "update of two batches changes"),
    Broken("balancer", "absent_encoder_stays_as_it_is", component(AddsNoise), "encoder of m1 changes although nothing"),
    Broken("balancer", "auxiliary_terms_still_train", component(DropsOtherTerms), "only an auxiliary term trains"),
    Broken("balancer", "state_survives_checkpoint", component(ForgetsState), "'steps': 0} is not {'steps': 8}"),
    Broken("balancer", "resumed_run_equals_uninterrupted", component(HidesState), "resumed at step 2 and of one that"),
    Broken("balancer", "order_of_modalities_does_not_matter", component(DampsTheFirst), "in two orders of the"),
    Broken("balancer", "leaves_mode_and_generator_alone", component(DrawsGlobally), "draws from torch's global"),
    Broken("balancer", "leaves_mode_and_generator_alone", component(LeavesEvaluation), "left in evaluation mode"),
    Broken("optimizer", "steps_along_gradients_alone", component(MovesEverything), "without a gradient changes"),
    Broken(
        "optimizer", "resumed_run_equals_uninterrupted", component(HiddenMomentum), "weights of a resumed optimiser"
    ),
    Broken("schedule", "factors_are_finite", component(Negative), "the factor of step 4 is -0.33"),
    Broken("schedule", "values_depend_on_the_step_alone", component(CountsCalls), "depend on what was asked before"),
    Broken("schedule", "values_reach_optimisers", component(PlainNumber), "no attribute 'lr_factor'"),
]


@broken.parametrised(CASES)
def test_check__finds_broken_promise(case):
    broken.assert_caught(case)


def test_checks__are_all_proven():
    broken.assert_complete(CASES, ["method", "balancer", "optimizer", "schedule"], general=GENERAL)
