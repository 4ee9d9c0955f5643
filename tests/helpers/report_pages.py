"""Pages of runs, read back as nodes, and records as `robustmm evaluate` writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

from robustmm.report.html import write_report

VOID = {"meta", "wbr", "br", "input", "img"}
SVG_LEAVES = {"line", "circle", "polyline", "polygon", "path", "rect"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else c.raw for c in self.children).split())

    @property
    def raw(self) -> str:
        return "".join(c if isinstance(c, str) else c.raw for c in self.children)

    def find(self, tag: str, **attributes: str) -> list[Node]:
        found: list[Node] = []
        for child in self.children:
            if isinstance(child, Node):
                wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
                if child.tag == tag and all(child.attributes.get(name) == value for name, value in wanted.items()):
                    found.append(child)
                found += child.find(tag, **attributes)
        return found


class Tree(HTMLParser):
    """A page as nodes; a tag that is closed out of order is an error of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]
        self.feed(text)
        assert self.open == [self.root], [node.tag for node in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_LEAVES, tag
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def make_record(modalities: list[str], **changes: Any) -> dict[str, Any]:
    """A record as `robustmm evaluate` writes it, with scores that all differ."""
    rows = []
    for size in range(1, len(modalities) + 1):
        for combo in combinations(modalities, size):
            place = len(rows)
            rows.append(
                {
                    "combination": "+".join(combo),
                    "metrics": {"accuracy": 0.4 + place / 137, "auroc": None if place == 0 else 0.9 - place / 991},
                    "samples": 100 + place,
                    "excluded": 0,
                    "incomplete": 0,
                    "degenerate": False,
                }
            )
    accuracy = [row["metrics"]["accuracy"] for row in rows]
    mean = sum(accuracy) / len(accuracy)
    record = {
        "run": "demo",
        "dataset": "six_views",
        "split": "test",
        "method": "dmrnet",
        "balancer": "ogm",
        "missing_policy": "zero_feature",
        "seed": 3,
        "score": "accuracy",
        "directions": {"accuracy": "max", "auroc": "max"},
        "classes": ["no", "yes"],
        "selection": {"part": "validation", "metric": "mean/accuracy", "value": 0.8125, "epoch": 1},
        "data": {"validation": "the data set's own", "test_samples": 1000},
        "rows": rows,
        "aggregates": {
            "mean": {"accuracy": mean, "auroc": None},
            "worst": {"accuracy": accuracy[0], "auroc": None},
            "complete": {"accuracy": accuracy[-1], "auroc": None},
            "drop": {"accuracy": accuracy[-1] - mean, "auroc": None},
        },
        "unimodal": {"source": None, "rows": []},
        "degenerate": [],
        "chance": 0.1,
    }
    return record | changes


def write_results(folder: Path, record: dict[str, Any], **others: dict[str, Any]) -> None:
    """``results.json`` with the record of all combinations and others by protocol, ``_`` written for ``-``."""
    protocols = {"combinations": record, **{name.replace("_", "-"): other for name, other in others.items()}}
    (folder / "results.json").write_text(json.dumps({"format": 1, "protocols": protocols}), encoding="utf-8")


def page_of(folder: Path, record: dict[str, Any], **others: dict[str, Any]) -> Node:
    """The page of a run with these results, see `write_results`."""
    write_results(folder, record, **others)
    return read_page(write_report(folder))


def read_page(path: Path) -> Node:
    """A page as nodes."""
    return Tree(path.read_text(encoding="utf-8")).root


def value_of(cell: Node) -> float | None:
    """The number of a cell in full precision."""
    text = cell.attributes["data-value"]
    return float(text) if text else None


def remarks_of(page: Node) -> list[str]:
    (box,) = page.find("aside")
    return [item.text for item in box.find("li")]
