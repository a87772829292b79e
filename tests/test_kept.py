"""A run's notebook, page and thumbnail are there together; what is cut, edited or another run's is noticed."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mlkernels.course.claim_records import CLAIM_MIME
from mlkernels.runner import jobs, kept, pages, pool, report

CLAIM = {
    "id": "meta.rate", "statement": "It falls.", "source": "S", "expected": "e", "verdict": "holds", "why": "",
    "test": "t", "expected_to_hold": True, "values": {},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quick_pages():
    """Pages by hand, and no MathJax beside them: what makes them has tests of its own (test_report.py)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept, "render", lambda notebook, *told: f"<p>{notebook.cells[1].outputs[0].data}</p>")
        patched.setattr(report, "copy_mathjax", lambda out: None)
        yield


def notebook(measured, status="finished"):
    """An executed notebook that shows one number, in its claim and in a picture."""
    data = {"image/png": base64.b64encode(measured.encode()).decode(), "text/plain": measured}
    outputs = [new_output("display_data", data={CLAIM_MIME: {**CLAIM, "measured": measured}, "text/plain": measured})]
    outputs.append(new_output("display_data", data=data))
    made = new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("x", outputs=outputs)])
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
    made.metadata["mlkernels"] = {
        "status": status, "preset": "quick", "seed": 0, "device": {"kind": "x"}, "failure": None, "parameters": {},
        "started": "2025-01-01T00:00:00+00:00", "wall_seconds": 1.0, "fingerprint": measured, "versions": {},
    }  # fmt: skip
    return made


def job(folder, measured):
    return jobs.Job("00_a", folder / "source.ipynb", folder / "00_a.ipynb", "quick", fingerprint=measured)


def run(folder, measured):
    """All that a run does once its notebook has been executed."""
    kept.keep(notebook(measured), folder / "00_a.ipynb")
    report.write_report(folder, preset="quick", command="mlkernels run")


def resumed(folder, measured):
    """The same, but for what is finished: as --resume does."""
    if jobs.unchanged(job(folder, measured)):
        report.write_report(folder, preset="quick", command="mlkernels run")
    else:
        run(folder, measured)


def left(folder):
    """All files of a run, but for the time in two of them."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    texts = {name: path.read_text() for name, path in found.items()}
    result = json.loads(texts.pop("claims.json"))
    texts["index.html"] = texts["index.html"].replace(result.pop("created")[:16].replace("T", " "), "")
    return texts | {"claims": result}


def made(folder, measured):
    run(folder, measured)
    return left(folder)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """What two runs leave, each in a folder of its own: 0.165 and 0.074."""
    return {measured: made(tmp_path_factory.mktemp("fresh"), measured) for measured in ("0.165", "0.074")}


def shown(folder):
    """The number that each file shows."""
    files = [folder / name for name in ("00_a.ipynb", "00_a.html", "claims.json", "index.html", "thumbs/00_a.png")]
    return {number for path in files for number in ("0.165", "0.074") if number in path.read_text()}


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("then", ["0.165", "0.074"])
def test_a_run_that_is_killed_between_two_of_its_files_leaves_what_resume_mends(
    tmp_path, monkeypatch, fresh, number, then
):
    """At each of its renames: page, notebook, thumbnail, claims, index. Either run is then asked for."""
    run(tmp_path, "0.165")
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) == number:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "0.074")
    old = jobs.unchanged(job(tmp_path, "0.165"))
    assert (old is None) == (number > 2), "the notebook is the second, and says which run counts"
    resumed(tmp_path, then)
    assert shown(tmp_path) == {then}
    assert left(tmp_path) == fresh[then]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_waits_until_all_files_have_their_names(tmp_path, monkeypatch, name, fresh):
    run(tmp_path, "0.165")
    replace, told = os.replace, []

    def hit(source, target):
        signal.raise_signal(name)
        replace(source, target)

    before = signal.signal(name, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", hit)
            with pytest.raises(KeyboardInterrupt):
                kept.keep(notebook("0.074"), tmp_path / "00_a.ipynb", told.append)
        assert signal.getsignal(name) is signal.default_int_handler
    finally:
        signal.signal(name, before)
    assert told == [jobs.unchanged(job(tmp_path, "0.074"))]
    resumed(tmp_path, "0.074")
    assert left(tmp_path) == fresh["0.074"]


@pytest.mark.parametrize("name", ["00_a.html", "thumbs/00_a.png", "claims.json", "index.html"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "another"])
def test_resume_notices_a_file_that_is_damaged_or_not_of_this_notebook(tmp_path, fresh, name, damage):
    run(tmp_path, "0.165")
    path, content = tmp_path / name, fresh["0.074"].get(name, "{}")
    if damage == "missing":
        path.unlink()
    else:
        path.write_text({"empty": "", "cut": path.read_text()[:-1], "another": content}[damage])
    notebook_before = (tmp_path / "00_a.ipynb").stat().st_mtime_ns
    resumed(tmp_path, "0.165")
    assert left(tmp_path) == fresh["0.165"]
    assert (tmp_path / "00_a.ipynb").stat().st_mtime_ns == notebook_before, "it does not run again"


def edited(text):
    return text.replace("0.165", "0.001")


@pytest.mark.parametrize("change", [edited, lambda text: text[:-30], lambda text: ""], ids=["edited", "cut", "empty"])
def test_a_measured_value_that_was_edited_is_no_claim_and_resume_runs_again(tmp_path, fresh, change):
    run(tmp_path, "0.165")
    path = tmp_path / "00_a.ipynb"
    path.write_text(change(path.read_text()))
    result = report.write_report(tmp_path, preset="quick", command="mlkernels run")
    assert (result["claims"], result["notebooks"]) == ([], {})
    assert "0.001" not in (tmp_path / "index.html").read_text()
    assert report.touched_in(tmp_path) == ["00_a"]
    resumed(tmp_path, "0.165")
    assert left(tmp_path) == fresh["0.165"]
    assert report.touched_in(tmp_path) == []


def test_a_page_that_is_made_anew_is_the_same_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "render", pages.render)
    kept.keep(notebook("0.165"), tmp_path / "00_a.ipynb")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "00_a.html").write_bytes(before["00_a.html"][:-20])
    assert kept.mend_page(tmp_path / "00_a.ipynb")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_page_by_another_version_of_what_makes_pages_is_whole_from_then_on(tmp_path, monkeypatch):
    kept.keep(notebook("0.165"), tmp_path / "00_a.ipynb")
    (tmp_path / "00_a.html").unlink()
    monkeypatch.setattr(kept, "render", lambda *given: "another page")
    assert kept.mend_page(tmp_path / "00_a.ipynb")
    assert not kept.mend_page(tmp_path / "00_a.ipynb")
    assert (tmp_path / "00_a.html").read_text() == "another page"
    assert jobs.unchanged(job(tmp_path, "0.165"))


def test_a_failed_run_moves_a_finished_one_aside_and_an_interrupted_one_loses_neither(tmp_path, monkeypatch):
    target = tmp_path / "00_a.ipynb"
    kept.keep(notebook("0.165"), target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(kept, "write_together", lambda files, done: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kept.keep(notebook("0.074", "failed"), target)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("00*")} == before
    kept.keep(notebook("0.074", "failed"), target)
    assert {path.name: path.read_bytes() for path in (tmp_path / "previous").iterdir()} == before
    assert kept.record_of(target)["status"] == "failed"


class Worker:
    """A process that has said what it did, as far as `pool` sees it."""

    def __init__(self, job, timeout, environment, events):
        self.job, self.process, self.thread = job, self, self
        events.put((self, {"event": "start", "cells": 1}))
        self.events = events

    def stop(self):
        if self.job.preset == "quick":  # it had just ended
            self.events.put((self, {"event": "done", "record": {"failure": None, "wall_seconds": 1.0}}))

    def wait(self, *_):
        return 0

    join = poll = wait

    def close(self):
        pass


class Silent(pool.Display):
    def start(self, name, cells):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("preset", "status"), [("quick", "finished"), ("class", "interrupted")])
def test_a_stopped_run_says_so_whatever_lies_there_from_before(tmp_path, monkeypatch, preset, status):
    run(tmp_path, "0.165")
    work = jobs.Job("00_a", Path("a/b/00_a.ipynb"), tmp_path / "00_a.ipynb", preset, fingerprint="0.165")
    monkeypatch.setattr(pool, "Worker", Worker)
    with pytest.raises(pool.Stopped) as stopped:
        pool.run([work], display=Silent())
    assert [outcome.status for outcome in stopped.value.outcomes] == [status]
