"""CPM-Nets: a free code per sample that reconstructs the views which are there, and classes that gather codes.

Source: Zhang et al., CPM-Nets: Cross Partial Multi-View Networks, NeurIPS 2019; Deep Partial Multi-View Learning,
TPAMI 2022, arXiv:2011.06170; code hanmenghan/CPM_Nets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    ConfigError,
    Evaluate,
    FeatureEdit,
    LossTerm,
    Method,
    Options,
    Output,
    all_reduce_sum,
    hookimpl,
)

from ._deployment import shared_blueprint
from ._latent_codes import (
    Activation,
    ClassMeans,
    Decoder,
    LatentTrunk,
    class_sums,
    reconstruction_error,
    similarity_margin,
    similarity_to_others,
)

#: What the table of labels holds for a sample that training has not met yet.
UNKNOWN = -1


class CPMNetsOptions(Options):
    """Options of CPM-Nets; defaults are those of the released Handwritten run unless a description says otherwise."""

    code_size: int = Field(128, gt=0, description="Numbers in a code. Released: 128 to 512.")
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (150,), description="Widths of a decoder's layers between code and view; () is one layer, as released for CUB."
    )
    activation: Activation = Field(
        "none", description="Between a decoder's layers: relu, or none as released, which makes decoders linear maps."
    )
    classification_weight: float = Field(
        1.0, ge=0, description="Weight of the classes' margin beside the reconstruction. Released: 1, or 10."
    )
    margin: Literal["all", "predicted"] = Field(
        "all",
        description="Which wrong classes must keep a margin of 1: all, or the most similar one alone, as in the "
        "released code, which asks nothing of a sample that is right by however little.",
    )
    reduction: Literal["mean", "sum"] = Field(
        "mean", description="Both losses as mean over samples, or as sum as released; Adam hardly tells them apart."
    )
    alternate: int = Field(
        5, gt=0, description="Steps that decoders train before codes do, and the other way round. Released: 5 or 10."
    )
    code_lr_factor: float = Field(
        1.0,
        gt=0,
        description="Learning rate of the codes divided by the optimiser's, which decoders have; exact for Adam and "
        "its kin alone. Released: 1, or 10.",
    )
    retune_epochs: int = Field(
        0,
        ge=0,
        description="Last epochs, in which decoders alone train on the final codes, so that codes found without labels "
        "agree with them; the paper does it, the released code does not.",
    )
    search_steps: int = Field(
        100, gt=0, description="Steps in which the code of a new sample is found. More is not better: codes overfit."
    )
    search_lr: float = Field(0.01, gt=0, description="Length of these steps. Released: that of the decoders.")
    output_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of a reconstruction that is dropped, in the search too; released: 0.1 where decoders have "
        "several layers.",
    )

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """Small and quick."""
        return {"code_size": 4, "hidden": [3], "search_steps": 10}


class CPMNets(Method):
    """A table of codes, a decoder per view, and the mean code of each class.

    There is no encoder. Each training sample owns a code; decoders learn to reconstruct the views that exist, codes
    learn that and to be similar to the codes of their own class. The two take turns, ``alternate`` steps each, decoders
    first. The code of a new sample is found by gradient descent on the reconstruction of what it shows, with the
    decoders fixed; its logits are the inner products with the mean code of each class. They say which class, not how
    likely: their softmax is not calibrated. Views must be vectors: pictures and sounds come as features of a network
    that is trained already.

    Terms, both of role ``task``: ``reconstruction`` always, ``classification`` when codes train. A code's similarity to
    a class counts every other training sample of that class, from sums, and has a gradient for all of them, as in the
    released code. The losses are those of the whole table where a batch is the whole training part; with smaller
    batches momentum also moves codes that are not in the batch. Labels are met in the first epoch, batch by batch.

    Configured encoders, fusion, missing policy and head have no part in it. Balancing neither: decoders are given a
    code and do not compete.

    Where the released code and the paper differ, the paper is the default:
        Margin: the code charges the most similar class alone: ``margin``.
        Retuning: the code has none: ``retune_epochs``.
        Output dropout: the code's, in test as well: ``output_dropout``. In the search all samples share what a step
            drops, so that a prediction depends neither on chance nor on other samples.
    Deviations: scaling is fitted on the training part, where the release scales the test part on its own; the search
    begins at 0, where the release draws a small random code for each sample. The adversarial term of the TPAMI version
    is not there.

    Args:
        blueprint: See `Blueprint`.
        code_size, hidden, activation, classification_weight, margin, reduction, alternate, code_lr_factor,
            retune_epochs, search_steps, search_lr, output_dropout: See `CPMNetsOptions`.

    Raises:
        ConfigError: a modality is no vector.
    """

    trunk: LatentTrunk
    head: ClassMeans
    labels: Tensor

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        code_size: int = 128,
        hidden: tuple[int, ...] = (150,),
        activation: Activation = "none",
        classification_weight: float = 1.0,
        margin: Literal["all", "predicted"] = "all",
        reduction: Literal["mean", "sum"] = "mean",
        alternate: int = 5,
        code_lr_factor: float = 1.0,
        retune_epochs: int = 0,
        search_steps: int = 100,
        search_lr: float = 0.01,
        output_dropout: float = 0.0,
    ) -> None:
        _refuse_maps(blueprint)
        trunk = LatentTrunk(
            blueprint.make_trunk(fused=False).scalers,
            {one.name: Decoder(code_size, hidden, one.shape[0], activation) for one in blueprint.modalities},
            code_size=code_size,
            steps=search_steps,
            lr=search_lr,
            dropout=output_dropout,
        )
        super().__init__(blueprint, trunk=trunk, head=ClassMeans(blueprint.task.num_outputs, code_size))
        self._specifications = blueprint.modalities
        self.classification_weight, self.margin, self.reduction = classification_weight, margin, reduction
        self.alternate, self.retune_epochs = alternate, retune_epochs
        self.code_lr_factor = code_lr_factor
        # Adam's steps do not depend on the size of gradients: a table in other units has another learning rate.
        self.table = nn.Parameter(torch.empty(blueprint.samples, code_size))
        nn.init.xavier_uniform_(self.table, gain=1 / code_lr_factor)
        self.register_buffer("labels", torch.full((blueprint.samples,), UNKNOWN))
        self._all_known = False

    @property
    def codes(self) -> Tensor:
        """Of the training samples, (N, D)."""
        return self.table * self.code_lr_factor

    def train_output(self, batch: Batch, presence: Tensor, edit: FeatureEdit | None = None) -> Output:
        """See `Method.train_output`: with the samples' own codes, and logits that leave out the sample itself."""
        index = batch.index.to(self.table.device)
        self._note_labels(index, batch.target)
        shown = presence.to(self.table.device, non_blocking=True)
        features = self.trunk.views(batch.inputs, shown)
        with torch.autocast(self.table.device.type, enabled=False):
            codes = self.codes
            own = codes[index]
            logits = similarity_to_others(own, batch.target, *class_sums(codes, self.labels, self.task.num_outputs))
        return Output(logits, shown, features, [own])

    def _note_labels(self, index: Tensor, target: Tensor) -> None:
        """Remember labels of this process's samples and of the others', so that all of them know the same."""
        self._all_known = self._all_known or bool((self.labels != UNKNOWN).all())  # also after a checkpoint was loaded
        if self._all_known:
            return
        own = torch.zeros_like(self.labels).index_fill_(0, index, 1)  # a sample may come twice in an epoch
        met = all_reduce_sum(own)
        labels = all_reduce_sum(torch.zeros_like(self.labels).index_copy_(0, index, target))
        self.labels.copy_(torch.where(met > 0, labels // met.clamp_min(1), self.labels))

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`: of decoders on fixed codes, or of codes with fixed decoders, whose turn it is."""
        codes = output.fused[0]
        turn = self._codes_train(clock)
        views, shown = self.trunk.side_by_side(output.features, output.presence)
        with torch.autocast(codes.device.type, enabled=False):
            made = self.trunk.reconstruct(codes if turn else codes.detach(), frozen=turn)
            terms = {"reconstruction": LossTerm(self._reduced(reconstruction_error(made, views, shown)), "task")}
            if turn and self.classification_weight > 0:
                loss = self._reduced(similarity_margin(output.logits, batch.target, form=self.margin))
                terms["classification"] = LossTerm(self.classification_weight * loss, "task")
        return terms

    def _codes_train(self, clock: Clock) -> bool:
        if clock.epoch >= clock.epochs - self.retune_epochs:
            return False
        return clock.step // self.alternate % 2 == 1

    def _reduced(self, losses: Tensor) -> Tensor:
        return losses.mean() if self.reduction == "mean" else losses.sum()

    @torch.no_grad()
    def on_epoch_end(self, evaluate: Evaluate, clock: Clock) -> None:
        """Give the head the classes' codes as they are now."""
        self.head.set(*class_sums(self.codes, self.labels, self.task.num_outputs))

    def deployable(self) -> Method:
        """Decoders and mean codes, shared with this method; without the table."""
        deployed = Method(shared_blueprint(self, self._specifications))
        deployed.training = self.training
        return deployed


def _refuse_maps(blueprint: Blueprint) -> None:
    problems = [
        f"method 'cpm_nets' reconstructs vectors, modality '{one.name}' is of kind {one.kind}: give features of a "
        f"trained network in its place, or leave it out with data.modalities"
        for one in blueprint.modalities
        if len(one.shape) != 1
    ]
    if problems:
        raise ConfigError(problems)


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="cpm_nets",
            build=CPMNets,
            options=CPMNetsOptions,
            summary="A free code per sample that reconstructs the vectors it has; no encoder.",
            source="Zhang et al., NeurIPS 2019, and TPAMI 2022, arXiv:2011.06170; code hanmenghan/CPM_Nets",
            fidelity="part",
            requires=frozenset({"task:classification", "balancer:none"}),
            conflicts=frozenset({"stands_in"}),
        )
    )
