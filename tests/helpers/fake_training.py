"""Child processes that stand in for ``robustmm train``: they write a run folder in a tenth of a second.

The scores of a run follow from its overrides: ``train.epochs`` of 13 fails, the larger ``optimizer.lr`` the better on
test, and on validation the nearer to 0.1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from robustmm.sweep.tasks import TrainTask

_REAL = TrainTask.command


def use_fake_training(monkeypatch: pytest.MonkeyPatch, like: Path | None = None) -> list[list[str]]:
    """Let every task start this file in place of ``robustmm``.

    Args:
        monkeypatch: Of the test.
        like: A run whose data and numbers of samples the results have.

    Returns:
        The real command lines, filled as they are asked for.
    """
    asked: list[list[str]] = []

    def command(task: TrainTask) -> list[str]:
        real = _REAL(task)
        asked.append(real)
        return [sys.executable, __file__, *real[real.index("train") + 1 :], *(["like", str(like)] if like else [])]

    monkeypatch.setattr(TrainTask, "command", command)
    return asked


def _main(arguments: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import shutil
    from itertools import pairwise

    from fake_runs import combinations, config_with, write_run

    chosen = dict(text.split("=", 1) for before, text in pairwise(arguments) if before == "-o")
    like = arguments[arguments.index("like") + 1] if "like" in arguments else None
    folder, seed, lr = (
        Path(arguments[arguments.index("--folder") + 1]),
        int(chosen.get("seed", 0)),
        chosen.get("optimizer.lr"),
    )
    config = config_with(seed=seed, optimizer__lr=float(lr or 0.01), method__name=chosen.get("method.name", "plain"))
    shutil.rmtree(folder, ignore_errors=True)
    if chosen.get("train.epochs") == "13":
        write_run(folder, config, {}, mark="FAILED")
        (folder / "FAILED").write_text("2026\nTraceback\nRunFailed: loss 'task' is nan at step 3\n")
        raise SystemExit(1)
    names = chosen.get("data.modalities", "[rgb, depth]").strip("[]").split(", ")
    scores = dict.fromkeys([*names, "+".join(names)], 0.5 + 0.01 * seed + config["optimizer"]["lr"] / 2)
    record = combinations(config, scores)
    record["selection"]["value"] = 0.9 - abs(config["optimizer"]["lr"] - 0.1)
    if like is not None:
        theirs = json.loads((Path(like) / "results.json").read_text())["protocols"]["combinations"]
        record |= {"dataset": theirs["dataset"], "data": theirs["data"]}
        for row in record["rows"]:
            row["samples"] = theirs["rows"][0]["samples"]
    write_run(folder, config, {"combinations": record})


if __name__ == "__main__":
    _main(sys.argv[1:])
