from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmm.config.document import dump, parse
from robustmm.config.tree import plain


def value(text: str) -> object:
    root, problems = parse(text, "a.yaml")
    assert problems == []
    assert root is not None
    return plain(root)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 0.001), ("1E5", 100000.0), (".5", 0.5), ("-1.", -1.0), ("+2e+3", 2000.0), (".inf", math.inf)],
)
def test_parse__reads_every_spelling_of_a_float(text: str, number: float) -> None:
    read = value(text)
    assert isinstance(read, float)
    assert read == number


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("-7", -7), ("0x1f", 31), ("0o17", 15)])
def test_parse__reads_integers_as_yaml_1_2_does(text: str, number: int) -> None:
    read = value(text)
    assert isinstance(read, int)
    assert read == number


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "no", "y", "1:30", "2024-01-01", "1_000", "e3", "1e", ".", "'1e-3'"]
)
def test_parse__keeps_other_words_as_text(text: str) -> None:
    assert value(text) == text.strip("'")


@pytest.mark.parametrize(
    ("text", "wanted"), [("true", True), ("False", False), ("null", None), ("~", None), ("", None)]
)
def test_parse__knows_true_false_and_null(text: str, wanted: object) -> None:
    assert value(text) is wanted


def test_parse__remembers_where_keys_values_and_items_stand() -> None:
    root, _ = parse("a:\n  b: [x,\n      y]\n", "a.yaml")
    assert root is not None
    section = root.get("a")
    assert section is not None
    listed = section.get("b")
    assert listed is not None
    second = listed.get(1)
    assert second is not None
    assert [str(section.key), str(listed.key), str(listed.origin), str(second.origin)] == [
        "a.yaml:1:1",
        "a.yaml:2:3",
        "a.yaml:2:6",
        "a.yaml:3:7",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1  a: duplicate key, first at a.yaml:1:1"),
        (
            "a: [1, 2\n",
            "a.yaml:2:1  not valid YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow ",
        ),
        ("a:\n\tb: 1\n", "a.yaml:2:1  not valid YAML: found character '\\t' that cannot start any token; indent with "),
        (
            "a: 1\nb\n",
            "a.yaml:3:1  not valid YAML: could not find expected ':'; is a colon or a space after it missing?",
        ),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1  not valid YAML: but found another document"),
        ("a: *x\n", "a.yaml:1:4  not valid YAML: found undefined alias 'x'"),
        ("a: &x [*x]\n", "a.yaml:1:4  an alias contains itself"),
        ("[1]: 2\n", "a.yaml:1:1  a key must be a plain word"),
        ("a: !!float x\n", "a.yaml:1:4  'x' cannot be read as !!float"),
        ("a: !other x\n", "a.yaml:1:4  'x' cannot be read as !other"),
        ("a: \x01\n", "a.yaml:1:1  not readable as YAML: unacceptable character #x0001"),
    ],
)
def test_parse__reports_one_line_with_its_place(text: str, line: str) -> None:
    _, problems = parse(text, "a.yaml")
    assert len(problems) == 1
    assert str(problems[0]).startswith(line)
    assert "\n" not in str(problems[0])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12))
def test_dump__is_read_back_unchanged(data: object) -> None:
    assert value(dump(data)) == data


@given(st.text(min_size=1))
def test_dump__keeps_a_scalar_on_one_line(text: str) -> None:
    assert len(dump({"key": text}).splitlines()) == 1
