"""Order, shares and augmentation of batches."""

from collections import Counter

import pytest
import torch

from robustmm import ArrayDataset, DataError, Modality, distributed
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part

MODALITIES = (Modality("rgb", "vector", (2,)),)


class Noisy:
    """Map-style data set whose augmentation adds noise; at module level, so that workers can open it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        return {"inputs": {"rgb": torch.full((2,), float(index))}, "target": torch.tensor(index), "id": f"s{index}"}

    def augment(self, sample, generator):
        return sample | {"inputs": {"rgb": sample["inputs"]["rgb"] + torch.rand(2, generator=generator)}}


def arrays(count: int) -> ArrayDataset:
    return ArrayDataset({"rgb": torch.zeros(count, 2)}, torch.arange(count), [f"s{n}" for n in range(count)])


def loader(count: int = 10, *, batch_size: int = 3, seed: int = 0, augment_seed=None, data=None, workers: int = 0):
    data = data or arrays(count)
    part = Part(data, range(len(data)), augment_seed=augment_seed)
    return PartLoader(part, MODALITIES, batch_size=batch_size, seed=seed, workers=workers)


def orders(batches) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


def flat(batches) -> list[int]:
    return [index for batch in orders(batches) for index in batch]


@pytest.fixture
def pretend_ranks(monkeypatch):
    """Run a function as each of several processes."""

    def run(count, function):
        results = []
        for rank in range(count):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            monkeypatch.setattr(distributed, "world_size", lambda: count)
            results.append(function())
        return results

    return run


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (10, 4), (9, 9), (5, 8), (1, 4), (4, 1), (7, 3)])
def test_training__gives_each_sample_once_an_epoch(count, batch_size):
    own = loader(count, batch_size=batch_size)
    batches = orders(own.training(0))
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert len(batches) == own.steps_per_epoch()


def test_training__order_depends_on_seed_and_epoch_alone():
    first = flat(loader(20).training(3))
    torch.manual_seed(1234)
    again = loader(20)
    list(again.training(0))
    list(again.ordered())
    assert flat(again.training(3)) == first
    assert flat(again.training(4)) != first
    assert flat(loader(20, seed=1).training(3)) != first


def test_training__draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader().training(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (11, 4), (12, 4)])
@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_training__start_equals_skipping_batches(count, batch_size, start):
    own = loader(count, batch_size=batch_size)
    assert orders(own.training(1, start=start)) == orders(own.training(1))[start:]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 3, [3, 3, 4]), (11, 3, [3, 3, 3, 2]), (3, 2, [3]), (1, 4, [1]), (3, 1, [1, 1, 1]), (8, 4, [4, 4])],
)
def test_training__lone_last_sample_joins_the_batch_before(count, batch_size, sizes):
    assert [len(batch) for batch in orders(loader(count, batch_size=batch_size).training(0))] == sizes


def test_training__takes_the_indices_that_a_balancer_chose():
    own, chosen = loader(10), torch.tensor([7, 7, 2, 9, 7])
    assert Counter(flat(own.training(0, indices=chosen))) == Counter(chosen.tolist())
    assert own.steps_per_epoch(chosen) == 2
    assert orders(own.training(0, indices=chosen, start=1)) == orders(own.training(0, indices=chosen))[1:]


def test_ordered__goes_through_the_part_in_order():
    assert orders(loader(7).ordered()) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("count", [12, 13, 7])
def test_training__every_process_takes_equal_steps_and_together_they_cover_everything(pretend_ranks, ranks, count):
    shares = pretend_ranks(ranks, lambda: orders(loader(count).training(2)))
    assert len({tuple(len(batch) for batch in batches) for batches in shares}) == 1
    seen = Counter(index for batches in shares for batch in batches for index in batch)
    assert set(seen) == set(range(count))
    assert sum(seen.values()) == -(-count // ranks) * ranks
    assert max(seen.values()) <= 2


def test_training__processes_share_the_batch_that_one_process_would_take(pretend_ranks):
    whole = orders(loader(12, batch_size=4).training(0))
    first, second = pretend_ranks(2, lambda: orders(loader(12, batch_size=2).training(0)))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in whole]


def test_training__as_many_processes_as_make_shares_wrap_round(pretend_ranks):
    shares = pretend_ranks(4, lambda: flat(loader(1).training(0)))
    assert shares == [[0], [0], [0], [0]]


def test_ordered__processes_share_without_repetition(pretend_ranks):
    shares = pretend_ranks(3, lambda: flat(loader(7).ordered()))
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert pretend_ranks(3, lambda: flat(loader(7).ordered(whole=True))) == [list(range(7))] * 3


def noise(own: PartLoader, epoch: int, **options) -> dict[int, list[float]]:
    return {
        int(index): row.tolist()
        for batch in own.training(epoch, **options)
        for index, row in zip(batch.index, batch.inputs["rgb"], strict=True)
    }


def test_augmentation__depends_on_seed_epoch_and_position_alone():
    first = noise(loader(data=Noisy(10), augment_seed=0), 1)
    assert noise(loader(data=Noisy(10), augment_seed=0, batch_size=4, seed=9), 1) == first
    assert noise(loader(data=Noisy(10), augment_seed=0), 2)[3] != first[3]
    assert noise(loader(data=Noisy(10), augment_seed=1), 1)[3] != first[3]


def test_augmentation__is_the_same_with_worker_processes():
    own = loader(data=Noisy(10), augment_seed=0, workers=2)
    here = loader(data=Noisy(10), augment_seed=0)
    for epoch in (0, 1):
        assert orders(own.training(epoch)) == orders(here.training(epoch))
        assert noise(own, epoch) == noise(here, epoch)
    assert noise(own, 1, start=2) == noise(here, 1, start=2)


def test_without_augmentation__loads_the_same_samples_as_they_are_with_as_many_workers():
    own = loader(data=Noisy(10), augment_seed=0, workers=1)
    plain = own.without_augmentation()
    assert plain is own.without_augmentation()
    assert plain.workers == 1
    assert orders(plain.ordered(torch.tensor([7, 2, 2]))) == [[7, 2, 2]]
    assert [row[0] for batch in plain.ordered() for row in batch.inputs["rgb"].tolist()] == list(range(10))


def test_loader__half_read_epoch_leaves_no_trace_in_the_next():
    for workers in (0, 2):
        own = loader(data=Noisy(10), workers=workers)
        next(own.training(0))
        assert orders(own.training(1)) == orders(loader(data=Noisy(10)).training(1))


class Broken(Noisy):
    """A sample cannot be read."""

    def __getitem__(self, index):
        if index == 4:
            raise DataError("b.png: is truncated; mend it")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors__of_worker_processes_are_as_short_as_those_of_this_one(workers):
    batches = loader(data=Broken(10), workers=workers).ordered()
    assert len(next(batches)) == 3
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == "b.png: is truncated; mend it"


def two_columns() -> PartLoader:
    """Samples of two modalities; the second is missing in odd places."""
    observed = torch.tensor([[True, row % 2 == 0] for row in range(6)])
    inputs = {name: torch.arange(6.0)[:, None].expand(6, 2) + 10 * place for place, name in enumerate(("rgb", "ir"))}
    data = ArrayDataset(inputs, torch.arange(6), [f"s{row}" for row in range(6)], observed)
    modalities = (*MODALITIES, Modality("ir", "vector", (2,)))
    return PartLoader(Part(data, range(6)), modalities, batch_size=3)


def test_only__gives_the_same_samples_with_some_columns_and_leaves_none_out():
    whole = two_columns()
    chosen = whole.only(["ir"])
    for full, own in zip([*whole.training(1), *whole.ordered()], [*chosen.training(1), *chosen.ordered()], strict=True):
        assert own.modalities == ("ir",)
        assert own.index.tolist() == full.index.tolist()
        assert torch.equal(own.inputs["ir"], full.inputs["ir"])
        assert torch.equal(own.observed, full.observed[:, 1:])
    assert not all(batch.observed.all() for batch in chosen.ordered())
    assert next(chosen.without_augmentation().ordered()).modalities == ("ir",)
    assert next(whole.without_augmentation().ordered()).modalities == ("rgb", "ir")


def test_only__of_all_columns_is_the_loader_itself():
    whole = two_columns()
    assert whole.only(("rgb", "ir")) is whole


def test_only__takes_its_columns_of_what_a_plan_keeps():
    keep = torch.tensor([[True, False]] * 3 + [[True, True]] * 3)
    batches = two_columns().only(["rgb"]).training(0, indices=torch.arange(6), keep=keep)
    assert all(batch.keep.tolist() == [[True]] * len(batch) for batch in batches)
