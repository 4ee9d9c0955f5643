"""The formula, worked by hand."""

import torch
from robustmm_max_fusion import MaxFusion


def identity_fusion() -> MaxFusion:
    fusion = MaxFusion({"a": (2,), "b": (2,)}, dim=2)
    for projection in fusion.projections.values():
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    return fusion


def test_max_fusion__ignores_absent_modalities_and_is_zero_without_any() -> None:
    features = {"a": torch.tensor([[1.0, -4.0]]).repeat(4, 1), "b": torch.tensor([[-3.0, 2.0]]).repeat(4, 1)}
    presence = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    expected = torch.tensor([[1.0, 2.0], [1.0, -4.0], [-3.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(identity_fusion()(0, features, presence), expected)
