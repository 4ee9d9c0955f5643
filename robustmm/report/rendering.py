"""Templates of pages, and how values are written in them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robustmm.report.tables import digits

#: Of templates, style sheet and script.
HOME = Path(__file__).parent
#: Scores whose names are written in a way of their own.
SPELLED = {
    "iou": "IoU",
    "miou": "mIoU",
    "mae": "MAE",
    "rmse": "RMSE",
    "nll": "NLL",
    "ece": "ECE",
    "mce": "MCE",
    "aurc": "AURC",
    "auroc": "AUROC",
    "ood": "OOD",
    "flops": "FLOPs",
    "brier": "Brier",
}
SPELLED_WORD = re.compile(rf"\b({'|'.join(SPELLED)})\b")
#: Of counts and of bytes, each a thousand, or 1024, times the one before.
COUNT_UNITS, BYTE_UNITS = ("", " k", " M", " G", " T", " P"), (" B", " KiB", " MiB", " GiB", " TiB")
NOTHING = "–"
#: Differences of scores up to this size come from the order of sums.
ROUNDING = 1e-12


def render(template: str, content: Mapping[str, Any]) -> Markup:
    """A template with its values; a value that is not there is an error of ours."""
    return Markup(environment().get_template(template).render(**content))


def page_parts() -> dict[str, Markup]:
    """Style and script, which every page holds itself."""
    names = {"style": "report.css", "script": "report.js"}
    return {key: Markup((HOME / name).read_text(encoding="utf-8")) for key, name in names.items()}


@cache
def environment() -> Environment:
    """Compiled templates; a sweep writes many pages."""
    made = Environment(
        loader=FileSystemLoader(HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "signed": signed,
        "share": share,
        "percent": percent,
        "amount": amount,
        "storage": storage,
        "words": words,
        "headline": headline,
        "flat": flat,
        "identifier": identifier,
        "p_value": p_value,
    }
    return made


def number(value: float | None) -> str:
    """As `robustmm.report.tables.digits` has it, or a dash where there is no value."""
    return NOTHING if value is None or not math.isfinite(value) else digits(value)


def signed(value: float | None) -> str:
    """As `number`, with a sign in front; what differs by rounding alone does not differ."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return digits(value, "+").replace("-", "−") if abs(value) > ROUNDING else "0.0000"


def share(value: float | None, scale: float) -> str:
    """Length of a bar in percent."""
    return f"{100 * min(max((value or 0.0) / scale, 0.0), 1.0):.1f}%"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share in percent."""
    return NOTHING if value is None else f"{100 * value:.{decimals}f}"


def amount(value: float | None) -> str:
    """A count in thousands, millions and so on, three digits."""
    return _scaled(value, COUNT_UNITS, 1000)


def storage(value: float | None) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    return _scaled(value, BYTE_UNITS, 1024)


def _scaled(value: float | None, units: tuple[str, ...], step: int) -> str:
    if value is None:
        return NOTHING
    place = 0
    while abs(value) >= step and place < len(units) - 1:
        value, place = value / step, place + 1
    text = f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"
    return text + units[place]


def p_value(value: float | None) -> str:
    """Three digits, never 0."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def words(name: str) -> str:
    """``macro_accuracy`` -> ``macro accuracy``, ``mean/miou`` -> ``mean/mIoU``."""
    return SPELLED_WORD.sub(lambda found: SPELLED[found[0]], name.replace("_", " "))


def headline(text: str) -> str:
    """With a large first letter, unless the first word has a spelling of its own."""
    return text if text.startswith(tuple(SPELLED.values())) else text[:1].upper() + text[1:]


def identifier(name: str) -> str:
    """A name as part of an ``id``: letters, digits and hyphens, other letters as their numbers."""
    return "".join(c if c.isascii() and c.isalnum() else "-" if c in " -_" else f"-{ord(c):x}-" for c in name)


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact; nested facts follow the name of their group."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{name}: {inner}", text) for inner, text in flat(value)]
        elif isinstance(value, list):
            found.append((name, ", ".join(map(str, value)) or "none"))
        else:
            found.append((name, NOTHING if value is None else str(value)))
    return found
