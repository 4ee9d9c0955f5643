"""Run folders: names, refusals, which one is resumed, and the marks at the end."""

import json
import re

import pytest

from robustmm import CheckpointError
from robustmm.engine.run_folder import RunFolder, environment, new_folder, unfinished_folder


def started(root, name: str, *, done: bool = False) -> RunFolder:
    folder = RunFolder(root / "demo" / name)
    folder.begin("seed: 0\n", [])
    if done:
        folder.finish()
    return folder


def test_new_folder__is_named_by_configuration_time_and_seed(tmp_path):
    path = new_folder(tmp_path, "demo", 3).path
    assert path.parent == tmp_path / "demo"
    assert re.fullmatch(r"\d{8}-\d{6}-s3", path.name)
    assert list(path.iterdir()) == []


def test_new_folder__two_in_one_second_get_two_names(tmp_path, monkeypatch):
    class Stopped:
        @staticmethod
        def now():
            return Stopped()

        def strftime(self, form):
            return "20260102-030405"

    monkeypatch.setattr("robustmm.engine.run_folder.datetime", Stopped)
    names = []
    for _ in range(3):
        names.append(new_folder(tmp_path, "demo", 0).path.name)
    assert names == ["20260102-030405-s0", "20260102-030405-s0-2", "20260102-030405-s0-3"]


def test_new_folder__refuses_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError) as caught:
        new_folder(tmp_path, "demo", 0, given=tmp_path)
    assert str(caught.value) == (f"{tmp_path} is not empty; add --resume to continue it, or --overwrite to replace it")


def test_new_folder__takes_an_empty_or_new_folder_that_the_user_named(tmp_path):
    assert new_folder(tmp_path, "demo", 0, given=tmp_path).path == tmp_path
    assert new_folder(tmp_path, "demo", 0, given=tmp_path / "new").path == tmp_path / "new"


def test_new_folder__overwrite_refuses_what_is_no_run_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError) as caught:
        new_folder(tmp_path, "demo", 0, given=tmp_path, overwrite=True)
    assert str(caught.value) == (f"{tmp_path} does not look like a run folder (no config.yaml); not overwriting it")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_new_folder__overwrite_empties_a_run_folder(tmp_path):
    folder = started(tmp_path, "old")
    again = new_folder(tmp_path, "demo", 0, given=folder.path, overwrite=True)
    assert again.path == folder.path
    assert not folder.path.exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_new_folder__refuses_a_file(tmp_path, overwrite):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(CheckpointError) as caught:
        new_folder(tmp_path, "demo", 0, given=path, overwrite=overwrite)
    assert str(caught.value) == f"{path} is a file; name a folder"


def test_unfinished_folder__is_the_newest_open_run_of_this_seed(tmp_path):
    started(tmp_path, "20260101-000000-s1")
    wanted = started(tmp_path, "20260102-000000-s1")
    started(tmp_path, "20260103-000000-s1", done=True)
    started(tmp_path, "20260104-000000-s2")
    assert unfinished_folder(tmp_path, "demo", 1) == wanted


def test_unfinished_folder__seed_1_is_not_seed_12(tmp_path):
    started(tmp_path, "20260102-000000-s12")
    wanted = started(tmp_path, "20260101-000000-s1")
    assert unfinished_folder(tmp_path, "demo", 1) == wanted


def test_unfinished_folder__tenth_of_a_second_is_newer_than_the_second(tmp_path):
    for suffix in ("", "-2", "-10"):
        newest = started(tmp_path, f"20260101-000000-s1{suffix}")
    assert unfinished_folder(tmp_path, "demo", 1) == newest


def test_unfinished_folder__a_failed_run_can_be_resumed(tmp_path):
    folder = started(tmp_path, "20260101-000000-s0")
    folder.fail(ValueError("boom"))
    assert unfinished_folder(tmp_path, "demo", 0) == folder


def test_unfinished_folder__says_what_there_is(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        unfinished_folder(tmp_path, "demo", 0)
    assert str(caught.value) == (
        f"nothing to resume: no unfinished run of 'demo' with seed 0 under {tmp_path / 'demo'}; "
        "start one without --resume"
    )
    started(tmp_path, "20260101-000000-s0", done=True)
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path / 'demo'} (1 finished); start one")):
        unfinished_folder(tmp_path, "demo", 0)


def test_unfinished_folder__takes_the_one_that_the_user_named(tmp_path):
    folder = started(tmp_path, "anything", done=True)
    assert unfinished_folder(tmp_path, "other", 5, given=folder.path) == folder
    with pytest.raises(CheckpointError) as caught:
        unfinished_folder(tmp_path, "demo", 0, given=tmp_path)
    assert str(caught.value) == f"nothing to resume: {tmp_path} is not a run folder (no config.yaml)"


def test_begin__writes_configuration_sources_and_environment(tmp_path):
    source = tmp_path / "mine.yaml"
    source.write_text("name: mine\n")
    folder = RunFolder(tmp_path / "run")
    folder.begin("name: größe\n", [source, source])
    assert folder.config.read_text(encoding="utf-8") == "name: größe\n"
    assert sorted(p.name for p in (folder.path / "config.source").iterdir()) == ["0-mine.yaml", "1-mine.yaml"]
    assert json.loads((folder.path / "env.json").read_text())["versions"]["torch"]


def test_marks__one_at_a_time_and_cleared_by_a_new_beginning(tmp_path):
    folder = started(tmp_path, "run")
    assert not folder.done
    try:
        raise ValueError("boom")
    except ValueError as error:
        folder.fail(error)
    assert "ValueError: boom" in (folder.path / "FAILED").read_text()
    assert not folder.done
    folder.finish()
    assert folder.done
    assert not (folder.path / "FAILED").exists()
    folder.begin("seed: 0\n", [])
    assert not folder.done


def test_environment__is_json():
    assert {"time", "command", "python", "versions", "commit", "gpus"} <= set(json.loads(json.dumps(environment())))


def test_environment__works_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None
