"""What ``robustmm data check`` found, for people and as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from robustmm.commands.printing import print_table

if TYPE_CHECKING:
    from robustmm.data.dataset import DataSplits
    from robustmm.data.survey import PartSurvey, Survey
    from robustmm.types import Modality

#: Characters of the largest class in the histogram.
BAR = 20
#: So many sizes are named; the others are counted.
NAMED_SIZES = 3


def print_survey(name: str, splits: DataSplits, found: Survey) -> None:
    """Tables of modalities, values and targets, the data set's notes, and what is wrong."""
    from robustmm.data.survey import first_few

    parts = found.parts
    dense = any(part.labels.sizes for part in parts.values())
    click.echo(f"{name}: {', '.join(f'{part.samples} {key}' for key, part in parts.items())}; {splits.task}\n")
    for header, rows in (
        _modality_table(splits.modalities, parts),
        _value_table(splits.modalities, parts),
        _target_table(splits, parts, dense=dense),
        *([_label_size_table(parts)] if dense else []),
    ):
        print_table(header, rows)
        click.echo()
    for key, value in splits.notes.items():
        click.echo(f"{key}: {value}")
    unreadable = [f"{key}: {text}" for key, part in parts.items() for text in part.unreadable]
    if unreadable:
        click.echo("\nunreadable, counted as absent:\n  " + "\n  ".join(first_few(unreadable)))
    sound = "nothing else is wrong" if unreadable else "nothing is wrong"
    click.echo("\nwrong:\n  " + "\n  ".join(found.problems) if found.problems else f"\n{sound}")


Rows = tuple[Sequence[str], Sequence[Sequence[str]]]


def _modality_table(modalities: Sequence[Modality], parts: Mapping[str, PartSurvey]) -> Rows:
    units = any(modality.unit for modality in modalities)
    header = ("modality", "kind", "shape", *(["unit"] if units else []), *(f"missing in {part}" for part in parts))
    rows = [
        (
            m.name,
            m.kind,
            joined(m.shape),
            *([m.unit] if units else []),
            *(str(p.missing[m.name]) for p in parts.values()),
        )
        for m in modalities
    ]
    return header, rows


def _value_table(modalities: Sequence[Modality], parts: Mapping[str, PartSurvey]) -> Rows:
    """Sizes and measured values; a column of what is not measured where a modality has a value that says so."""
    some_invalid = any(modality.scaling.invalid is not None for modality in modalities)
    header = ("part", "modality", "sizes", "lowest", "highest", "mean", *(["not measured"] if some_invalid else []))
    rows = []
    for key, part in parts.items():
        for name, values in part.values.items():
            range_and_mean = (_number(value) for value in (values.lowest, values.highest, values.mean))
            share = [_percent(values.invalid_share)] if some_invalid else []
            rows.append((key, name, _sizes(values.sizes), *range_and_mean, *share))
    return header, rows


def _target_table(splits: DataSplits, parts: Mapping[str, PartSurvey], *, dense: bool) -> Rows:
    if splits.task == "regression":
        return _quantity_table(splits.classes, parts)
    return _pixel_table(splits.classes, parts) if dense else _class_table(splits.classes, parts)


def _quantity_table(names: Sequence[str], parts: Mapping[str, PartSurvey]) -> Rows:
    """Range, mean and deviation of each target quantity."""
    shown = ("lowest", "highest", "mean", "deviation")
    rows = [
        (key, name, *(_number(quantity[column]) for column in shown))
        for key, part in parts.items()
        if part.quantities is not None
        for name, quantity in zip(names, part.quantities.result(), strict=True)
    ]
    return ("part", "target", *shown), rows


def _class_table(classes: Sequence[str], parts: Mapping[str, PartSurvey]) -> Rows:
    counts = [part.per_class.tolist() for part in parts.values()]
    rows = [
        (label, *(str(count) for count in row)) for label, row in zip(classes, zip(*counts, strict=True), strict=True)
    ]
    return ("class", *parts), rows


def _pixel_table(classes: Sequence[str], parts: Mapping[str, PartSurvey]) -> Rows:
    """Pixels of each class, their share of the valid ones, the label maps that have it; bars show training's shares."""
    header = [
        "class",
        *(text for key in parts for text in (f"{key} pixels", "share", "maps")),
        f"share in {next(iter(parts))}",
    ]
    first = next(iter(parts.values()))
    most = max(1, int(first.per_class.max()))
    rows = []
    for index, label in enumerate(classes):
        cells = [text for part in parts.values() for text in _pixels(part, index)]
        length = -(-int(first.per_class[index]) * BAR // most)  # rounded up: what is there is seen
        rows.append((label, *cells, "#" * length))
    void = [text for part in parts.values() for text in (str(part.labels.void), "", "")]
    return header, [*rows, ("(void)", *void, "")]


def _pixels(part: PartSurvey, index: int) -> tuple[str, str, str]:
    pixels, total = int(part.per_class[index]), int(part.per_class.sum())
    return str(pixels), _percent(pixels / total if total else None), str(int(part.labels.maps[index]))


def _label_size_table(parts: Mapping[str, PartSurvey]) -> Rows:
    rows = [(key, _sizes(part.labels.sizes), str(part.labels.all_void)) for key, part in parts.items()]
    return ("part", "label maps", "of void alone"), rows


def joined(shape: Sequence[int]) -> str:
    """Such as 3x480x640."""
    return "x".join(map(str, shape))


def _sizes(sizes: Counter[tuple[int, ...]]) -> str:
    """The most frequent sizes with how often each was seen."""
    named = [f"{joined(size)} ({count})" for size, count in sizes.most_common(NAMED_SIZES)]
    more = [f"{len(sizes) - NAMED_SIZES} more"] if len(sizes) > NAMED_SIZES else []
    return ", ".join([*named, *more]) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def survey_record(name: str, splits: DataSplits, found: Survey) -> dict[str, Any]:
    """All that was found, as JSON values."""
    return {
        "name": name,
        "task": splits.task,
        "classes": list(splits.classes),
        "modalities": [
            {"name": m.name, "kind": m.kind, "shape": list(m.shape), "unit": m.unit} for m in splits.modalities
        ],
        "parts": {key: dict(_part_record(part)) for key, part in found.parts.items()},
        "notes": dict(splits.notes),
        "problems": found.problems,
    }


def _part_record(part: PartSurvey) -> Iterator[tuple[str, Any]]:
    yield "samples", part.samples
    yield "readable", part.readable
    if part.quantities is None:
        yield "per_class", part.per_class.tolist()
    else:
        yield "targets", part.quantities.result()
    yield "missing", {name: part.missing[name] for name in part.values}
    yield "unreadable", list(part.unreadable)
    yield (
        "values",
        {
            name: {
                "sizes": _size_record(values.sizes),
                "lowest": values.lowest,
                "highest": values.highest,
                "mean": values.mean,
                "not_measured": values.invalid_share,
            }
            for name, values in part.values.items()
        },
    )
    if part.labels.sizes:
        labels = part.labels
        yield "maps_per_class", labels.maps.tolist()
        yield "void", labels.void
        yield "all_void", labels.all_void
        yield "label_sizes", _size_record(labels.sizes)


def _size_record(sizes: Counter[tuple[int, ...]]) -> dict[str, int]:
    return {joined(size): count for size, count in sizes.most_common()}
