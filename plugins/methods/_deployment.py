"""What stays of a method once training is over."""

from __future__ import annotations

from collections.abc import Sequence

from robustmm import Blueprint, Method, Modality, Trunk


def shared_blueprint(method: Method, modalities: tuple[Modality, ...]) -> Blueprint:
    """A blueprint that hands out the trunk and the head of ``method`` themselves, so that nothing is copied."""

    def trunk(*, only: Sequence[str] | None = None, fused: bool = True) -> Trunk:
        return method.trunk

    return Blueprint(modalities, method.task, trunk, lambda channels, outputs=None: method.head)
