"""What the options of a sweep say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmm.errors import ConfigError
from robustmm.sweep.values import Axis, parse_axes, parse_seeds, parse_varied, split_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{name: film, by: [a, b]},sum", ["{name: film, by: [a, b]}", "sum"]),
        ('"x,y",z', ['"x,y"', "z"]),
        ("'[',z", ["'['", "z"]),
        ("don't,do", ["don't", "do"]),
        ("", [""]),
    ],
)
def test_split_values__keeps_what_brackets_and_quotes_hold(text: str, values: list[str]) -> None:
    assert split_values(text) == values


@given(st.lists(st.text("ab1.-", min_size=1, max_size=4), min_size=1, max_size=5))
def test_split_values__gives_back_what_commas_joined(values: list[str]) -> None:
    assert split_values(",".join(values)) == values


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1,2", "'[1,2': ']' is missing at the end"),
        ('a,"b', "'a,\"b': '\"' is missing at the end"),
        ("a,,b", "'a,,b': a value between two commas is empty"),
    ],
)
def test_split_values__says_what_is_wrong(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_values(text)
    assert str(caught.value) == error


def test_seeds__number_or_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("3,7") == (3, 7)
    assert parse_seeds("3,") == (3,)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0", "--seeds 0: give at least one seed"),
        ("1,1", "--seeds 1,1: a seed stands twice"),
        ("a", "--seeds a: expected a number of seeds, such as 5, or seeds with commas, such as 0,1,2"),
        ("-1", "--seeds -1: expected a number of seeds, such as 5, or seeds with commas, such as 0,1,2"),
    ],
)
def test_seeds__say_what_is_wrong(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_seeds(text)
    assert str(caught.value) == error


def test_varied__seed_offset_or_values() -> None:
    assert parse_varied("data.dataset.split_seed", (4, 5)).override(5, 1) == "data.dataset.split_seed=5"
    assert parse_varied("data.dataset.test_subject+1", (4, 5)).override(5, 1) == "data.dataset.test_subject=6"
    assert parse_varied("data.dataset.test_patient=p1,p2", (4, 5)).override(5, 1) == "data.dataset.test_patient=p2"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a=p1", "--vary a=p1: 1 values for 2 seeds; give one for each"),
        ("seed", "--vary seed: the seed itself comes from --seeds"),
        (
            "a+b",
            "--vary a+b: expected KEY, KEY+1 or KEY=a,b,c, such as data.dataset.split_seed, with one value per seed",
        ),
    ],
)
def test_varied__says_what_is_wrong(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_varied(text, (0, 1))
    assert str(caught.value) == error


def test_axes__later_texts_win_and_all_errors_come_at_once() -> None:
    assert parse_axes(["a=1", "b=x,y", "a=2,3"]) == [Axis("a", ("2", "3")), Axis("b", ("x", "y"))]
    with pytest.raises(ConfigError) as caught:
        parse_axes(["a", "seed=1", "b=[1"])
    assert str(caught.value).splitlines() == [
        "-o a: expected key=value, or several with commas, such as -o method.name=plain,dmrnet",
        "-o seed=1: the seed comes from --seeds",
        "-o b=[1: '[1': ']' is missing at the end",
    ]
