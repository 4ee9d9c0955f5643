"""MMPareto: joint and unimodal gradients of an encoder, combined so that neither objective is hurt.

Source: Wei and Hu, MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance, ICML 2024,
arXiv:2405.17730; code GeWu-Lab/MMPareto_ICML2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Balancer, Component, LossTerm, Options, StepView, added, hookimpl, total

#: Begins the names of the terms that go through heads of their own.
PREFIX = "own_head"
#: The solver's weight of a gradient that is shorter than its projection on the other.
CLOSEST = 0.999
#: Least norm of a combined gradient that is enlarged; one of 0 stays 0.
SMALLEST_NORM = 1e-12

Scope = Literal["tensor", "encoder"]


class MMParetoOptions(Options):
    """Options of the strategy."""

    gamma: float = Field(1.5, gt=0, description="Factor of the combined gradient; the released code has it fixed.")
    scope: Scope = Field(
        "tensor",
        description="Where the magnitude is restored: for each parameter tensor, as released, or for an encoder as a "
        "whole. Whether gradients conflict is always decided for an encoder as a whole.",
    )


def joint_weight(joint: Tensor, own: Tensor, dot: Tensor) -> Tensor:
    """Weight of the joint gradient in the direction that serves both; the unimodal one has the rest.

    Args:
        joint: Squared norm of the joint gradient, a scalar.
        own: Squared norm of the unimodal gradient.
        dot: Their dot product.

    Returns:
        1/2 where they agree, ``dot > 0``, or there is no unimodal gradient; else that of the shortest vector between
        them, in [0.001, 0.999] where one of them is itself the shortest.

    Source:
        MMPareto's code, with the two-gradient case of its min-norm solver.
    """
    distance = joint + own - 2 * dot
    shortest = (own - dot) / torch.where(distance > 0, distance, 1.0)
    conflict = torch.where(dot >= joint, CLOSEST, torch.where(dot >= own, 1 - CLOSEST, shortest))
    return torch.where((dot > 0) | (own == 0), 0.5, conflict)


def combined(joint: Sequence[Tensor], own: Sequence[Tensor], *, gamma: float, scope: Scope) -> list[Tensor]:
    """Gradients of one encoder from those of the joint and of the unimodal loss.

    With a of `joint_weight`, ``h = 2 a g_joint + 2 (1 - a) g_own``, enlarged to the norm of ``g_joint + g_own`` where
    it is shorter, times gamma. For gradients that agree this is gamma times their sum. Without a unimodal gradient it
    is the joint gradient, whatever gamma is.

    Args:
        joint: One tensor per parameter.
        own: Likewise, of the same shapes.
        gamma: Above 0.
        scope: See `MMParetoOptions`.

    Returns:
        New tensors, finite where the given ones are: an ``h`` of 0 stays 0, the release makes it NaN.

    Source:
        MMPareto (ICML 2024), code.
    """
    flat_joint, flat_own = _flat(joint), _flat(own)
    size_own = flat_own.dot(flat_own)
    weight = joint_weight(flat_joint.dot(flat_joint), size_own, flat_joint.dot(flat_own))
    gain = torch.where(size_own > 0, gamma, 1.0)
    both = flat_joint + flat_own
    h = 2 * weight * flat_joint + 2 * (1 - weight) * flat_own
    if scope == "encoder":
        return _split(_enlarged([h], [both], gain)[0], joint)
    return _enlarged(_split(h, joint), _split(both, joint), gain)


def _enlarged(parts: Sequence[Tensor], least: Sequence[Tensor], gain: Tensor) -> list[Tensor]:
    """Each part times ``gain``, brought to the norm of its counterpart in ``least`` before where it is shorter."""
    norm, wanted = (torch.stack(torch._foreach_norm(list(tensors))) for tensors in (parts, least))
    factors = gain * (wanted / norm.clamp_min(SMALLEST_NORM)).clamp_min(1)
    return list(torch._foreach_mul(list(parts), list(factors.unbind())))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector, in float32 or more precisely."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _split(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a vector, shaped as ``like``."""
    parts: Sequence[Tensor] = torch.split(flat, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


class MMPareto(Balancer):
    """Innocent unimodal assistance.

    Each modality has a head of its own on its features, trained by its own loss with weight 1 over the samples that
    show it. The joint gradient of an encoder and that of its own head's loss are kept apart and put together by
    `combined`. Heads and fusion get the plain gradients of their own losses: unimodal losses reach nothing but their
    encoder and head. What a method adds to the task's loss, such as a distillation, is part of the joint gradient, and
    is turned and enlarged with it.

    An encoder that no unimodal loss reaches keeps its joint gradient. Gradients are averaged over batches of an update
    and over processes before they are compared. The released code goes through the encoders four times; here it is
    twice. Adam divides a constant factor out, so that gamma alone changes little there.

    Where no sample shows two modalities, nothing is changed, and the heads of single modalities do not train.

    Args:
        gamma, scope: See `MMParetoOptions`.
    """

    def __init__(self, *, gamma: float = 1.5, scope: Scope = "tensor") -> None:
        self.gamma, self.scope = gamma, scope

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """Add the loss of each modality's own head."""
        return added(terms, view.own_head_losses(), PREFIX) if view.contested else terms

    def backward(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        """The unimodal gradients of encoders apart, all others as usual."""
        own = {name: term for name, term in terms.items() if name.startswith(f"{PREFIX}/")}
        heads = view.method.unimodal_heads
        if own and heads is not None:
            view.backward(total(own), only=list(heads.parameters()), retain_graph=True)
        for name in view.modalities:
            if f"{PREFIX}/{name}" in own:
                encoder = [parameter for parameter in view.groups[name] if parameter.requires_grad]
                view.backward_apart(own[f"{PREFIX}/{name}"].value, encoder, retain_graph=True)
        view.backward(total({name: term for name, term in terms.items() if name not in own}))

    def modulate_gradients(self, view: StepView) -> None:
        """Combine both gradients of each encoder."""
        for name in view.modalities:
            owned = [p for p in view.groups[name] if p.grad is not None or p in view.apart]
            if not any(parameter in view.apart for parameter in owned):
                continue
            joint, own = [], []
            for parameter in owned:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                joint.append(parameter.grad)
                own.append(view.apart.get(parameter, torch.zeros_like(parameter)))
            torch._foreach_copy_(joint, combined(joint, own, gamma=self.gamma, scope=self.scope))


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="mmpareto",
            build=MMPareto,
            options=MMParetoOptions,
            summary="Combine each encoder's joint and unimodal gradient so that neither objective is hurt.",
            source="Wei and Hu, ICML 2024, arXiv:2405.17730; code GeWu-Lab/MMPareto_ICML2024",
            fidelity="code",
            requires=frozenset({"unimodal_heads"}),
        )
    )
