from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmm.config.tree import Node, Origin, assign, merge, plain, walk
from robustmm.errors import RobustmmError

HERE = Origin("a.yaml", 1, 1)


def tree(data: Any, origin: Origin = HERE, *, component: bool = False) -> Node:
    if isinstance(data, Mapping):
        return Node({key: tree(value, origin) for key, value in data.items()}, origin, origin, component)
    if isinstance(data, list):
        return Node(tuple(tree(item, origin) for item in data), origin, origin)
    return Node(data, origin, origin)


KEYS = st.sampled_from("abc")
LEAVES = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
MAPPINGS = st.dictionaries(KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner), max_leaves=6))


@st.composite
def like_shaped(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Three mappings in which a key is a mapping in all or in none; else order of merging matters by design."""
    paths = draw(st.dictionaries(KEYS, st.sampled_from(["leaf", "mapping"]), min_size=1))

    def one() -> dict[str, Any]:
        kept = [key for key in paths if draw(st.booleans())]
        return {key: draw(LEAVES if paths[key] == "leaf" else st.dictionaries(KEYS, LEAVES)) for key in kept}

    return one(), one(), one()


@given(like_shaped())
def test_merge__is_associative(three: tuple[Any, Any, Any]) -> None:
    a, b, c = map(tree, three)
    assert plain(merge(merge(a, b), c)) == plain(merge(a, merge(b, c)))


@given(MAPPINGS)
def test_merge__of_equal_trees_changes_nothing(data: Any) -> None:
    assert plain(merge(tree(data), tree(data))) == data
    assert plain(merge(tree(data), tree({}))) == data


def test_merge__merges_mappings_and_replaces_lists() -> None:
    merged = merge(tree({"x": {"a": 1, "b": [1, 2]}, "y": 1}), tree({"x": {"b": [3]}, "z": 2}))
    assert plain(merged) == {"x": {"a": 1, "b": [3]}, "y": 1, "z": 2}


def test_merge__keeps_the_place_of_each_value() -> None:
    over = Origin("b.yaml", 9, 9)
    merged = merge(tree({"x": {"a": 1, "b": 2}}), tree({"x": {"b": 3}}, over))
    places = {path: node.origin for path, node in walk(merged)}
    assert places["x", "a"] == HERE
    assert places["x", "b"] == over


def test_merge__drops_the_options_of_another_component() -> None:
    adam = tree({"name": "adam", "betas": 1, "lr": 2}, component=True)
    assert plain(merge(adam, tree({"name": "sgd", "lr": 3}))) == {"name": "sgd", "lr": 3}
    assert plain(merge(adam, tree({"name": "adam", "lr": 3}))) == {"name": "adam", "betas": 1, "lr": 3}
    assert plain(merge(adam, tree({"lr": 3}))) == {"name": "adam", "betas": 1, "lr": 3}


def test_merge__treats_a_name_elsewhere_as_any_key() -> None:
    assert plain(merge(tree({"name": "a", "x": 1}), tree({"name": "b"}))) == {"name": "b", "x": 1}


def test_assign__goes_into_mappings_and_lists() -> None:
    root = tree({"a": [{"b": 1, "c": 2}, 5]})
    assert plain(assign(root, ["a", "0", "b"], tree(7))) == {"a": [{"b": 7, "c": 2}, 5]}
    assert plain(assign(root, ["x", "y"], tree(7)))["x"] == {"y": 7}


@pytest.mark.parametrize(
    ("index", "text"),
    [("2", "the list takes an index from 0 to 1, got '2'"), ("-1", "the list takes an index from 0 to 1, got '-1'")],
)
def test_assign__refuses_an_index_that_is_not_there(index: str, text: str) -> None:
    with pytest.raises(RobustmmError, match=f"^{text}$"):
        assign(tree({"a": [1, 2]}), ["a", index], tree(7))
