"""``robustmm list`` and the text of options."""

from __future__ import annotations

import io
import json
from typing import Annotated, Literal

import pytest
from pydantic import Field
from rich.console import Console

from robustmm import Options
from robustmm.cli import run
from robustmm.commands.option_table import option_rows, type_text
from robustmm.commands.printing import _rich_table, plain_table
from robustmm.registry import KINDS


class Inner(Options):
    rate: float = Field(0.5, gt=0, le=1, description="How\noften.")


class Outer(Options):
    path: str
    form: Literal["paper", "released"] = "paper"
    widths: tuple[int, ...] = (1, 2)
    limit: Annotated[int, Field(ge=2)] | None = None
    factors: dict[str, float] = Field(default_factory=dict)
    inner: Inner = Inner()


def test_option_rows__show_types_defaults_and_constraints() -> None:
    rows = {row.name: row for row in option_rows(Outer)}
    assert {name: (row.type, row.default_text) for name, row in rows.items()} == {
        "path": ("str", "required"),
        "form": ("paper | released", '"paper"'),
        "widths": ("tuple[int, ...]", "[1, 2]"),
        "limit": ("int >= 2 | null", "null"),
        "factors": ("dict[str, float]", "{}"),
        "inner.rate": ("float", "0.5"),
    }
    assert rows["inner.rate"].constraints == ("> 0", "<= 1")
    assert rows["inner.rate"].description == "How often."
    assert rows["path"].required


def test_type_text__names_plain_and_nested_types() -> None:
    assert type_text(list[Literal["a", 1] | bool]) == "list[a | 1 | bool]"
    assert type_text(None) == "null"


def test_plain_table__aligns_columns_and_cuts_nothing() -> None:
    assert plain_table(("a", "b"), [("longer name", "x"), ("s", "")]) == "a            b\nlonger name  x\ns"


def test_list__counts_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:] if line]
    assert [words[0] for words in table[: len(KINDS)]] == list(KINDS)
    assert int(table[list(KINDS).index("balancer")][1]) >= 3


@pytest.mark.parametrize("word", ["balancer", "balancers"])
def test_list_kind__shows_name_fidelity_and_summary(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", word]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["balancer", "fidelity", "summary"]
    assert any(line.split()[:2] == ["ogm", "code"] and "gradients" in line for line in lines)


def test_list_component__shows_options_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "balancer", "ogm"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("balancer ogm: ")
    for fact in (
        "source:    Peng et al., CVPR 2022",
        "fidelity:  code (follows official code)",
        "origin:    robustmm_plugins.balancing.ogm",
        "requires:  class_probability",
        "provides:  balancer:ogm",
    ):
        assert fact in out
    (alpha,) = [line for line in out.splitlines() if line.startswith("alpha ")]
    assert alpha.split()[:5] == ["alpha", "float", "0.8", ">=", "0"]


def test_list_component__without_options_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "balancer", "none"]) == 0
    assert capsys.readouterr().out.endswith("\nIt has no options.\n")


def test_list__json_holds_what_the_tables_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--json"]) == 0
    assert [row["kind"] for row in json.loads(capsys.readouterr().out)] == list(KINDS)
    assert run(["list", "balancer", "--json"]) == 0
    (listed,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "ogm"]
    assert run(["list", "balancer", "ogm", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == listed
    assert shown["requires"] == ["class_probability"]
    assert shown["options"][0]["name"] == "alpha"
    assert shown["options"][0]["constraints"] == [">= 0"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["balancr"], "unknown kind 'balancr' - did you mean 'balancer'? Known: task, "),
        (["balancer", "ogmm"], "unknown balancer 'ogmm' - did you mean 'ogm'? Known: "),
    ],
)
def test_list__of_something_unknown_suggests(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", *words]) == 2
    assert capsys.readouterr().err.startswith(text)


def test_rich_table__keeps_names_whole_and_brackets_as_text() -> None:
    console = Console(width=40, force_terminal=True, color_system=None, file=io.StringIO())
    console.print(_rich_table(("option", "type"), [("a_rather_long_option_name", "list[bold]")]))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[1].split() == ["a_rather_long_option_name", "list[bold]"]
