"""Checkpoints: what goes in comes out, a crash leaves the old file, and a bad file is told from a good one."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from robustmm import CheckpointError
from robustmm.engine import checkpoint


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert type(one) is type(other)
        assert one == other


TENSORS = st.sampled_from(
    [
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.arange(6).view(2, 3).T,
        torch.tensor([True, False]),
        torch.tensor([float("nan")]).to(torch.bfloat16).nan_to_num(2.0),
    ]
)
WORDS = st.text(st.sampled_from("a0/.:_"), max_size=4) | st.sampled_from(["int:3", "__tensor__", "str:x", "0"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | TENSORS
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(-2, 12), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_pack__any_tree_comes_back_through_json(tree):
    tensors: dict[str, torch.Tensor] = {}
    header = json.dumps(checkpoint.pack(tree, tensors))
    assert_same(tree, checkpoint.unpack(json.loads(header), tensors))


def test_pack__two_places_that_read_alike_stay_apart():
    tree = {"a/b": torch.tensor(1.0), "a": {"b": torch.tensor(2.0)}, 0: torch.tensor(3.0), "0": torch.tensor(4.0)}
    tensors: dict[str, torch.Tensor] = {}
    assert_same(tree, checkpoint.unpack(checkpoint.pack(tree, tensors), tensors))


def test_pack__takes_a_copy():
    weight, tensors = torch.zeros(2), {}
    checkpoint.pack({"w": weight}, tensors)
    weight += 1
    assert not tensors["/w"].any()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, {"b": {1, 2}}]}, "cannot save /a/1/b: set is neither a tensor nor JSON"),
        (object(), "cannot save the state: object is neither a tensor nor JSON"),
        ({"a": {("rgb", "depth"): 1}}, "cannot save /a: key ('rgb', 'depth') is neither a string nor an integer"),
        ({True: 1}, "cannot save the state: key True is neither a string nor an integer"),
    ],
)
def test_pack__names_what_cannot_be_saved(tree, message):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.pack(tree, {})
    assert str(caught.value) == message


def test_save__optimizer_state_comes_back_to_the_bit(tmp_path):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "deep" / "last.safetensors", {"optimizer": optimizer.state_dict(), "epoch": 3})
    loaded = checkpoint.load(tmp_path / "deep" / "last.safetensors")
    assert loaded["epoch"] == 3
    assert_same(optimizer.state_dict(), loaded["optimizer"])
    again = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    again.load_state_dict(loaded["optimizer"])
    again.step()


def test_save__writes_the_plain_values_beside_it_for_people(tmp_path):
    checkpoint.save(tmp_path / "best.safetensors", {"epoch": 3, "score": 0.5, "weights": {"w": torch.ones(1)}})
    assert json.loads((tmp_path / "best.json").read_text()) == {"epoch": 3, "score": 0.5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


def test_save__crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"epoch": 1, "w": torch.ones(3)})

    def half(tensors, filename, metadata):
        filename.write_bytes(b"\x40\x00")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"epoch": 2, "w": torch.zeros(3)})
    assert checkpoint.load(path)["epoch"] == 1
    assert json.loads((tmp_path / "last.json").read_text()) == {"epoch": 1}


def test_load__missing_file(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "last.safetensors")
    assert str(caught.value) == f"no checkpoint at {tmp_path / 'last.safetensors'}"


@pytest.mark.parametrize("kept", [0, 4, 60, -3])
def test_load__truncated_file_is_called_damaged(tmp_path, kept):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"epoch": 1, "w": torch.ones(30)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path} is damaged or not a safetensors file: ")


def test_load__foreign_file_is_told_from_a_checkpoint(tmp_path):
    path = tmp_path / "resnet.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(caught.value) == f"{path} is not a checkpoint of robustmm: it has no state header"
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="it has no state header"):
        checkpoint.load(path)


@pytest.mark.parametrize("header", ['{"epoch": ', '{"w": {"__tensor__": "/gone"}}'])
def test_load__state_header_that_does_not_fit_is_called_damaged(tmp_path, header):
    path = tmp_path / "last.safetensors"
    save_file({"/w": torch.ones(2)}, path, metadata={"state": header})
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path} is damaged or not a safetensors file: ")


def test_load__is_not_fooled_by_a_huge_header_length(tmp_path):
    path = tmp_path / "last.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(path)


def test_load_weights__loads_a_fitting_state():
    one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    checkpoint.load_weights(one, other.state_dict(), place="x")
    assert torch.equal(one.weight, other.weight)


def test_load_weights__lists_what_is_missing_extra_and_of_another_shape():
    module = torch.nn.Linear(2, 3)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(module, {"weight": torch.zeros(3, 5), "scale": torch.ones(1)}, place="runs/a/last")
    assert str(caught.value) == (
        "runs/a/last does not fit this configuration: bias is missing; scale is not in the model; "
        "weight is (3, 5), the model has (3, 2)"
    )


def test_load_weights__shows_five_problems_and_counts_the_rest():
    module = torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(4)])
    with pytest.raises(CheckpointError, match=r"2\.weight is missing; and 3 more$"):
        checkpoint.load_weights(module, {}, place="x")
