import pytest
import torch
from robustmm_plugins.missing.learned_token import TOKEN_STD, LearnedToken
from robustmm_plugins.missing.zero_feature import build_zero_feature
from robustmm_plugins.missing.zero_input import ZeroInput

CHANNELS = {"rgb": (3, 5), "depth": (2, 5)}
POLICIES = {"zero_feature": build_zero_feature, "zero_input": ZeroInput, "learned_token": LearnedToken}
PRESENT = torch.tensor([True, False])


@pytest.mark.parametrize("name", POLICIES)
def test_policy__leaves_present_rows_alone(name):
    policy = POLICIES[name](CHANNELS)
    x, feature = torch.randn(2, 4), torch.randn(2, 3)
    assert policy.on_input(x, PRESENT, modality="rgb")[0].equal(x[0])
    assert policy.on_feature(feature, PRESENT, modality="rgb", level=0)[0].equal(feature[0])


@pytest.mark.parametrize("grid", [(), (2, 4)])
def test_zero_feature__is_zero_where_absent(grid):
    feature = torch.full((2, 3, *grid), float("nan"))
    assert not build_zero_feature(CHANNELS).on_feature(feature, PRESENT, modality="rgb", level=0)[1].any()


def test_zero_input__is_zero_where_absent_and_keeps_what_the_encoder_made_of_it():
    policy = ZeroInput(CHANNELS)
    x = torch.full((2, 3, 4), float("nan"))
    assert not policy.on_input(x, PRESENT, modality="rgb")[1].any()
    feature = torch.randn(2, 3)
    assert policy.on_feature(feature, PRESENT, modality="rgb", level=0) is feature
    assert policy.encodes_absent


@pytest.mark.parametrize("grid", [(), (2, 4)])
@pytest.mark.parametrize(("modality", "level", "width"), [("rgb", 0, 3), ("rgb", 1, 5), ("depth", 0, 2)])
def test_learned_token__is_one_vector_per_modality_and_level(modality, level, width, grid):
    policy = LearnedToken(CHANNELS)
    shown = policy.on_feature(torch.randn(2, width, *grid), PRESENT, modality=modality, level=level)
    token = policy.tokens[f"{modality}_{level}"]
    assert shown[1].equal(token.view(width, *[1] * len(grid)).expand(width, *grid))
    shown.sum().backward()
    torch.testing.assert_close(token.grad, torch.full((width,), float(shown[1, 0].numel())))


def test_learned_token__starts_small():
    torch.manual_seed(0)
    (token,) = LearnedToken({"rgb": (5000,)}).parameters()
    assert token.std().item() == pytest.approx(TOKEN_STD, rel=0.05)
