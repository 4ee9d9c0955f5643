from __future__ import annotations

import numpy as np
import pytest
import torch

from robustmm.report.palette import INVALID, RIGHT, VALUE_COLOURS, WRONG
from robustmm.report.pictures import (
    fitting_size,
    picture_score,
    range_words,
    resize,
    resize_labels,
    robust_range,
    show_classes,
    show_errors,
    show_input,
    stripes,
)
from robustmm.types import VOID, Modality, Scaling

COLOURS = np.array([[10, 20, 30], [200, 100, 0]], dtype=np.uint8)
LOW, HIGH = list(VALUE_COLOURS[0]), list(VALUE_COLOURS[-1])


def image(channels: int, unit: str = "", invalid: float | None = None) -> Modality:
    return Modality("depth", "image", (channels, 2, 3), Scaling(invalid=invalid), unit)


def test_show_input__colours_of_8_bits_stay_as_they_are() -> None:
    value = torch.arange(18, dtype=torch.uint8).view(3, 2, 3) * 14
    shown = show_input(image(3), value)
    assert shown.pixels.tolist() == value.permute(1, 2, 0).tolist()
    assert (shown.note, shown.mapped) == ("", False)


@pytest.mark.parametrize(("unit", "factor"), [("0-255", 1.0), ("0-1", 1 / 255)])
def test_show_input__unit_tells_the_range_of_colours(unit: str, factor: float) -> None:
    value = torch.arange(18.0).view(3, 2, 3)
    shown = show_input(image(3, unit), value * factor)
    assert shown.pixels.tolist() == value.permute(1, 2, 0).tolist()
    assert shown.note == ""


def test_show_input__other_colours_share_one_range_and_say_it() -> None:
    value = torch.stack([torch.full((2, 3), -2.0), torch.full((2, 3), 0.0), torch.full((2, 3), 2.0)])
    shown = show_input(image(3), value)
    assert shown.pixels[0, 0].tolist() == [0, 128, 255]
    assert shown.note == "-2.00 to 2.00"


def test_show_input__one_channel_runs_over_its_robust_range() -> None:
    value = torch.arange(1000.0).view(1, 20, 50)
    value[0, 0, 0] = -1e6  # an outlier does not wash the others out
    shown = show_input(image(1, "mm"), value)
    assert shown.pixels[0, 0].tolist() == LOW
    assert shown.pixels[-1, -1].tolist() == HIGH
    assert 0.4 < (shown.pixels == LOW).all(axis=2).mean() * 20 < 0.8  # about 2 percent and their mixing
    assert shown.note == "20 to 979 mm"
    assert shown.mapped


def test_show_input__values_not_measured_have_a_tone_of_their_own() -> None:
    value = torch.tensor([[[0.0, 5.0, 6.0], [float("nan"), 7.0, 8.0]]])
    shown = show_input(image(1, invalid=0.0), value)
    grey = (shown.pixels == INVALID).all(axis=2)
    assert grey.tolist() == [[True, False, False], [True, False, False]]
    assert shown.note == "5.06 to 7.94"  # 2 and 98 percent of the way from 5 to 8


def test_show_input__nothing_measured_is_said() -> None:
    shown = show_input(image(1, "mm", invalid=0.0), torch.zeros(1, 2, 3))
    assert (shown.pixels == INVALID).all()
    assert shown.note == "nothing measured"


def test_show_input__several_channels_are_averaged_and_it_is_said() -> None:
    value = torch.stack([torch.zeros(2, 3), torch.tensor([[2.0, 2.0, 2.0], [6.0, 6.0, 6.0]])])
    shown = show_input(image(2), value)
    assert shown.note == "mean of 2 channels, 1.00 to 3.00"
    assert shown.pixels[0, 0].tolist() == LOW
    assert shown.pixels[1, 0].tolist() == HIGH


def test_show_input__a_channel_that_is_not_measured_stays_out_of_the_mean() -> None:
    value = torch.tensor([[[-1.0, 4.0]], [[4.0, 8.0]]])
    shown = show_input(image(2, invalid=-1.0), value)
    assert shown.note == "mean of 2 channels, 4.04 to 5.96"  # 4, and (4 + 8) / 2


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_show_input__constant_values_are_no_division_by_zero(channels: int) -> None:
    assert show_input(image(channels), torch.full((channels, 2, 3), 7.0)).pixels.shape == (2, 3, 3)


def test_robust_range__without_values() -> None:
    assert robust_range(np.array([])) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(621.14, 3083.2, "621 to 3083"), (0.0, 0.0123, "0.0000 to 0.0123"), (-2, 3, "-2.00 to 3.00")],
)
def test_range_words__are_as_exact_as_the_range_needs(low: float, high: float, words: str) -> None:
    assert range_words(low, high) == words


@pytest.mark.parametrize(
    ("size", "box", "fitting"),
    [((480, 640), (150, 200), (150, 200)), ((1, 1000), (50, 200), (1, 200)), ((300, 10), (90, 90), (90, 3))],
)
def test_fitting_size__keeps_the_shape(size, box, fitting) -> None:
    assert fitting_size(size, box) == fitting


def test_resize__averages_where_it_shrinks_and_repeats_where_it_grows() -> None:
    pixels = np.array([[[0] * 3, [100] * 3]], dtype=np.uint8)
    assert resize(pixels, (1, 1)).tolist() == [[[50] * 3]]
    assert resize(pixels, (2, 4))[:, :, 0].tolist() == [[0, 0, 100, 100]] * 2


def test_resize_labels__makes_no_class_up() -> None:
    labels = torch.tensor([[0, 2, 255], [2, 0, 2], [0, 2, 0]])
    assert resize_labels(labels, (3, 3)).tolist() == labels.tolist()
    assert resize_labels(labels, (6, 6))[::2, ::2].tolist() == labels.tolist()
    assert set(np.unique(resize_labels(labels, (2, 5)))) <= {0, 2, 255}
    assert resize_labels(labels, (1, 1)).tolist() == [[0]]


def test_show_classes__void_and_no_class_are_striped() -> None:
    shown = show_classes(np.array([[0, 1], [VOID, -1]]), COLOURS)
    assert shown[0].tolist() == COLOURS.tolist()
    assert shown[1].tolist() == stripes((2, 2))[1].tolist()


def test_show_classes__void_stays_void_with_more_classes_than_its_number() -> None:
    many = np.zeros((300, 3), dtype=np.uint8)
    assert show_classes(np.array([[VOID]]), many).tolist() == stripes((1, 1)).tolist()


def test_show_errors__right_wrong_and_void() -> None:
    shown = show_errors(np.array([[0, 1, -1, 1]]), np.array([[0, 0, 0, VOID]]))
    assert shown[0, :3].tolist() == [list(RIGHT), list(WRONG), list(WRONG)]
    assert shown[0, 3].tolist() == stripes((1, 4))[0, 3].tolist()


def test_picture_score__is_over_the_classes_of_the_label() -> None:
    target = torch.tensor([[0, 0, 1, VOID]])
    prediction = torch.tensor([[0, 2, 1, 2]], dtype=torch.int16)
    # class 0: 1 of 2, class 1: 1 of 1; class 2 is not in the label
    assert picture_score(prediction, target, 3) == pytest.approx(0.75)


def test_picture_score__all_void_has_none() -> None:
    assert picture_score(torch.zeros(1, 2), torch.full((1, 2), VOID), 3) is None
