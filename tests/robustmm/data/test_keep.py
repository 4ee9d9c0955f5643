"""What a balancer's plan of an epoch lets samples show."""

import pytest
import torch

from robustmm import ArrayDataset, Modality, distributed
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part

MODALITIES = (Modality("rgb", "vector", (2,)), Modality("depth", "vector", (2,)))


def loader(observed=None, *, count: int = 9, batch_size: int = 2) -> PartLoader:
    inputs = {modality.name: torch.zeros(count, 2) for modality in MODALITIES}
    ids = [f"s{place}" for place in range(count)]
    data = ArrayDataset(inputs, torch.arange(count), ids, observed)
    return PartLoader(Part(data, range(count)), MODALITIES, batch_size=batch_size)


def rows(batches) -> list[tuple[int, list[bool]]]:
    """Position and what may be shown, sample by sample."""
    return [(i, row) for b in batches for i, row in zip(b.index.tolist(), b.offered.tolist(), strict=True)]


def test_keep__follows_its_position_through_the_order_of_the_epoch():
    indices = torch.tensor([4, 4, 7, 0, 2])
    keep = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]]).bool()
    wanted = sorted(zip(indices.tolist(), keep.tolist(), strict=True))
    for epoch in range(3):
        assert sorted(rows(loader().training(epoch, indices=indices, keep=keep))) == wanted


def test_keep__without_indices_is_one_row_for_each_sample():
    keep = torch.arange(9)[:, None] % 2 == torch.arange(2)
    assert sorted(rows(loader().training(0, keep=keep))) == list(enumerate(keep.tolist()))


def test_keep__of_everything_is_no_keep():
    with_keep = rows(loader().training(1, keep=torch.ones(9, 2).bool()))
    assert with_keep == rows(loader().training(1))


def test_keep__never_offers_what_is_not_there_and_a_sample_left_with_nothing_shows_all_it_has():
    observed = torch.tensor([[1, 1], [1, 0], [0, 1]] * 3).bool()
    keep = torch.tensor([[1, 0]] * 9).bool()
    offered = dict(rows(loader(observed).training(0, keep=keep)))
    assert [offered[place] for place in range(3)] == [[True, False], [True, False], [False, True]]


@pytest.mark.parametrize("start", [1, 2, 3, 4])
def test_keep__start_in_mid_epoch_equals_skipping_batches(start):
    """Nine samples in batches of two: the last one joins the batch before it."""
    keep = torch.rand(9, 2, generator=torch.Generator().manual_seed(0)) < 0.5
    indices = torch.arange(9).roll(4)
    whole = [rows([batch]) for batch in loader().training(2, indices=indices, keep=keep)]
    assert len(whole) == 4
    assert [rows([b]) for b in loader().training(2, start=start, indices=indices, keep=keep)] == whole[start:]


@pytest.mark.parametrize("ranks", [2, 4])
def test_keep__is_shared_out_with_the_samples(monkeypatch, ranks):
    keep = torch.rand(9, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    alone = dict(rows(loader().training(0, keep=keep)))
    seen = set()
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    for rank in range(ranks):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        for place, row in rows(loader().training(0, keep=keep)):
            assert row == alone[place]
            seen.add(place)
    assert seen == set(range(9))
