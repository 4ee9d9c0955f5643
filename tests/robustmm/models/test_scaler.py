import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmm import Modality, Scaling, ShapeError
from robustmm.models import scaler
from robustmm.models.scaler import Moments, Scaler


@settings(derandomize=True, deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5), seed=st.integers(0, 99), rank=st.integers(0, 2))
def test_moments__equal_those_of_all_samples_at_once(sizes, seed, rank):
    generator = torch.Generator().manual_seed(seed)
    grid = (3, 2)[:rank]
    parts = [torch.randn(size, 4, *grid, generator=generator) * 5 + 100 for size in (*sizes, 2)]
    moments = Moments()
    for part in parts:
        moments.update(part)
    mean, variance = moments.result()
    axes = (0, *range(2, 2 + rank))
    whole = torch.cat(parts).double()
    torch.testing.assert_close(mean, whole.mean(dim=axes).float())
    torch.testing.assert_close(variance, whole.var(dim=axes, correction=0).float())


def test_moments__keep_precision_far_from_zero():
    moments = Moments()
    for value in (1e6, 1e6 + 2):
        moments.update(torch.full((3, 1), value))
    mean, variance = moments.result()
    assert (mean.item(), variance.item()) == (1e6 + 1, 1.0)  # hand-worked


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 4, 5)])
def test_scaler__brings_training_data_to_mean_zero_and_deviation_one(shape):
    x = torch.randn(50, *shape) * torch.tensor([1.0, 10.0, 0.1]).view(3, *[1] * (len(shape) - 1)) + 4
    scaler = Scaler(Modality("m", "image", shape))
    moments = Moments()
    moments.update(x)
    assert scaler.needs_fit
    scaler.set(*moments.result())
    rows = scaler(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows.mean(dim=1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(dim=1, correction=0), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_scaler__constant_feature_is_centred_and_not_blown_up(constant):
    scaler = Scaler(Modality("m", "vector", (1,)))
    scaler.set(torch.tensor([constant]), torch.tensor([0.0]))
    torch.testing.assert_close(scaler(torch.tensor([[constant + 0.25]])), torch.tensor([[0.25]]))


def test_scaler__constants_and_none():
    constants = Scaler(Modality("m", "image", (2, 1, 1), Scaling("constants", (1.0, 2.0), (2.0, 4.0))))
    x = torch.tensor([3.0, 10.0]).view(1, 2, 1, 1)
    assert constants(x).flatten().tolist() == [1.0, 2.0]
    plain = Scaler(Modality("m", "image", (2, 1, 1), Scaling("none")))
    assert plain(x) is x
    assert not constants.needs_fit
    assert not plain.needs_fit


def test_scaler__statistics_travel_with_the_weights():
    source, target = (Scaler(Modality("m", "vector", (2,))) for _ in range(2))
    source.set(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0]))
    target.load_state_dict(source.state_dict())
    assert target(torch.tensor([[3.0, 5.0]])).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.0,), (1.0, 1.0), r"modality 'm': scaling needs 2 means and 2 deviations .*, got 1 and 2"),
        ((0.0, 0.0), (1.0, 0.0), r"modality 'm': scaling deviations must be above 0, got \(1.0, 0.0\)"),
    ],
)
def test_scaler__refuses_constants_that_do_not_fit(mean, std, message):
    with pytest.raises(ShapeError, match=message):
        Scaler(Modality("m", "vector", (2,), Scaling("constants", mean, std)))


def test_scaler__values_that_were_not_measured_become_zero() -> None:
    depth = Modality("depth", "image", (1, 1, 3), Scaling("constants", (2841.94941,), (1417.25943,), invalid=0.0))
    scaled = Scaler(depth)(torch.tensor([0.0, 2000.0, 2841.94941]).view(1, 1, 1, 3))
    torch.testing.assert_close(scaled.flatten(), torch.tensor([0.0, -0.594069, 0.0]), atol=1e-6, rtol=0)


def test_moments__leave_out_what_was_not_measured() -> None:
    x = torch.tensor([[[0.0, 3.0, 5.0]], [[4.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]])  # (B, D, values)
    moments = Moments(invalid=0.0)
    for sample in x:
        moments.update(sample[None])
    mean, variance = moments.result()
    assert (mean.item(), variance.item()) == pytest.approx((4.0, 2 / 3))
    assert moments.count == 3


def test_moments__of_nothing_measured_count_nothing() -> None:
    moments = Moments(invalid=0.0)
    moments.update(torch.zeros(2, 1, 3))
    assert moments.count == 0


def test_moments__of_large_batches_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    whole, parts, sizes = Moments(invalid=0.0), Moments(invalid=0.0), []
    whole.update(x)
    monkeypatch.setattr(scaler, "AT_ONCE", 50)  # two samples
    add = parts._add
    monkeypatch.setattr(parts, "_add", lambda part: (sizes.append(len(part)), add(part)))
    parts.update(x)
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(parts.result(), whole.result())
