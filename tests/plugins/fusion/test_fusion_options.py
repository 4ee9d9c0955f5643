import pytest
from pydantic import ValidationError
from robustmm_plugins.fusion.attention import Attention, AttentionOptions
from robustmm_plugins.fusion.film import FiLM
from robustmm_plugins.fusion.gated import Gated
from robustmm_plugins.fusion.sum import SumOptions

from robustmm import RobustmmError, ShapeError

CHANNELS = {"rgb": (3,), "depth": (4,)}


def test_attention__heads_must_divide_dim():
    with pytest.raises(ValidationError, match="dim must be a multiple of heads, got 10 and 4"):
        AttentionOptions(dim=10, heads=4)


def test_attention__heads_must_divide_the_width_of_every_level_where_dim_is_null():
    assert AttentionOptions(dim=None, heads=4).dim is None
    with pytest.raises(ShapeError, match="'attention', level 1: its width 6 is no multiple of 4 heads; set dim"):
        Attention({"rgb": (4, 6), "depth": (3, 3)}, None, 4)


def test_sum__dim_must_be_positive():
    with pytest.raises(ValidationError, match="greater than 0"):
        SumOptions(dim=0)


@pytest.mark.parametrize(
    ("build", "option"), [(lambda n: Gated(CHANNELS, 4, n), "gate"), (lambda n: FiLM(CHANNELS, 4, n), "condition")]
)
def test_fusion__unknown_modality_in_an_option_suggests_the_closest(build, option):
    with pytest.raises(RobustmmError, match=rf"{option}: no modality 'dept' - did you mean 'depth'\?.*rgb, depth"):
        build("dept")


def test_gated__gate_alone_has_nothing_to_gate():
    with pytest.raises(RobustmmError, match="gate 'rgb' is the only modality and has nothing to gate"):
        Gated({"rgb": (3,)}, 4, "rgb")


def test_film__conditions_on_the_first_column_by_default():
    assert FiLM(CHANNELS, 4, None).condition == "rgb"
    assert FiLM(CHANNELS, 4, "depth").others == ("rgb",)
