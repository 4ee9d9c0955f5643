"""Tables as Markdown, LaTeX and CSV text."""

from __future__ import annotations

from robustmm.report.markup import PlainTable, escape_latex, to_csv, to_latex, to_markdown, turned

TABLE = PlainTable(
    "scores", ("a_b", "x|y"), (("50 %", "-0.1 ± 0.2"), ("n", "p < 0.1")), frozenset({(0, 1)}), frozenset({1})
)


def test_markdown__escapes_pipes_and_marks_bold() -> None:
    assert to_markdown(TABLE) == (
        "**scores**\n\n| a_b | x\\|y |\n|---|---:|\n| 50 % | **-0.1 ± 0.2** |\n| n | p < 0.1 |\n"
    )


def test_latex__is_booktabs_and_escaped() -> None:
    assert to_latex(TABLE).splitlines() == [
        "% scores",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & x|y \\",
        r"\midrule",
        r"50 \% & \textbf{$-$0.1 $\pm$ 0.2} \\",
        r"\midrule",
        r"n & p $<$ 0.1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex__escapes_every_special_letter_once() -> None:
    assert escape_latex("\\{}$&#_%~^") == (r"\textbackslash{}\{\}\$\&\#\_\%\textasciitilde{}\textasciicircum{}")
    assert escape_latex("rgb-1 -2") == "rgb-1 $-$2"


def test_csv__quotes_and_leaves_none_empty() -> None:
    assert to_csv(("a", "b"), [("x,y", None), (0.5, 1)]) == 'a,b\n"x,y",\n0.5,1\n'


def test_turned__rows_become_columns_and_bold_moves_along() -> None:
    table = PlainTable("t", ("group", "x", "y"), (("a", "1", "2"), ("b", "3", "4")), frozenset({(0, 2)}))
    made = turned(table)
    assert (made.header, made.rows) == (("group", "a", "b"), (("x", "1", "3"), ("y", "2", "4")))
    assert made.bold == {(1, 1)}
    assert turned(made) == table
