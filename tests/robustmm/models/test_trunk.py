"""LateTrunk with the shipped policies and fusions, against brute force."""

import pytest
import torch
from robustmm_plugins.encoders.mlp import MLPOptions, build_mlp
from robustmm_plugins.encoders.small_cnn import SmallCNNOptions, build_small_cnn
from robustmm_plugins.fusion.attention import Attention
from robustmm_plugins.fusion.concat import Concat
from robustmm_plugins.fusion.film import FiLM
from robustmm_plugins.fusion.gated import Gated
from robustmm_plugins.fusion.sum import Sum
from robustmm_plugins.missing.learned_token import LearnedToken
from robustmm_plugins.missing.zero_input import ZeroInput

from robustmm import MissingPolicy, Modality, Scaling, ShapeError
from robustmm.masks import combination_table
from robustmm.models.trunk import LateTrunk

FUSIONS = {
    "concat": Concat,
    "sum": lambda channels: Sum(channels, 4),
    "gated": lambda channels: Gated(channels, 4, None),
    "film": lambda channels: FiLM(channels, 4, None),
    "attention": lambda channels: Attention(channels, 4, 2),
}
POLICIES = {"zero_feature": lambda channels: MissingPolicy(), "zero_input": ZeroInput, "learned_token": LearnedToken}
ROWS = 5


def modality(index):
    """Vectors and pictures in turn, each with its own size."""
    if index % 2:
        return Modality(f"m{index}", "image", (1, 5, 4), Scaling("constants", (0.5,), (2.0,)))
    return Modality(f"m{index}", "vector", (3 + index,), Scaling("none"))


def encoder(modality, norm):
    if modality.kind == "image":
        return build_small_cnn(modality, **dict(SmallCNNOptions(widths=(3,))))
    return build_mlp(modality, **dict(MLPOptions(hidden=(4 + modality.shape[0],), norm=norm)))


def make_trunk(count=3, fusion="concat", policy="zero_feature", *, skip_absent=True, norm="batch", seed=0):
    torch.manual_seed(seed)
    modalities = [modality(index) for index in range(count)]
    encoders = {one.name: encoder(one, norm) for one in modalities}
    channels = {name: (one.channels[-1],) for name, one in encoders.items()}
    return LateTrunk(
        modalities, encoders, FUSIONS[fusion](channels), POLICIES[policy](channels), skip_absent=skip_absent
    )


def make_inputs(trunk, rows=ROWS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, *trunk.shapes[name], generator=generator) for name in trunk.modalities}


def with_statistics(trunk):
    """Let BatchNorm see something, so that its running statistics are not the initial ones."""
    trunk.train()
    trunk(make_inputs(trunk, seed=2), torch.ones(ROWS, len(trunk.modalities), dtype=torch.bool))
    return trunk.eval()


def spoilt(inputs, presence, value):
    """The inputs with ``value`` wherever a modality is absent."""
    return {
        name: x.masked_fill(~presence[:, column].view(-1, *[1] * (x.dim() - 1)), value)
        for column, (name, x) in enumerate(inputs.items())
    }


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("policy", POLICIES)
def test_late_trunk__refuse_equals_forward_for_every_combination(count, fusion, policy):
    trunk = with_statistics(make_trunk(count, fusion, policy))
    inputs = make_inputs(trunk)
    everything = torch.ones(ROWS, count, dtype=torch.bool)
    with torch.no_grad():
        features, _ = trunk(inputs, everything)
        for row in combination_table(trunk.modalities):
            presence = row.expand(ROWS, -1)
            _, expected = trunk(inputs, presence)
            torch.testing.assert_close(trunk.refuse(features, presence), expected)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("value", [float("nan"), 1e9])
def test_late_trunk__absent_input_changes_nothing_in_evaluation(fusion, policy, value):
    trunk = with_statistics(make_trunk(3, fusion, policy))
    inputs = make_inputs(trunk)
    presence = torch.cat([combination_table(trunk.modalities)[:4], torch.zeros(1, 3, dtype=torch.bool)])
    with torch.no_grad():
        _, (expected,) = trunk(inputs, presence)
        _, (got,) = trunk(spoilt(inputs, presence, value), presence)
    assert expected.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_late_trunk__skipped_absent_input_changes_neither_output_nor_gradient_in_training(fusion):
    presence = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0]]).bool()
    results = []
    for value in (0.0, float("nan")):
        trunk = make_trunk(3, fusion).train()
        _, (fused,) = trunk(spoilt(make_inputs(trunk), presence, value), presence)
        fused.square().sum().backward()
        grads = [p.grad for p in trunk.parameters() if p.grad is not None]
        results.append((fused.detach(), grads))
    (expected, expected_grads), (got, got_grads) = results
    assert expected.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(got_grads, expected_grads, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("policy", ["zero_feature", "learned_token"])
def test_late_trunk__skipping_absent_rows_changes_nothing_in_evaluation(fusion, policy):
    inputs = make_inputs(make_trunk())
    for presence in torch.rand(6, ROWS, 3, generator=torch.Generator().manual_seed(0)).gt(0.5):
        with torch.no_grad():
            on = with_statistics(make_trunk(3, fusion, policy))(inputs, presence)[1]
            off = with_statistics(make_trunk(3, fusion, policy, skip_absent=False))(inputs, presence)[1]
        torch.testing.assert_close(on, off)


@pytest.mark.parametrize("skip_absent", [True, False])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("policy", ["zero_feature", "learned_token"])
def test_late_trunk__modality_absent_from_the_batch_gives_its_encoder_zero_gradient(fusion, policy, skip_absent):
    trunk = make_trunk(3, fusion, policy, skip_absent=skip_absent).train()
    presence = torch.ones(ROWS, 3, dtype=torch.bool)
    presence[:, 1] = False
    _, (fused,) = trunk(make_inputs(trunk), presence)
    fused.square().sum().backward()
    groups = trunk.parameter_groups()
    assert all(p.grad is None or not p.grad.any() for p in groups["m1"])
    assert all(p.grad is not None and p.grad.isfinite().all() for name in ("m0", "m2") for p in groups[name])


def test_late_trunk__skipped_rows_stay_out_of_batch_norm():
    trunk = make_trunk(1).train()
    norm = trunk.encoders["m0"].stages[0][1]
    inputs = make_inputs(trunk)
    presence = torch.tensor([1, 0, 1, 0, 1]).bool().unsqueeze(1)
    trunk(inputs, presence)
    linear = trunk.encoders["m0"].stages[0][0]
    expected = 0.1 * linear(inputs["m0"][presence[:, 0]]).mean(dim=0)  # momentum 0.1 from 0
    torch.testing.assert_close(norm.running_mean, expected.detach())


def test_late_trunk__lone_row_is_encoded_with_the_whole_batch_in_training_alone():
    presence = torch.zeros(ROWS, 2, dtype=torch.bool)
    presence[:, 0] = True
    presence[2, 1] = True
    trunk = make_trunk(2).train()
    whole = make_trunk(2, skip_absent=False).train()
    inputs = make_inputs(trunk)
    torch.testing.assert_close(trunk(inputs, presence)[1], whole(inputs, presence)[1], rtol=0, atol=0)
    trunk.eval()
    calls = []
    trunk.encoders["m1"].register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    trunk(inputs, presence)
    assert calls == [1]


def test_late_trunk__absent_everywhere_does_not_run_the_encoder():
    trunk = make_trunk(2).eval()
    trunk.encoders["m1"].register_forward_pre_hook(lambda *_: pytest.fail("the encoder ran"))
    features, _ = trunk(make_inputs(trunk), torch.tensor([[True, False]]).expand(ROWS, -1))
    assert not features["m1"][0].any()


@pytest.mark.parametrize("fusion", ["concat", "sum"])
@pytest.mark.parametrize("policy", POLICIES)
def test_late_trunk__summands_add_up_to_the_fused_level(fusion, policy):
    trunk = with_statistics(make_trunk(3, fusion, policy))
    presence = combination_table(trunk.modalities)[:ROWS]
    features, (fused,) = trunk(make_inputs(trunk), presence)
    parts = trunk.summands(features, presence)
    torch.testing.assert_close(sum(part for (part,) in parts.values()), fused)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_late_trunk__learned_token_reaches_the_fused_level_and_learns(fusion):
    trunk = make_trunk(2, fusion, "learned_token").train()
    presence = torch.tensor([[True, False], [False, True], [True, True], [True, True], [True, True]])
    trunk(make_inputs(trunk), presence)[1][0].square().sum().backward()
    for token in trunk.policy.tokens.values():
        assert token.grad.any()


def test_late_trunk__zero_input_is_the_encoded_zero_after_scaling():
    trunk = with_statistics(make_trunk(2, "sum", "zero_input"))
    inputs = make_inputs(trunk)
    with torch.no_grad():
        _, got = trunk(inputs, torch.tensor([[True, False]]).expand(ROWS, -1))
        # constants scale by (x - 0.5) / 2, so a raw 0.5 is a scaled 0
        _, expected = trunk(inputs | {"m1": torch.full_like(inputs["m1"], 0.5)}, torch.ones(ROWS, 2, dtype=torch.bool))
    torch.testing.assert_close(got, expected)


def test_late_trunk__zero_input_cannot_refuse_in_training():
    trunk = make_trunk(2, policy="zero_input").train()
    presence = torch.ones(ROWS, 2, dtype=torch.bool)
    assert trunk.refuse(trunk(make_inputs(trunk), presence)[0], presence) is None


def test_late_trunk__edit_sees_features_after_the_policy_and_real_presence():
    trunk = make_trunk(2).eval()
    presence = torch.tensor([[True, False]]).expand(ROWS, -1)

    def edit(level, features, shown):
        assert level == 0
        assert not features["m1"].any()
        assert shown.equal(presence)
        return {name: 2 * feature for name, feature in features.items()}

    inputs = make_inputs(trunk)
    torch.testing.assert_close(trunk(inputs, presence, edit)[1][0], 2 * trunk(inputs, presence)[1][0])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_late_trunk__parameter_groups_are_the_encoders_and_disjoint(count):
    trunk = make_trunk(count)
    groups = trunk.parameter_groups()
    ids = [id(p) for group in groups.values() for p in group]
    assert list(groups) == list(trunk.modalities)
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in trunk.encoders.parameters()}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("policy", POLICIES)
def test_late_trunk__runs_and_learns_under_bfloat16_autocast(fusion, policy):
    trunk = make_trunk(3, fusion, policy).train()
    presence = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()
    inputs = make_inputs(trunk)
    with torch.autocast("cpu", torch.bfloat16):
        features, (fused,) = trunk(inputs, presence)
        again = trunk.refuse(features, presence)
    fused.float().square().sum().backward()
    assert fused.isfinite().all()
    assert all(p.grad.isfinite().all() for p in trunk.parameters() if p.grad is not None)
    assert again is None or again[0].equal(fused)


def test_forward__batch_of_one_that_batch_norm_cannot_train_on_says_what_to_change():
    trunk = make_trunk(1, norm="batch").train()
    with pytest.raises(
        ShapeError, match=r"encoder of m0 cannot train on a batch of one .* data\.batch_size of at least 2"
    ):
        trunk(make_inputs(trunk, rows=1), torch.ones(1, 1).bool())
    assert trunk.eval()(make_inputs(trunk, rows=1), torch.ones(1, 1).bool())[1][0].shape[0] == 1
