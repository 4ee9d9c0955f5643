"""What methods promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from robustmm.balancing.balancer import total
from robustmm.masks import all_combinations, combination_name, presence_of
from robustmm.methods.method import Method
from robustmm.methods.probes import unimodal_logits
from robustmm.registry import Component
from robustmm.testing.contract import (
    check,
    during,
    require,
    require_close,
    require_equal_states,
    require_finite,
    through_checkpoint,
)
from robustmm.testing.rehearsal import EPOCHS, RehearsedFit, prepare, rehearse
from robustmm.testing.tiny import SIZE, Setting, batch, clock, mixed_presence, settings
from robustmm.types import Batch, Combination, LossTerm, Output

ROLES = ("task", "auxiliary", "regulariser")
#: What a method provides that fuses no features.
NO_FUSION = "no_fusion"
#: Epochs at which training is interrupted: within a warm-up, and after it.
INTERRUPTIONS = (3, 8)


def forward(method: nn.Module, data: Batch, presence: Tensor, setting: Setting) -> Output:
    """The output on a batch."""
    output: Output = method(data.inputs, presence, size=setting.size)
    return output


def trained(component: Component, setting: Setting, *, stop: int = EPOCHS) -> Method:
    """A method after some epochs."""
    method = prepare(component, setting)
    rehearse(method, setting, stop=stop)
    return method


def combinations(setting: Setting) -> Iterator[tuple[Combination, Tensor]]:
    """Each combination, with a mask in which every sample shows it."""
    for combination in all_combinations(setting.names):
        yield combination, presence_of(combination, setting.names).expand(SIZE, -1)


def without_absent(data: Batch, presence: Tensor, value: float) -> Batch:
    """The batch with other inputs where a modality is absent."""
    changed = {
        name: x.masked_fill(~presence[:, column].view(-1, *[1] * (x.dim() - 1)), value)
        for column, (name, x) in enumerate(data.inputs.items())
    }
    return Batch(changed, data.observed, data.target, data.ids, data.index)


def require_logits(logits: Tensor, setting: Setting) -> None:
    """Fail unless logits fit the target; those of regression may be a Student-t's, see `RegressionTask`."""
    expected = (SIZE, setting.outputs, *setting.size)
    allowed = (expected, (SIZE, 3 * setting.outputs)) if setting.quantities else (expected,)
    require(tuple(logits.shape) in allowed, f"logits {tuple(logits.shape)}, not {' or '.join(map(str, allowed))}")


@check("method")
def predicts_every_combination(component: Component) -> None:
    """Logits of the target's size, finite, in training and in evaluation, for one to four modalities."""
    for setting in settings(component):
        with during(setting):
            method = prepare(component, setting)
            require(bool(method.sampler) and isinstance(method.sampler, str), "sampler must name a sampler")
            groups = method.trunk.parameter_groups()
            require(list(groups) == list(setting.names), f"parameter_groups of {list(groups)}, not {setting.names}")
            for mode in (True, False):
                output = forward(method.train(mode), batch(setting), mixed_presence(setting.count), setting)
                require_logits(output.logits, setting)
                require_finite(output.logits, f"logits in {'training' if mode else 'evaluation'}")
                require(list(output.features) == list(setting.names), f"features of {list(output.features)}")


@check("method")
def losses_are_scalars_with_roles(component: Component) -> None:
    """In every epoch there is a task term, and each term is a finite scalar with one of the three roles."""
    for setting in settings(component):
        with during(setting):
            rehearse(prepare(component, setting), setting, watch=_require_sound)


def _require_sound(terms: Mapping[str, LossTerm]) -> None:
    require(any(term.role == "task" for term in terms.values()), f"no task term among {list(terms)}")
    for name, term in terms.items():
        require(term.role in ROLES, f"term '{name}' has role {term.role!r}, not one of {', '.join(ROLES)}")
        require(term.value.shape == (), f"term '{name}' has shape {tuple(term.value.shape)}, not a scalar")
        require_finite(term.value, f"term '{name}'")


@check("method")
def every_parameter_trains(component: Component) -> None:
    """Over a run long enough for every warm-up, each parameter that requires a gradient gets one."""
    for setting in settings(component):
        with during(setting):
            method, reached = prepare(component, setting), set[str]()
            rehearse(method, setting, watch=partial(_note_reached, method, reached))
            idle = [name for name, p in method.named_parameters() if p.requires_grad and name not in reached]
            require(not idle, f"in {EPOCHS} epochs no gradient reaches {', '.join(idle)}")


def _note_reached(method: Method, reached: set[str], terms: Mapping[str, LossTerm]) -> None:
    reached |= {name for name, parameter in method.named_parameters() if parameter.grad is not None}


@check("method")
def says_where_it_fuses_nothing(component: Component) -> None:
    """A method provides ``no_fusion`` if and only if balancers cannot edit what enters a fusion, for there is none.

    Balancers that edit features conflict with it, and so do not act on nothing in silence. A method that allows no
    balancer need not say so.
    """
    for setting in settings(component, counts=(2,)):
        with during(setting):
            levels: list[int] = []
            method = prepare(component, setting)
            method.train_output(batch(setting), mixed_presence(setting.count), partial(_note_level, levels))
            says_so = NO_FUSION in component.provides
            require(not (levels and says_so), f"it provides '{NO_FUSION}', but lets balancers edit what it fuses")
            known = bool(levels) or says_so or "balancer:none" in component.requires
            require(known, f"it never calls a balancer's edit; hand it to the trunk, or provide '{NO_FUSION}'")


def _note_level(
    levels: list[int], level: int, features: Mapping[str, Tensor], presence: Tensor
) -> Mapping[str, Tensor]:
    levels.append(level)
    return features


@check("method")
def absent_modality_trains_nothing(component: Component) -> None:
    """A modality that a whole batch lacks gives its encoder a gradient of exactly zero, in the first and last epoch."""
    for setting in settings(component, counts=(2, 3)):
        with during(setting):
            for epoch in (0, EPOCHS - 1):
                method = trained(component, setting, stop=epoch)
                for combination, presence in combinations(setting):
                    with during(f"combination {combination_name(combination)} in epoch {epoch}"):
                        _require_no_gradient(method, setting, combination, presence, epoch)


def _require_no_gradient(
    method: Method, setting: Setting, combination: Combination, presence: Tensor, epoch: int
) -> None:
    data = batch(setting)
    method.zero_grad(set_to_none=True)
    at = clock(epoch, epoch, epochs=EPOCHS, steps_per_epoch=1)
    torch.autograd.backward(total(method.losses(method.train_output(data, presence), data, at)))
    for name, parameters in method.trunk.parameter_groups().items():
        reached = [p.grad for p in parameters if p.grad is not None]
        if name in combination and parameters:  # a modality that is never read owns nothing
            require(bool(reached), f"the encoder of {name}, which is there, gets no gradient")
        for gradient in reached:
            require_finite(gradient, f"a gradient of the encoder of {name}")
            silent = name in combination or not gradient.any()
            require(silent, f"the encoder of {name}, which is absent, gets a gradient")


@check("method")
def evaluation_depends_on_shown_inputs_alone(component: Component) -> None:
    """In evaluation logits do not change between calls, with other samples, or with what an absent modality holds."""
    for setting in settings(component):
        with during(setting), torch.no_grad():
            with torch.enable_grad():
                method = trained(component, setting, stop=2).eval()
            data, presence = batch(setting), mixed_presence(setting.count)
            logits = forward(method, data, presence, setting).logits
            require_close(forward(method, data, presence, setting).logits, logits, "logits of two calls", tolerance=0.0)
            other = forward(method, without_absent(data, presence, 1e3), presence, setting).logits
            require_close(other, logits, "logits with other values in the place of absent inputs")
            few = {name: x[5:7] for name, x in data.inputs.items()}
            alone: Output = method(few, presence[5:7], size=setting.size)
            require_close(alone.logits, logits[5:7], "logits of two samples and of the whole batch")


@check("method")
def fusing_again_equals_encoding_again(component: Component) -> None:
    """In evaluation, features of the complete input fused anew for a combination give that combination's logits."""
    for setting in settings(component):
        with during(setting), torch.no_grad():
            with torch.enable_grad():
                method = trained(component, setting, stop=2).eval()
            data = batch(setting)
            complete = forward(method, data, data.observed, setting)
            for combination, presence in combinations(setting):
                fused = method.trunk.refuse(complete.features, presence)
                if fused is None:
                    continue
                again = method.readout(complete.features, fused, presence, setting.size).logits
                direct = forward(method, data, presence, setting).logits
                require_close(
                    again, direct, f"{combination_name(combination)}: logits from kept features and from inputs"
                )


@check("method")
def probes_leave_no_trace(component: Component) -> None:
    """Asking what each modality predicts alone changes no weight, no statistic and no mode."""
    for setting in settings(component):
        with during(setting):
            method = prepare(component, setting)
            output = forward(method, batch(setting), mixed_presence(setting.count), setting)
            before = {name: value.clone() for name, value in method.state_dict().items()}
            with torch.no_grad():
                own = unimodal_logits(method, output)
            require_equal_states(dict(method.state_dict()), before, "weights and statistics after a probe")
            require(all(part.training for part in method.modules()), "a probe leaves modules in evaluation mode")
            for column, (name, logits) in enumerate(own.logits.items() if own else ()):
                require_finite(logits[mixed_presence(setting.count)[:, column]], f"logits of {name} alone")


@check("method")
def trains_on_incomplete_data(component: Component) -> None:
    """Samples that really lack modalities give finite losses and gradients, early and late."""
    for setting in settings(component, counts=(2, 4)):
        with during(setting):
            for epoch in (0, EPOCHS - 1):
                method = trained(component, setting, stop=epoch)
                observed = mixed_presence(setting.count)
                whole = without_absent(batch(setting), observed, 0.0)
                data = Batch(whole.inputs, observed, whole.target, whole.ids, whole.index)
                method.zero_grad(set_to_none=True)
                at = clock(epoch, epoch, epochs=EPOCHS, steps_per_epoch=1)
                terms = method.losses(method.train_output(data, observed), data, at)
                require_finite(total(terms), f"the loss in epoch {epoch}")
                torch.autograd.backward(total(terms))
                for name, parameter in method.named_parameters():
                    if parameter.grad is not None:
                        require_finite(parameter.grad, f"the gradient of {name} in epoch {epoch}")


@check("method")
def resumed_run_equals_uninterrupted(component: Component) -> None:
    """Weights, statistics and method_state survive a checkpoint, and training goes on as if nothing had happened."""
    for setting in settings(component, counts=(2,)):
        with during(setting):
            for epoch in INTERRUPTIONS:
                fit = RehearsedFit()
                first = prepare(component, setting, fit)
                rehearse(first, setting, stop=epoch)
                saved = through_checkpoint({"weights": first.state_dict(), "state": first.method_state()})
                second = prepare(component, setting, fit)
                second.load_state_dict(saved["weights"])
                second.load_method_state(saved["state"])
                require_equal_states(second.method_state(), first.method_state(), "method_state after a checkpoint")
                for method in (first, second):
                    rehearse(method, setting, start=epoch)
                what = f"weights of a run resumed in epoch {epoch} and of one that was not stopped"
                require_equal_states(dict(second.state_dict()), dict(first.state_dict()), what)


@check("method")
def deployed_model_predicts_alike(component: Component) -> None:
    """What `deployable` gives predicts exactly as the method does in evaluation, and is no larger."""
    for setting in settings(component):
        with during(setting), torch.no_grad():
            with torch.enable_grad():
                method = trained(component, setting).eval()
            deployed = method.deployable().eval()
            data, presence = batch(setting), mixed_presence(setting.count)
            ours = forward(deployed, data, presence, setting).logits
            require_close(ours, forward(method, data, presence, setting).logits, "logits of the deployed model")
            sizes = [sum(p.numel() for p in module.parameters()) for module in (deployed, method)]
            require(sizes[0] <= sizes[1], f"the deployed model has {sizes[0]} parameters, the method {sizes[1]}")
