import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.heads.linear import Linear
from robustmm_plugins.heads.mlp_head import MLPHead, MLPHeadOptions
from torch.nn.functional import interpolate

HEADS = {
    "linear": lambda channels, num_outputs: Linear(channels, num_outputs),
    "mlp_head": lambda channels, num_outputs: MLPHead(channels, num_outputs, (6,), 0.1),
}


@pytest.mark.parametrize("name", HEADS)
def test_head__predicts_one_vector_per_sample_from_the_last_level(name):
    head = HEADS[name]((9, 4), 3).eval()
    vector = torch.randn(2, 4)
    assert head([torch.randn(2, 9), vector], ()).shape == (2, 3)
    torch.testing.assert_close(head([vector[:, :, None, None].expand(-1, -1, 5, 2)], ()), head([vector], ()))


@pytest.mark.parametrize("name", HEADS)
def test_head__predicts_one_map_of_the_size_of_the_target(name):
    head = HEADS[name]((4,), 3).eval()
    vector = torch.randn(2, 4)
    logits = head([vector[:, :, None, None].expand(-1, -1, 2, 3)], (8, 9))
    torch.testing.assert_close(logits, head([vector], ())[:, :, None, None].expand(-1, -1, 8, 9))


@pytest.mark.parametrize("grid", [(), (2, 3)], ids=["vectors", "maps"])
def test_linear__parts_with_shares_of_the_bias_add_up_to_the_logits(grid):
    head = Linear((4,), 3)
    parts = [torch.randn(2, 4, *grid) for _ in range(3)]
    split = [head.linear_part([part], torch.tensor([1 / 3, 1 / 3])) for part in parts]
    whole = head([sum(parts)], grid)
    torch.testing.assert_close(sum(split), whole)


def test_linear__resized_parts_add_up_too():
    head = Linear((4,), 3)
    parts = [torch.randn(2, 4, 2, 3) for _ in range(2)]
    split = [
        interpolate(head.linear_part([part], torch.tensor([0.5, 0.5])), (7, 5), mode="bilinear", align_corners=False)
        for part in parts
    ]
    torch.testing.assert_close(sum(split), head([sum(parts)], (7, 5)))


def test_mlp_head__has_no_linear_part():
    assert HEADS["mlp_head"]((4,), 3).linear_part([torch.randn(2, 4)], torch.ones(2)) is None


def test_mlp_head__needs_a_hidden_layer():
    with pytest.raises(ValidationError, match="at least 1 item"):
        MLPHeadOptions(hidden=())
