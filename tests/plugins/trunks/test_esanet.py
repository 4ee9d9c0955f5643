import math
from itertools import pairwise

import pytest
import torch
from robustmm_plugins.fusion.se_add import SEAdd
from robustmm_plugins.missing.learned_token import LearnedToken
from robustmm_plugins.missing.zero_input import ZeroInput
from robustmm_plugins.trunks.esanet import ESANetOptions, build_esanet
from torch import nn

from robustmm import (
    Encoder,
    Fusion,
    MissingPolicy,
    Modality,
    RobustmmError,
    Scaling,
    ShapeError,
    TrunkParts,
)
from robustmm.masks import combination_table

WIDTHS = (4, 5, 6, 7, 8)
SIZE = (37, 50)
NAMES = ("rgb", "depth", "ir")
SMALL = {"skip_channels": (5, 9, 11), "context_channels": 10, "bins": (1, 2)}


def pyramid(widths=WIDTHS, stride=2):
    stages = nn.ModuleList(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise((2, *widths))
    )
    return Encoder(stages, widths, tuple(stride**level for level in range(1, len(widths) + 1)))


def trunk_of(names=NAMES, *, size=SIZE, fusion=None, policy=None, encoders=None, skip_absent=True, **options):
    modalities = tuple(Modality(name, "image", (2, *size), Scaling("none")) for name in names)
    parts = TrunkParts(
        modalities,
        True,
        make_encoder=(lambda name: encoders[name]) if encoders else (lambda name: pyramid()),
        make_fusion=fusion or (lambda channels: SEAdd(channels, 2, False)),
        make_policy=policy or (lambda channels: MissingPolicy()),
        skip_absent=skip_absent,
    )
    torch.manual_seed(0)
    return build_esanet(parts, **ESANetOptions(**SMALL | options).model_dump())


def inputs_of(names=NAMES, rows=4, size=SIZE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, 2, *size, generator=generator) for name in names}


TABLE = combination_table(NAMES)  # (7, 3)


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_esanet__gives_adapted_levels_and_context_of_any_size(count):
    names = NAMES[:count]
    trunk = trunk_of(names)
    features, fused = trunk(inputs_of(names), torch.ones(4, count, dtype=torch.bool))
    assert trunk.fused_channels == (5, 9, 11, 10)
    assert [tuple(level.shape[1:]) for level in fused] == [(5, 10, 13), (9, 5, 7), (11, 3, 4), (10, 2, 2)]
    for name in names:
        assert [level.shape[1] for level in features[name]] == list(WIDTHS)


def test_esanet__level_that_has_its_channels_is_not_adapted():
    trunk = trunk_of()
    assert isinstance(trunk.neck.adapters[0], nn.Identity)  # 5 channels, as wanted
    assert isinstance(trunk.neck.adapters[1], nn.Sequential)


def test_esanet__without_context_the_last_map_stays_as_it_is():
    trunk = trunk_of(context="none").eval()
    seen = []
    trunk.fusion.register_forward_hook(lambda module, given, fused: seen.append(fused))
    fused = trunk(inputs_of(), torch.ones(4, 3, dtype=torch.bool))[1]
    assert trunk.fused_channels == (5, 9, 11, 8)
    assert torch.equal(fused[-1], seen[-1])


@torch.no_grad()
def test_esanet__carrier_goes_on_from_fused_maps_and_the_others_from_their_own():
    trunk = trunk_of(carrier="depth").eval()
    inputs, presence = inputs_of(), torch.ones(4, 3, dtype=torch.bool)
    maps = []
    trunk.fusion.register_forward_hook(lambda module, given, fused: maps.append(fused))
    features, _ = trunk(inputs, presence)
    assert_equal(features["rgb"], trunk.encoders["rgb"](inputs["rgb"]))
    stages = trunk.encoders["depth"].stages
    assert_equal(features["depth"], [stages[0](inputs["depth"]), *(stages[i + 1](maps[i]) for i in range(4))])


@torch.no_grad()
def test_esanet__features_of_the_others_do_not_know_of_presence():
    trunk = trunk_of(skip_absent=False).eval()
    inputs = inputs_of()
    complete = trunk(inputs, torch.ones(4, 3, dtype=torch.bool))[0]
    masked = trunk(inputs, torch.tensor([[True, False, False]] * 4))[0]
    assert_equal(masked["depth"], complete["depth"])
    assert torch.equal(masked["rgb"][0], complete["rgb"][0])
    assert not torch.allclose(masked["rgb"][1], complete["rgb"][1])


@pytest.mark.parametrize("policy", [None, LearnedToken], ids=["zero_feature", "learned_token"])
@pytest.mark.parametrize("carrier", ["rgb", "ir"])
@torch.no_grad()
def test_esanet__skipping_absent_rows_changes_nothing_in_evaluation(policy, carrier):
    skipping = trunk_of(policy=policy, carrier=carrier).eval()
    encoding = trunk_of(policy=policy, carrier=carrier, skip_absent=False).eval()
    inputs, presence = inputs_of(rows=7), TABLE
    assert_equal(skipping(inputs, presence)[1], encoding(inputs, presence)[1])
    for combination in TABLE:  # a modality may be absent from the whole batch
        whole = combination.expand(7, 3)
        assert_equal(skipping(inputs, whole)[1], encoding(inputs, whole)[1])


@torch.no_grad()
def test_esanet__runs_a_modality_and_the_carriers_later_stages_on_present_rows_alone():
    trunk = trunk_of(("rgb", "depth")).eval()
    rows = {}
    for name in ("rgb", "depth"):
        for level, stage in enumerate(trunk.encoders[name].stages):
            stage.register_forward_hook(
                lambda module, given, result, key=(name, level): rows.__setitem__(key, len(given[0]))
            )
    trunk(inputs_of(("rgb", "depth")), torch.tensor([[True, False], [False, True], [True, True], [True, False]]))
    assert rows == {(name, level): {"rgb": 3, "depth": 2}[name] for name in ("rgb", "depth") for level in range(5)}


@pytest.mark.parametrize("absent", [0, 1], ids=["carrier", "other"])
def test_esanet__modality_absent_from_the_batch_gets_no_gradient_and_no_statistics(absent):
    trunk = trunk_of(("rgb", "depth"))
    presence = torch.ones(4, 2, dtype=torch.bool)
    presence[:, absent] = False
    fused = trunk(inputs_of(("rgb", "depth")), presence)[1]
    torch.autograd.backward(sum(level.square().sum() for level in fused))
    for column, (name, group) in enumerate(trunk.parameter_groups().items()):
        counts = {int(one) for key, one in trunk.encoders[name].named_buffers() if key.endswith("tracked")}
        assert counts == ({0} if column == absent else {1})
        assert all((parameter.grad is None) == (column == absent) for parameter in group)


def test_esanet__lone_present_row_trains_on_the_whole_batch():
    trunk = trunk_of(("rgb", "depth"))
    seen = []
    trunk.encoders["rgb"].stages[3].register_forward_hook(lambda module, given, result: seen.append(len(given[0])))
    trunk(inputs_of(("rgb", "depth")), torch.tensor([[True, True], [False, True], [False, True], [False, True]]))
    assert seen == [4]


def test_esanet__row_that_shows_nothing_is_finite():
    trunk = trunk_of()
    fused = trunk(inputs_of(), torch.tensor([[True] * 3, [False] * 3, [True] * 3, [True, False, True]]))[1]
    assert all(level.isfinite().all() for level in fused)


@pytest.mark.parametrize("policy", [None, LearnedToken, ZeroInput], ids=["zero_feature", "learned_token", "zero_input"])
@torch.no_grad()
def test_esanet__refusing_equals_encoding_anew_and_leaves_the_features(policy):
    trunk = trunk_of(policy=policy).eval()
    inputs, presence = inputs_of(rows=7), TABLE
    features, _ = trunk(inputs, torch.ones_like(presence))
    before = {name: [level.clone() for level in levels] for name, levels in features.items()}
    assert_equal(trunk.refuse(features, presence), trunk(inputs, presence)[1])
    for name, levels in features.items():
        assert len(levels) == 5
        assert all(torch.equal(a, b) for a, b in zip(levels, before[name], strict=True))


def test_esanet__refuses_anew_in_evaluation_alone():
    trunk = trunk_of()
    features, _ = trunk(inputs_of(), torch.ones(4, 3, dtype=torch.bool))
    assert trunk.refuse(features, torch.ones(4, 3, dtype=torch.bool)) is None


@torch.no_grad()
def test_esanet__does_not_refuse_stand_ins_for_inputs_of_another_size():
    trunk = trunk_of(policy=ZeroInput).eval()
    features, _ = trunk(inputs_of(rows=7, size=(40, 64)), TABLE)
    assert trunk.refuse(features, TABLE) is None


@torch.no_grad()
def test_esanet__an_edit_reaches_what_the_carrier_goes_on_from():
    trunk = trunk_of(("rgb",)).eval()
    inputs, presence, levels = inputs_of(("rgb",)), torch.ones(4, 1, dtype=torch.bool), []

    def silence(level, features, presence):
        levels.append(level)
        return {name: torch.zeros_like(feature) for name, feature in features.items()} if level == 0 else features

    features, _ = trunk(inputs, presence, silence)
    assert levels == [0, 1, 2, 3, 4]
    blank = trunk.encoders["rgb"].stages[1](torch.zeros(4, 4, 19, 25))
    torch.testing.assert_close(features["rgb"][1], blank)


def test_esanet__carriers_stages_are_the_carriers_and_the_rest_is_shared():
    trunk = trunk_of(carrier="ir")
    groups = trunk.parameter_groups()
    assert {name: len(group) for name, group in groups.items()} == dict.fromkeys(NAMES, 20)
    owned = {id(parameter) for group in groups.values() for parameter in group}
    shared = {name.partition(".")[0] for name, one in trunk.named_parameters() if id(one) not in owned}
    assert shared == {"fusion", "neck"}


def test_esanet__appm_reference_is_the_pictures_size_or_the_options():
    encoders = {name: pyramid() for name in NAMES}
    assert trunk_of(size=(96, 160), context="appm", encoders=encoders).neck.context.reference == (3, 5)
    given = trunk_of(context="appm", context_size=(512, 1024), encoders=encoders)
    assert given.neck.context.reference == (16, 32)
    assert trunk_of(encoders=encoders).neck.context.reference is None


def test_esanet__he_init_is_for_adapters_and_context():
    std = math.sqrt(2 / 512)  # fan out of a 1x1 convolution to 512 channels
    plain, he = (trunk_of(skip_channels=(128, 256, 512), context_channels=512, he_init=on) for on in (False, True))
    assert float(he.neck.adapters[2][0].weight.detach().std()) == pytest.approx(std, rel=0.05)
    assert float(he.neck.context.join[0].weight.detach().std()) == pytest.approx(std, rel=0.05)
    assert float(plain.neck.adapters[2][0].weight.detach().std()) == pytest.approx(1 / math.sqrt(3 * 7), rel=0.05)


def test_esanet__unknown_carrier_is_named_with_the_closest():
    with pytest.raises(RobustmmError, match=r"carrier: no modality 'dept' - did you mean 'depth'\? \(modalities: rgb"):
        trunk_of(carrier="dept")


class Doubling(Fusion):
    """Gives twice the channels."""

    def __init__(self, channels):
        super().__init__(tuple(2 * width for width in channels["rgb"]))


def test_esanet__fusion_that_changes_the_channels_is_refused():
    with pytest.raises(ShapeError, match=r"level 0: the fusion gives 8 channels, .* carrier rgb takes 4; use a fusion"):
        trunk_of(fusion=Doubling)


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ([pyramid(), pyramid(WIDTHS[:4])], "equally many levels, got rgb 5, depth 4"),
        ([pyramid(), Encoder(nn.ModuleList([nn.Flatten()] * 5), WIDTHS, (0,) * 5)], "those of depth give vectors"),
        (
            [Encoder(nn.ModuleList([nn.Identity()]), WIDTHS, (2, 4, 8, 16, 32)), pyramid()],
            "the encoder of the carrier rgb cannot be entered behind each stage: it has 1 stages for 5 levels",
        ),
        ([pyramid(WIDTHS[:3]), pyramid(WIDTHS[:3])], "3 skip_channels and the context need at least 4 levels"),
    ],
    ids=["levels", "vectors", "stages", "too_few"],
)
def test_esanet__encoders_that_cannot_be_fused_stage_by_stage_are_refused(encoders, message):
    with pytest.raises(ShapeError, match=message):
        trunk_of(
            ("rgb", "depth"),
            encoders=dict(zip(("rgb", "depth"), encoders, strict=True)),
            fusion=lambda channels: SEAdd({"rgb": channels["rgb"]}, 2, False),
        )


def test_esanet__modalities_of_different_sizes_are_refused():
    inputs = {**inputs_of(("rgb",)), **inputs_of(("depth",), size=(20, 50))}
    with pytest.raises(ShapeError, match="level 0 is rgb 19x25, depth 10x25; fusion needs maps of one size"):
        trunk_of(("rgb", "depth"))(inputs, torch.ones(4, 2, dtype=torch.bool))


def test_esanet__batch_of_one_cannot_train_and_says_so():
    with pytest.raises(ShapeError, match=r"cannot train on a batch of one sample .* data.batch_size of at least 2"):
        trunk_of(("rgb",))(inputs_of(("rgb",), rows=1), torch.ones(1, 1, dtype=torch.bool))
