"""``robustmm compare``: groups of runs over common seeds, with paired tests."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--by", multiple=True, metavar="KEY", help="Key that is compared, as in --by model.missing_policy.")
@click.option(
    "--protocol", default="combinations", show_default=True, metavar="NAME", help="Which results, as in evaluate."
)
@click.option("--metric", metavar="NAME", help="Score to compare instead of the main one.")
@click.option(
    "--reference",
    metavar="NAME",
    help="Group, or configuration, to test the others against; the first one, of a sweep by its plan.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="KEY",
    help="Key that names the split, beside keys called seed and those that a sweep varied.",
)
@click.option(
    "--test",
    type=click.Choice(["t", "sign-flip"]),
    default="t",
    show_default=True,
    help="Paired t-test, or exact permutation of signs, which needs 6 seeds to reach 0.05.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write comparison.json, .csv, .md, .tex and the page comparison.html into this folder.",
)
def command(
    runs: tuple[Path, ...],
    by: tuple[str, ...],
    protocol: str,
    metric: str | None,
    reference: str | None,
    splits: tuple[str, ...],
    test: str,
    out: Path | None,
) -> None:
    """Compare groups of runs: mean, deviation and interval over seeds, paired tests against a reference.

    RUN is a run folder or a folder that contains some, such as that of a sweep. Runs whose configurations differ in
    seeds alone are one group; what differs between groups is their label. Runs that must not be compared are refused
    with every reason at once.
    """
    from rich.console import Console

    from robustmm.report.compare import CompareRequest, compare, write_comparison
    from robustmm.report.comparison_page import write_comparison_page
    from robustmm.report.comparison_tables import for_terminal, headline

    compared = compare(CompareRequest(runs, protocol, metric, by, splits, reference, test))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    console.print(for_terminal(compared))
    for remark in compared["remarks"]:
        console.print(f"{remark['kind']}: {remark['text']}", markup=False, soft_wrap=True)
    console.print(headline(compared), markup=False, soft_wrap=True)
    if out is not None:
        for path in (*write_comparison(compared, out), write_comparison_page(compared, out)):
            console.print(str(path), markup=False, soft_wrap=True)
