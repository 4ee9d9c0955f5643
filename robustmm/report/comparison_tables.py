"""A comparison as tables: for the terminal, Markdown, CSV and LaTeX, all from the same cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from robustmm.report.markup import PlainTable, to_csv, to_latex, to_markdown, turned
from robustmm.report.tables import FULL_TABLE, digits, number

Compared = Mapping[str, Any]
#: With more quantities than this the groups become the columns.
MOST_COLUMNS = 4
CSV_HEADER = (
    "group",
    "quantity",
    "seeds",
    "mean",
    "sd",
    "low",
    "high",
    "reference",
    "difference",
    "difference_low",
    "difference_high",
    "p_t",
    "p_sign_flip",
    "p_holm",
)


def value_table(compared: Compared) -> PlainTable:
    """A row per group, a column per quantity (the other way round where there are many): mean ± deviation and interval.

    The best is bold where the difference is significant: of the reference where all others are significantly worse.
    """
    names, groups = compared["quantities"], compared["groups"]
    rows = tuple(
        (group["label"], str(len(group["runs"])), *(_value(group["quantities"][name]) for name in names))
        for group in groups
    )
    bold = frozenset(
        (row, column + 2) for column, name in enumerate(names) if (row := _best(compared, name)) is not None
    )
    return _fitting(PlainTable(compared["title"], ("group", "seeds", *names), rows, bold), compared)


def difference_table(compared: Compared) -> PlainTable | None:
    """A row per group but the reference; None where there is nothing to compare."""
    names, found = compared["quantities"], {(one["group"], one["quantity"]): one for one in compared["comparisons"]}
    others = compared["groups"][1:]
    if not others or not names:
        return None
    rows = tuple((own["label"], *(_difference(found[own["label"], name]) for name in names)) for own in others)
    table = PlainTable(f"minus {compared['reference']}, by seed; p after Holm", ("group", *names), rows)
    return _fitting(table, compared)


def _fitting(table: PlainTable, compared: Compared) -> PlainTable:
    """A row per quantity where there are many."""
    return turned(table) if len(compared["quantities"]) > MOST_COLUMNS else table


def point_table(compared: Compared) -> PlainTable:
    """A row per combination, rate or corruption, a column per group: mean ± deviation over seeds."""
    groups = compared["groups"]
    rows = tuple(
        (group_points[0]["name"], *(_value(point) for point in group_points))
        for group_points in zip(*(group["points"] for group in groups), strict=True)
    )
    return PlainTable(
        f"{compared['metric']} over seeds, by {compared['along'] or 'combination'}",
        ("measured", *(group["label"] for group in groups)),
        rows,
    )


def _value(own: Mapping[str, Any]) -> str:
    if own["mean"] is None:
        return "-"
    spread = "" if own["sd"] is None else f" ± {digits(own['sd'])}"
    low_high = own.get("interval")
    return f"{digits(own['mean'])}{spread}" + (f" [{digits(low_high[0])}, {digits(low_high[1])}]" if low_high else "")


def _difference(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    mark = "*" if one["significant"] else ""
    return f"{digits(one['difference'], '+')} [{digits(low, '+')}, {digits(high, '+')}] p {p_text(one['p_holm'])}{mark}"


def p_text(p: float) -> str:
    """Three digits, never 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _best(compared: Compared, quantity: str) -> int | None:
    """The row of the best mean where it differs significantly, None where it does not."""
    means = [group["quantities"][quantity]["mean"] for group in compared["groups"]]
    best = means.index(max(means) if compared["direction"] == "max" else min(means))
    own = [one for one in compared["comparisons"] if one["quantity"] == quantity]
    label = compared["groups"][best]["label"]
    against = own if best == 0 else [one for one in own if one["group"] == label]
    return best if against and all(one["significant"] for one in against) else None


def as_markdown(compared: Compared) -> str:
    """All tables and remarks."""
    tables = [value_table(compared), difference_table(compared), point_table(compared)]
    texts = [to_markdown(table) for table in tables if table is not None]
    remarks = "".join(f"- {remark['text']}\n" for remark in compared["remarks"])
    legend = (
        f"Mean ± standard deviation over seeds and {compared['statistics']['confidence']:.0%} interval; "
        f"{'larger' if compared['direction'] == 'max' else 'smaller'} is better; * and bold: significant at "
        f"{compared['statistics']['level']}."
    )
    return "\n".join([*texts, f"{legend}\n", remarks])


def as_latex(compared: Compared) -> str:
    """The two tables of groups, with the remarks as comments."""
    tables = [value_table(compared), difference_table(compared)]
    remarks = "".join(f"% {remark['text']}\n" for remark in compared["remarks"])
    return remarks + "\n" + "\n".join(to_latex(table) for table in tables if table is not None)


def as_csv(compared: Compared) -> str:
    """A line per group and quantity, in full precision."""
    found = {(one["group"], one["quantity"]): one for one in compared["comparisons"]}
    rows = []
    for group in compared["groups"]:
        for name in compared["quantities"]:
            own, one = group["quantities"][name], found.get((group["label"], name))
            row = [group["label"], name, len(group["runs"]), own["mean"], own["sd"], *own["interval"]]
            if one is not None:
                row += [one["reference"], one["difference"], *one["interval"], one["p_t"], one["p_sign_flip"]]
                row.append(one["p_holm"])
            rows.append([*row, *[None] * (len(CSV_HEADER) - len(row))])
    return to_csv(CSV_HEADER, rows)


def for_terminal(compared: Compared) -> RenderableType:
    """The tables of groups, and of points where there are few."""
    tables = [value_table(compared), difference_table(compared)]
    if len(compared["groups"][0]["points"]) <= FULL_TABLE:
        tables.append(point_table(compared))
    return Stack(*(rich_table(table) for table in tables if table is not None))


def rich_table(table: PlainTable) -> Table:
    """As rich draws it; texts are no markup."""
    drawn = Table(title=Text(table.title), title_justify="left")
    for place, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="right" if place else "left", no_wrap=place == 0)
    for y, row in enumerate(table.rows):
        if y in table.rules:
            drawn.add_section()
        drawn.add_row(*(Text(cell, style="bold" if (y, x) in table.bold else "") for x, cell in enumerate(row)))
    return drawn


def headline(compared: Compared) -> str:
    """What is significant, in a sentence, for the end of the output."""
    found = [one for one in compared["comparisons"] if one["significant"]]
    if not compared["comparisons"]:
        return "one group: nothing to compare with"
    if not found:
        return f"no difference from {compared['reference']} is significant"
    return "; ".join(
        f"{one['group']} is {'better' if one['better'] else 'worse'} than {one['reference']} in {one['quantity']} "
        f"by {number(abs(one['difference']))} (p {p_text(one['p_holm'])})"
        for one in found
    )
