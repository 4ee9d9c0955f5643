"""Pages in a browser: scripts run without a complaint, tables sort, and nothing overflows on a phone or overlaps."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_group
from report_pages import make_record, write_results

from robustmm.report.compare import CompareRequest, compare
from robustmm.report.comparison_page import write_comparison_page
from robustmm.report.html import write_report

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium on the PATH"),
    pytest.mark.xdist_group("browser"),  # one browser for all of them
]
#: Widths in pixels: a phone, a desk.
WIDTHS = (390, 1280)
#: Loads each page at each width, sorts its tables, and writes down what it sees.
PROBE = """<!doctype html><meta charset="utf-8"><body><pre id="out"></pre><script>
const pages = PAGES, widths = WIDTHS, out = {};
const boxed = (element, view) => {
  for (let e = element.parentElement; e; e = e.parentElement)
    if (view.getComputedStyle(e).overflowX !== "visible") return true;
  return false;
};
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
const look = (frame, width) => {
  const page = frame.contentDocument, view = frame.contentWindow, found = {};
  for (const one of page.querySelectorAll("details")) one.open = true;
  found.scroll = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  found.beyond = [...page.querySelectorAll("body *")]
    .filter(e => { const r = e.getBoundingClientRect(); return r.width && r.right > width + 1 && !boxed(e, view); })
    .map(e => e.tagName + " " + e.textContent.trim().slice(0, 30));
  found.cut = []; found.overlapping = [];
  for (const plot of page.querySelectorAll("svg.plot")) {
    const edge = plot.getBoundingClientRect(), texts = [...plot.querySelectorAll("text")];
    const boxes = texts.map(text => text.getBoundingClientRect());
    boxes.forEach((box, k) => {
      const aside = Math.max(edge.left - box.left, box.right - edge.right);
      const outside = Math.max(aside, edge.top - box.top, box.bottom - edge.bottom);
      if (outside > 1)
        found.cut.push(plot.querySelector("title").textContent + ": " + texts[k].textContent);
      boxes.slice(0, k).forEach((other, m) => {
        if (overlap(box, other)) found.overlapping.push(
          plot.querySelector("title").textContent + ": " + texts[m].textContent + " / " + texts[k].textContent);
      });
    });
  }
  found.sorted = {};
  for (const table of page.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], column = heads.findIndex(head => head.classList.contains("num"));
    const texts = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value);
    const values = () => texts().filter(text => text !== "").map(Number);
    heads[column].querySelector("button").click(); const down = values();
    heads[column].querySelector("button").click(); const up = values();
    found.sorted[table.id || table.dataset.combination] = [down, up, heads[column].getAttribute("aria-sort")];
  }
  return found;
};
(async () => {
  for (const name of pages) for (const width of widths) {
    const frame = document.createElement("iframe");
    frame.style = `width:${width}px;height:900px;border:0`;
    const loaded = new Promise(done => { frame.onload = done; });
    frame.src = name;
    document.body.append(frame);
    await loaded;
    out[name + " " + width] = look(frame, width);
    frame.remove();
  }
  document.querySelector("#out").textContent = JSON.stringify(out);
  document.querySelector("#out").id = "done";
})();
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser saw.

    Args:
        pages: Name and width -> findings of the probe.
        console: What scripts and the browser said of the pages.
    """

    pages: dict[str, dict[str, Any]]
    console: list[str]


def look_at(folder: Path, names: list[str]) -> Seen:
    """Open pages of a folder in the browser."""
    probe = PROBE.replace("PAGES", json.dumps(names)).replace("WIDTHS", json.dumps(WIDTHS))
    (folder / "probe.html").write_text(probe, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [str(BROWSER), *flags, "--dump-dom", (folder / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    written = re.search(r'<pre id="done">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written is not None, done.stderr
    return Seen(json.loads(html.unescape(written[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A run of six modalities with long names, every protocol, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    names = ["rgb", "depth", "surface_normals_estimated", "thermal", "near_infrared_long_name", "audio"]
    write_results(folder, _record(names), **_protocols(names))
    lines = [_epoch(names, epoch) for epoch in range(4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    write_report(folder)
    root = folder / "runs"
    write_group(root, "a_plain", [0.0] * 4)
    write_group(root, "b_drop", [0.05, 0.06, 0.04, 0.055], method__name="modality_dropout")
    write_comparison_page(compare(CompareRequest([root])), folder)
    return look_at(folder, ["report.html", "comparison.html"])


def _record(names: list[str]) -> dict[str, Any]:
    confusion = [[20 - abs(a - b) if abs(a - b) < 3 else 0 for b in range(10)] + [0] for a in range(10)]
    classes = [f"a class called {number}" for number in range(10)]
    record = make_record(names, classes=classes, confusions={"+".join(names): confusion, "rgb": confusion[::-1]})
    record["rows"][3]["degenerate"] = True
    return record | {"degenerate": ["thermal"]}


def _epoch(names: list[str], epoch: int) -> dict[str, Any]:
    own = {f"validation/{name}/accuracy": 0.5 + place / 97 + epoch / 50 for place, name in enumerate(names)}
    more = {"validation/mean/accuracy": 0.5 + epoch / 20, "validation/worst/accuracy": 0.3 + epoch / 20}
    return {"kind": "epoch", "step": epoch, "epoch": epoch, **own, **more}


def _protocols(names: list[str]) -> dict[str, dict[str, Any]]:
    record = make_record(names)
    places = [("bernoulli", None), ("block", None), *(("per_modality", name) for name in names)]
    rows = [
        {
            "pattern": pattern,
            "modality": name,
            "rate": rate,
            "seed": seed,
            "complete_share": 1 - rate,
            "realised": dict.fromkeys(["overall", *names], rate * 0.96),
            "metrics": {"accuracy": 0.9 - rate / (3 + place) + seed / 100},
            "samples": 1000,
            "excluded": 0,
            "degenerate": False,
        }
        for place, (pattern, name) in enumerate(places)
        for rate in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        for seed in (0, 1)
    ]
    curves = [
        {
            **{key: row[key] for key in ("pattern", "modality", "rate")},
            "draws": 2,
            "metrics": {"accuracy": {"mean": row["metrics"]["accuracy"] + 0.005, "sd": 0.007}},
        }
        for row in rows[::2]
    ]
    masks = {"file": "eval/masks.npz", "sha256": "c5" * 32, "drawn": True, "count": 160, "samples": 1000}
    levels = [0.0, 1.0, 5.0, 10.0]
    noisy = [{"noise": "salt_pepper_qmf", "strength": s, "degenerate": False, "excluded": 0} for s in levels]
    noise = [
        {**row, "draws": 3, "metrics": {"accuracy": {"mean": 0.9 - row["strength"] / 40, "sd": 0.01}}} for row in noisy
    ]
    bins = [[0.0, None, None]] * 5 + [[10.0 * n, (5.5 + n) / 15, (4 + n) / 15] for n in range(1, 11)]
    calibration = [
        {
            "combination": row["combination"],
            "metrics": {"ece": 0.1, "aurc": 0.01, "ood_auroc": None},
            "bins": bins,
            "samples": 550,
        }
        for row in record["rows"]
    ]
    times = [
        {
            "combination": row["combination"],
            "batch_size": 1,
            "repeats": 9,
            "metrics": {"median_ms": n + 0.5, "p95_ms": n + 1.0, "flops": n * 1e9, "peak_memory_bytes": n * 1e6},
        }
        for n, row in enumerate(record["rows"])
    ]
    return {
        "missing_rate": {**record, "rows": rows, "curves": curves, "masks": masks},
        "corruption": {**record, **_corruption(names)},
        "noise": {**record, "rows": noisy, "curves": noise},
        "calibration": {**record, "rows": calibration, "directions": {"ece": "min", "aurc": "min", "ood_auroc": "max"}},
        "latency": {**record, "rows": times, "measured_on": "cpu", "threads": 1, "parameters": 93066},
    }


def _corruption(names: list[str]) -> dict[str, Any]:
    kinds = ("gaussian_noise", "conflict", "feature_dropout")
    rows = [
        {
            "modality": name,
            "corruption": kind,
            "severity": s,
            "metrics": {"accuracy": 0.9 - s * p / 60},
            "degenerate": False,
        }
        for kind in kinds
        for p, name in enumerate(names)
        for s in (1, 3, 5)
    ]
    means = [
        {
            "modality": row["modality"],
            "corruption": row["corruption"],
            "metrics": row["metrics"],
            "drop": {"accuracy": 0.01},
        }
        for row in rows[1::3]
    ]
    skipped = [{"modality": name, "corruption": "jpeg", "reason": "it is for image, not vector"} for name in names]
    return {
        "rows": rows,
        "means": means,
        "skipped": skipped,
        "clean": {"accuracy": 0.9},
        "severities": [1, 3, 5],
        "corruption_seed": 0,
    }


def test_scripts__run_without_a_complaint(seen: Seen) -> None:
    assert seen.console == []


def test_tables__sort_down_and_up(seen: Seen) -> None:
    tables = {**seen.pages["report.html 1280"]["sorted"], **seen.pages["comparison.html 390"]["sorted"]}
    assert {"combination-table", "calibration-table", "latency-table", "difference-table", "group-table"} <= set(tables)
    for down, up, state in tables.values():
        assert down == sorted(down, reverse=True)
        assert up == sorted(up)
        assert state == "ascending"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["report.html", "comparison.html"])
def test_pages__nothing_overflows_is_cut_or_overlaps(seen: Seen, page: str, width: int) -> None:
    found = seen.pages[f"{page} {width}"]
    assert found["scroll"] == 0
    assert found["beyond"] == []
    assert found["cut"] == []
    assert found["overlapping"] == []
