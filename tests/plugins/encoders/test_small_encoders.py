import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.encoders.cnn1d import CNN1dOptions, build_cnn1d
from robustmm_plugins.encoders.mlp import MLPOptions, build_mlp
from robustmm_plugins.encoders.small_cnn import SmallCNNOptions, build_small_cnn

from robustmm import Modality, ShapeError


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_mlp__one_vector_level_of_the_last_width(norm):
    options = MLPOptions(hidden=(7, 3), dropout=0.5, norm=norm)
    built = build_mlp(Modality("v", "vector", (5,)), **dict(options))
    (level,) = built(torch.randn(4, 5))
    assert level.shape == (4, 3)
    assert (built.channels, built.reductions) == ((3,), (0,))


def test_mlp__is_the_written_formula():
    built = build_mlp(Modality("v", "vector", (2,)), **dict(MLPOptions(hidden=(2,))))
    with torch.no_grad():
        built.stages[0][0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        built.stages[0][0].bias.copy_(torch.tensor([0.5, 0.0]))
    # hand-worked: ReLU([1 + 4 + .5, -2])
    torch.testing.assert_close(built(torch.tensor([[1.0, 2.0]]))[0], torch.tensor([[5.5, 0.0]]))


@pytest.mark.parametrize("length", [1, 2, 7, 64, 101])
def test_cnn1d__halves_any_length_rounded_up(length):
    built = build_cnn1d(Modality("imu", "sequence", (3, length)), **dict(CNN1dOptions(widths=(4, 6, 8), dropout=0.1)))
    lengths = [level.shape for level in built(torch.randn(2, 3, length))]
    halves = [-(-length // reduction) for reduction in built.reductions]
    assert lengths == [(2, width, half) for width, half in zip(built.channels, halves, strict=True)]


@pytest.mark.parametrize("grid", [(1, 1), (15, 17), (16, 64), (33, 2)])
def test_small_cnn__halves_any_grid_rounded_up(grid):
    built = build_small_cnn(Modality("p", "image", (2, *grid)), **dict(SmallCNNOptions(widths=(4, 6), dropout=0.1)))
    shapes = [level.shape for level in built(torch.randn(2, 2, *grid))]
    assert shapes == [
        (2, width, -(-grid[0] // reduction), -(-grid[1] // reduction))
        for width, reduction in zip(built.channels, built.reductions, strict=True)
    ]


def test_small_cnn__convolutions_start_as_kaiming_fan_out():
    torch.manual_seed(0)
    built = build_small_cnn(Modality("p", "image", (64, 8, 8)), **dict(SmallCNNOptions(widths=(64,))))
    # closed form: deviation sqrt(2 / (64 output channels * 9 positions)) = 0.0589
    assert built.stages[0][0].weight.std().item() == pytest.approx(0.0589, rel=0.02)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (MLPOptions, {"hidden": ()}, "at least 1 item"),
        (MLPOptions, {"dropout": 1.0}, "less than 1"),
        (MLPOptions, {"width": 3}, "Extra inputs"),
        (CNN1dOptions, {"kernel_size": 4}, "must be odd, got 4"),
        (SmallCNNOptions, {"widths": (0,)}, "greater than 0"),
    ],
)
def test_small_encoders__refuse_impossible_options(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)


@pytest.mark.parametrize(
    ("build", "options", "layout"),
    [
        (build_mlp, MLPOptions, r"\(D,\)"),
        (build_cnn1d, CNN1dOptions, r"\(D, T\)"),
        (build_small_cnn, SmallCNNOptions, r"\(D, H, W\)"),
    ],
)
def test_small_encoders__refuse_another_rank(build, options, layout):
    with pytest.raises(
        ShapeError, match=rf"takes samples of shape {layout}, modality 'x' \(image\) has \(1, 2, 3, 4\)"
    ):
        build(Modality("x", "image", (1, 2, 3, 4)), **dict(options()))


def test_small_cnn__of_full_size_keeps_the_grid_once():
    picture = Modality("rgb", "image", (3, 13, 10))
    encoder = build_small_cnn(picture, widths=(4, 5, 6), dropout=0.0, full_size=True)
    assert encoder.reductions == (1, 2, 4)
    levels = encoder(torch.randn(2, 3, 13, 10))
    assert [tuple(level.shape[1:]) for level in levels] == [(4, 13, 10), (5, 7, 5), (6, 4, 3)]
