"""What stays of a method once training is over."""

from __future__ import annotations

from robustmm import Blueprint, Method, Modality


def shared_blueprint(method: Method, modalities: tuple[Modality, ...]) -> Blueprint:
    """A blueprint that hands out the trunk and the head of ``method`` themselves, so that nothing is copied."""
    return Blueprint(modalities, method.task, lambda: method.trunk, lambda channels: method.head)
