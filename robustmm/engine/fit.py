"""What a method may ask of the run before training: another network, trained by the same recipe or loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from robustmm import distributed
from robustmm.balancing.balancer import Balancer
from robustmm.engine import checkpoint
from robustmm.engine.train import Trainer
from robustmm.masks import CombinationSampler
from robustmm.methods.method import Method


@dataclass
class Fit:
    """The run's answer to `robustmm.FitContext`.

    Args:
        trainer: The run's own trainer, whose data, recipe and callbacks are used.
    """

    trainer: Trainer

    def train(self, name: str, method: Method, *, epochs: int | None = None) -> None:
        """See `robustmm.FitContext.train`: complete samples, no balancer, the same selection rule."""
        own = self.trainer
        metric = own.recipe.select_metric.split("/")[-1]
        recipe = own.recipe if epochs is None else replace(own.recipe, epochs=epochs)
        method.to(own.fabric.device)
        nested = Trainer(
            method=method,
            balancer=Balancer(),
            sampler=CombinationSampler(),
            train=own.train.only(method.modalities),
            validation=own.validation.only(method.modalities),
            recipe=replace(recipe, select_metric=f"complete/{metric}", select_mode=own.directions()[metric]),
            fabric=own.fabric,
            folder=own.folder / name,
            extra=own.extra,
            combinations=[method.modalities],
            interrupt=own.interrupt,
        )
        if nested.last.is_file():
            nested.load()
        if not nested.finished:
            self._say(f"training {name}: {recipe.epochs} epochs on complete samples")
            nested.fit()
        nested.load_best()
        self._say(
            f"{name}: complete/{metric} {nested.selection.best:.4f} on validation, epoch {nested.selection.best_epoch}"
        )

    def load(self, path: str, method: Method) -> None:
        """See `robustmm.FitContext.load`: the weights of a ``best.safetensors`` or ``last.safetensors``."""
        state = checkpoint.load(Path(path))
        checkpoint.load_weights(method, state["weights"], place=path)
        method.to(self.trainer.fabric.device)
        self._say(f"loaded {path}")

    def _say(self, text: str) -> None:
        if distributed.rank() == 0:
            for callback in self.trainer.callbacks:
                callback.on_message(text)


class DryFit(Fit):
    """The answer of a dry run: other networks are there and loaded where they are to be, but not trained."""

    def train(self, name: str, method: Method, *, epochs: int | None = None) -> None:
        """Leave the network as it was built."""
        method.to(self.trainer.fabric.device)
