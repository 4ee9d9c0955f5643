import pytest
import torch
from breaking import corruption, eight_bit, generator, picture

from robustmm import ConfigError, Spread

DEPTH = Spread(500.0, 8000.0, (3000.0,), (900.0,))


def depth(height=60, width=80):
    value = 500 + picture(1, height, width) * 29
    value[:, :10] = 0
    return value


def test_depth_holes__lose_the_stated_share_of_what_was_measured():
    value = depth()
    made = corruption("depth_holes", (1, 60, 80), DEPTH, invalid=0.0)
    for severity, share in enumerate((0.05, 0.1, 0.2, 0.35, 0.5), start=1):
        broken = made(value, severity, generator())
        assert int((broken == 0).sum()) == 800 + round(share * 4000)
        kept = broken != 0
        assert torch.equal(broken[kept], value[kept])


def test_depth_holes__are_areas_that_grow_with_severity():
    value = depth()
    made = corruption("depth_holes", (1, 60, 80), DEPTH, invalid=0.0)
    holes = [(made(value, severity, generator(3)) == 0)[0, 10:] for severity in (2, 4)]
    assert not (holes[0] & ~holes[1]).any()
    edges = (holes[1][:, 1:] != holes[1][:, :-1]).float().mean()
    assert float(edges) < 0.15  # of independent pixels 2 * 0.35 * 0.65 = 0.455


def test_depth_holes__are_the_smallest_value_where_nothing_says_not_measured():
    spread = Spread(3.0, 255.0, (100.0,), (50.0,))
    broken = corruption("depth_holes", (1, 20, 20), spread)(torch.full((1, 20, 20), 100.0), 5, generator())
    assert int((broken == 3.0).sum()) == 200


def test_depth_holes__need_one_channel():
    with pytest.raises(ConfigError, match="it needs 1 channel, not 3"):
        corruption("depth_holes", (3, 8, 8), eight_bit(3))


def test_quantisation__leaves_the_stated_number_of_values_in_equal_steps():
    made = corruption("quantisation", (1, 60, 80), eight_bit(1))
    for severity, count in enumerate((32, 16, 8, 4, 2), start=1):
        broken = made(picture(1, 60, 80), severity, generator())
        assert torch.allclose(broken.unique(), torch.linspace(0, 255, count), atol=1e-3)


def test_quantisation__takes_the_closest_value():
    value = torch.tensor([0.0, 40.0, 45.0, 200.0, 255.0])[None]
    broken = corruption("quantisation", (1, 5), eight_bit(1))(value, 4, generator())  # 0, 85, 170, 255
    assert torch.allclose(broken[0], torch.tensor([0.0, 0.0, 85.0, 170.0, 255.0]), atol=1e-3)


def test_shift__moves_by_pixels_relative_to_the_size_and_leaves_black():
    value = picture(1, 128, 200) + 1
    broken = corruption("shift", (1, 128, 200), Spread(0.0, 256.0, (1.0,), (1.0,)))(value, 4, generator(1))  # 8 of 512
    found = [
        (rows, columns)
        for rows in (-2, 0, 2)
        for columns in (-2, 0, 2)
        if torch.equal(broken[:, 2:-2, 2:-2], value.roll((rows, columns), (1, 2))[:, 2:-2, 2:-2])
    ]
    assert len(found) == 1
    assert found != [(0, 0)]
    empty = int((broken == 0).sum())
    rows, columns = map(abs, found[0])
    assert empty == 128 * 200 - (128 - rows) * (200 - columns)


def test_shift__takes_holes_along():
    value = depth()
    made = corruption("shift", (1, 60, 80), DEPTH, invalid=0.0, levels=(512.0 / 6, 200, 200, 200, 200))
    for seed in range(8):
        broken = made(value, 1, generator(seed))  # ten pixels, as many as there are rows of holes
        whole = [int((broken[0, row] != 0).sum()) for row in range(60)]
        assert set(whole) <= {0, 70, 80}
        assert whole.count(0) in (10, 20)


def test_shift__goes_all_eight_ways():
    value = picture(1, 9, 9) + 1
    made = corruption("shift", (1, 9, 9), eight_bit(1))
    results = {tuple(made(value, 1, generator(seed)).flatten().tolist()) for seed in range(60)}
    assert len(results) == 8


def test_shift__beyond_the_picture_leaves_nothing():
    made = corruption("shift", (1, 8, 8), eight_bit(1), levels=(900, 900, 900, 900, 900))
    assert not made(picture(1, 8, 8) + 1, 1, generator()).any()
