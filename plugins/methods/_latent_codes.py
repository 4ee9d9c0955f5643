"""Codes instead of encoders: small networks that give views of a code, and the search for the code of given views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustmm import FeatureEdit, Features, Head, Trunk, generator_for, where_present

#: Codes (R, D) -> the features of all views side by side, (R, F).
Decode = Callable[[Tensor], Tensor]
Activation = Literal["none", "relu"]
#: Of the search for codes, as in training and in the released code.
BETAS, EPS = (0.9, 0.999), 1e-8


def reconstruction_error(reconstruction: Tensor, views: Tensor, shown: Tensor) -> Tensor:
    """Squared error of each sample, summed over the features that are there.

    Args:
        reconstruction: (R, F).
        views: (R, F); whatever it holds where nothing is there.
        shown: (R, F) bool: which features are there.

    Returns:
        (R,), 0 with a gradient of exactly 0 for a sample without any view.
    """
    return (reconstruction - views).where(shown, reconstruction.new_zeros(())).square().sum(dim=1)


def find_codes(decode: Decode, views: Tensor, shown: Tensor, *, size: int, steps: int, lr: float) -> Tensor:
    """Codes that reconstruct what is there of each sample, by some steps of Adam from zero.

    A sample's code depends on its own views alone: every code begins at the same place and Adam scales each number by
    its own history. The search is without gradient outside and works in inference mode.

    Args:
        decode: Codes to reconstructions; its weights stay as they are.
        views: (R, F).
        shown: (R, F) bool; a sample of which nothing is there keeps the code 0.
        size: D.
        steps: Updates. Few are better than many: codes that fit the views closely are worse for prediction.
        lr: Length of a step.

    Returns:
        (R, D) float32, without gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        views, shown = views.clone(), shown.clone()  # a copy of what inference mode made is an ordinary tensor
        codes = views.new_zeros(len(views), size)
        mean, square = torch.zeros_like(codes), torch.zeros_like(codes)
        for step in range(1, steps + 1):
            codes = codes.detach().requires_grad_()
            error = reconstruction_error(decode(codes), views, shown).sum()
            (gradient,) = torch.autograd.grad(error, codes)
            mean.lerp_(gradient, 1 - BETAS[0])
            square.lerp_(gradient.square(), 1 - BETAS[1])
            scale = (square / (1 - BETAS[1] ** step)).sqrt() + EPS
            codes = codes.detach() - lr / (1 - BETAS[0] ** step) * mean / scale
        return codes.detach()


def class_sums(codes: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum of the codes (N, D) of each class, (C, D), and how many there are, (C,); a label below 0 counts nowhere."""
    member = F.one_hot(labels.clamp_min(0), num_classes).to(codes.dtype) * (labels >= 0)[:, None]  # (N, C)
    return member.T @ codes, member.sum(dim=0)


def similarity_to_others(codes: Tensor, labels: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """Mean inner product of each code with the codes of each class, itself left out.

    From the sums of the classes, so that no matrix of all pairs is made; exact.

    Args:
        codes: (B, D), each of them part of the sum of its class.
        labels: (B,).
        sums: (C, D), see `class_sums`.
        counts: (C,).

    Returns:
        (B, C); 0 for a class without another code.
    """
    own = F.one_hot(labels, len(counts)).to(codes.dtype)  # (B, C)
    total = codes @ sums.T - own * codes.square().sum(dim=1, keepdim=True)
    return total / (counts - own).clamp_min(1)


def similarity_margin(similarity: Tensor, target: Tensor, *, form: Literal["all", "predicted"]) -> Tensor:
    """How much another class comes within a margin of 1 of the true one, per sample.

    Args:
        similarity: Of samples to classes, (B, C).
        target: (B,).
        form: ``all``: the largest of ``1 + similarity to a wrong class - similarity to the true one``, at least 0.
            ``predicted``: the same for the most similar class alone, 0 where that is the true one; never more.

    Returns:
        (B,), at least 0.
    """
    wrong = 1 - F.one_hot(target, similarity.shape[1]).to(similarity.dtype)
    gaps = wrong + similarity - similarity.gather(1, target[:, None])  # (B, C); 0 for the true class
    if form == "all":
        return gaps.amax(dim=1)
    return gaps.gather(1, similarity.argmax(dim=1, keepdim=True)).squeeze(1).clamp_min(0)


class Decoder(nn.Sequential):
    """Linear layers from a code to one view; biases 0 and weights uniform in +-sqrt(6 / (in + out)) at first.

    Args:
        code_size: D.
        hidden: Widths between.
        features: Of the view.
        activation: Between layers; without one the decoder is a linear map, whatever its depth.
    """

    def __init__(self, code_size: int, hidden: Sequence[int], features: int, activation: Activation) -> None:
        widths = (code_size, *hidden, features)
        super().__init__(*(nn.Linear(before, after) for before, after in pairwise(widths)))
        self.activation = activation
        for layer in self.layers():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def layers(self) -> list[nn.Linear]:
        """From code to view."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]

    def forward(self, codes: Tensor) -> Tensor:
        """(R, D) -> (R, features)."""
        return self._run(codes, [(layer.weight, layer.bias) for layer in self.layers()])

    def frozen(self) -> Decode:
        """The decoder as it is now, with a gradient for codes alone."""
        weights = [(layer.weight.detach(), layer.bias.detach()) for layer in self.layers()]
        return lambda codes: self._run(codes, weights)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        """Weight (features, D) and bias (features,) of the one layer that a decoder without activation is, detached."""
        (weight, bias), *others = [(layer.weight.detach(), layer.bias.detach()) for layer in self.layers()]
        for own, shift in others:
            weight, bias = own @ weight, own @ bias + shift
        return weight, bias

    def _run(self, x: Tensor, weights: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        for place, (weight, bias) in enumerate(weights):
            x = F.linear(x.relu() if place and self.activation == "relu" else x, weight, bias)
        return x


class LatentTrunk(Trunk):
    """No encoder: features are the scaled views, the one fused level is the code that is found for them.

    A view's parameter group is its decoder: a view that is absent gives it a gradient of exactly zero. Nothing enters
    a fusion, so there is nothing for a balancer to edit.

    Args:
        scalers: Modality -> `robustmm.Scaler`.
        decoders: Modality -> decoder, in column order.
        code_size: D.
        steps, lr: See `find_codes`.
        dropout: Share of the reconstruction that is dropped, in the search too, as in the released code.
    """

    not_exportable = "cpm_nets finds the code of each sample by gradient descent when it predicts, which is no graph"

    def __init__(
        self,
        scalers: nn.ModuleDict,
        decoders: Mapping[str, Decoder],
        *,
        code_size: int,
        steps: int,
        lr: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.modalities = tuple(decoders)
        self.scalers = scalers
        self.decoders = nn.ModuleDict(decoders)
        self.feature_channels = {name: (decoder.layers()[-1].out_features,) for name, decoder in decoders.items()}
        self.fused_channels = (code_size,)
        self.steps, self.lr, self.dropout = steps, lr, dropout

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """See `Trunk.forward`."""
        presence = presence.to(next(iter(inputs.values())).device, non_blocking=True)
        features = self.views(inputs, presence)
        return features, self.refuse(features, presence)

    def views(self, inputs: Mapping[str, Tensor], presence: Tensor) -> Features:
        """Scaled inputs, 0 where absent, {modality: [(B, d)]}."""
        scaled = {name: self.scalers[name](inputs[name].float()) for name in self.modalities}
        return {
            name: [where_present(x, presence[:, column], x.new_zeros(()))]
            for column, (name, x) in enumerate(scaled.items())
        }

    def side_by_side(self, features: Features, presence: Tensor) -> tuple[Tensor, Tensor]:
        """All views of a sample in one row, (B, F), and which of its features are there, (B, F) bool."""
        views = [levels[0].float() for levels in features.values()]
        shown = [presence[:, column, None].expand(view.shape) for column, view in enumerate(views)]
        return torch.cat(views, dim=1), torch.cat(shown, dim=1)

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor]:
        """See `Trunk.refuse`: the codes that reconstruct what is present, in float32."""
        views, shown = self.side_by_side(features, presence)
        with torch.inference_mode(False), torch.autocast(views.device.type, enabled=False):
            decode = self._search_decode()  # weights made in inference mode could not take part in the search
            return [find_codes(decode, views, shown, size=self.fused_channels[0], steps=self.steps, lr=self.lr)]

    def reconstruct(self, codes: Tensor, *, frozen: bool = False) -> Tensor:
        """All views of codes (B, D) side by side, (B, F); with a gradient for the codes alone where ``frozen``."""
        decode = self._frozen() if frozen else self._decode
        return F.dropout(decode(codes), self.dropout)

    def _decode(self, codes: Tensor) -> Tensor:
        return torch.cat([decoder(codes) for decoder in self.decoders.values()], dim=1)

    def _frozen(self) -> Decode:
        decoders = [decoder for decoder in self.decoders.values() if isinstance(decoder, Decoder)]
        if all(decoder.activation == "none" for decoder in decoders):
            maps = [decoder.linear_map() for decoder in decoders]
            weight, bias = (torch.cat(parts) for parts in zip(*maps, strict=True))
            return lambda codes: F.linear(codes, weight, bias)
        frozen = [decoder.frozen() for decoder in decoders]
        return lambda codes: torch.cat([decode(codes) for decode in frozen], dim=1)

    def _search_decode(self) -> Decode:
        """Decoders for the search. What a step drops is the same for all samples and in every search, so that samples
        do not depend on each other and a prediction not on chance.
        """
        decode = self._frozen()
        if self.dropout == 0:
            return decode
        generator = generator_for("cpm_nets", "dropout")
        features = sum(sizes[0] for sizes in self.feature_channels.values())

        def dropping(codes: Tensor) -> Tensor:
            kept = torch.rand(features, generator=generator) >= self.dropout
            return decode(codes) * (kept / (1 - self.dropout)).to(codes.device)

        return dropping

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Each modality owns its decoder."""
        return {name: list(decoder.parameters()) for name, decoder in self.decoders.items()}


class ClassMeans(Head):
    """Logits of a code: its inner product with the mean code of each class.

    Args:
        num_classes: C.
        code_size: D.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, code_size: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(num_classes, code_size))
        self.register_buffer("counts", torch.zeros(num_classes))

    def set(self, sums: Tensor, counts: Tensor) -> None:
        """Take the sums (C, D) and counts (C,) of the training codes."""
        self.sums.copy_(sums)
        self.counts.copy_(counts)

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`."""
        means = self.sums / self.counts.clamp_min(1)[:, None]
        with torch.autocast(means.device.type, enabled=False):
            return fused[-1].float() @ means.T
