"""What stands in for a modality that is not there."""

from __future__ import annotations

from torch import Tensor, nn

from robustmm.masks import where_present


class MissingPolicy(nn.Module):
    """Identity on inputs, zero on features of absent rows: ``zero_feature``, the field's default.

    The policy's name stands in every result row: "missing" means one named thing.

    Attributes:
        encodes_absent: True where absent rows must run through their encoder, because `on_input` decides what it sees.
            False lets the trunk skip those rows. With True, `on_input` must give absent rows one and the same input.
        stands_in: True where what the policy gives takes an absent modality's place for good, so that a fusion treats
            the modality as present. False lets a fusion leave it out: a sum drops its term, attention masks it.
    """

    encodes_absent: bool = False
    stands_in: bool = False

    def on_input(self, x: Tensor, present: Tensor, *, modality: str) -> Tensor:
        """Replace absent rows of an input: x (B, ...), present (B,) bool."""
        return x

    def on_feature(self, feature: Tensor, present: Tensor, *, modality: str, level: int) -> Tensor:
        """Replace absent rows of a feature: (B, D) or (B, D, ...), present (B,) bool."""
        return where_present(feature, present, feature.new_zeros(()))
