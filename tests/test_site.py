"""The site as a reader has it: from files, without a network, by keyboard, without scripts, on paper, on a phone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import _site
import html5lib
import nbformat
import numpy as np
import pytest
from _accessibility import CUT, FAINT, page_faults
from _browser import browser_page, chromium
from _cli import status_of
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from benchmarks import site as bench
from mlkernels.course.demos import search_replay, start_here
from mlkernels.course.demos.demo import steps
from mlkernels.course.demos.grid import Grid
from mlkernels.errors import InputError
from mlkernels.runner import jobs, pool, report, site, site_benchmarks, site_frames, site_pages
from mlkernels.runner.kept import keep

CONTROLS = (steps("a", "a", range(7), 2), steps("b", "b", range(3), 0), steps("c", "c", (0, 1), 1))
PAGE = f"{_site.NAME}.html"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The small site."""
    home = tmp_path_factory.mktemp("site")
    keep(_site.notebook(), home / PAGE.replace("html", "ipynb"))
    made = {_site.NAME: home / PAGE.replace("html", "ipynb")}
    site.build(home / "site", made, command="make site", grids=_site.GRIDS)
    return home / "site"


@pytest.fixture(scope="module")
def pages(out):
    """Address -> its HTML, parsed."""
    return {path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in out.glob("*.html")}


# --- grids ------------------------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_of_what_moves_together_and_the_defaults_first():
    points = [tuple(p.values()) for p in Grid(together=(("a", "b"), ("c",))).points(CONTROLS)]
    assert points[0] == (2, 0, 1)
    assert len(points) == len(set(points)) == 7 * 3 + 1
    assert {(a, b, 1) for a in range(7) for b in range(3)} | {(2, 0, 0)} == set(points)


def test_a_grid_without_sets_has_all_and_one_with_stops_has_these():
    assert len([*Grid().points(CONTROLS)]) == 42
    grid = Grid(stops={"a": (0, 2), "c": (1,)})
    assert {p["a"] for p in grid.points(CONTROLS)} == {0, 2}
    assert {p["c"] for p in grid.points(CONTROLS)} == {1}


def test_what_moves_with_nothing_stays_at_its_default():
    assert Grid(together=(("a",),)).kept(CONTROLS[1]) == (0,)


def test_a_thinner_grid_is_a_part_with_the_defaults_and_the_ends():
    whole = Grid(most=12).fitting(CONTROLS)
    points = {tuple(p.values()) for p in whole.points(CONTROLS)}
    assert len(points) <= 12
    assert points < {tuple(p.values()) for p in Grid().points(CONTROLS)}
    assert (2, 0, 1) in points
    first = Grid().thinner(CONTROLS)
    assert first.kept(CONTROLS[0]) == (0, 2, 4, 6)
    while (thinner := whole.thinner(CONTROLS)) is not None:
        whole = thinner
    assert len([*whole.points(CONTROLS)]) == 1


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (Grid(together=(("d",),)), "controls a, b, c"),
        (Grid(stops={"a": (0, 9, 2)}), "stops of a"),
        (Grid(stops={"a": (0, 1)}), "2 among them"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(grid, said):
    with pytest.raises(InputError, match=said):
        grid.check("demo", CONTROLS)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_ground_and_what_moves_are_the_demos_own_picture(out):
    folder, demo = out / "demos" / "start_here", start_here.DEMO
    table = json.loads((folder / "frames.json").read_text())
    ground = Image.open(folder / "ground.webp").convert("RGB")
    assert len(table["frames"]) == 6
    for key, values in (("0,0", {"shot": 2, "inner_steps": 0}), ("1,2", {"shot": 5, "inner_steps": 1000})):
        file, alt, readout = table["frames"][key]
        whole = ground.copy()
        moving = Image.open(folder / file)
        whole.paste(moving, mask=moving.getchannel("A"))
        frame = demo.frame(demo.build(), **values)
        theirs = np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"))
        off = np.abs(np.asarray(whole).astype(int) - theirs)
        assert off.mean() < 0.1
        assert (off.max(-1) > 0).mean() < 0.05
        assert (alt, readout) == (frame.alt, frame.readout)


def test_frames_are_drawn_once(out, tmp_path):
    folder = tmp_path / "start_here"
    shutil.copytree(out / "demos" / "start_here", folder)
    (folder / "mine").write_text("")
    site_frames.frames(start_here.DEMO, folder, _site.GRIDS["start_here"])
    assert (folder / "mine").exists()


def test_frames_of_which_one_is_damaged_are_drawn_again(out, tmp_path, monkeypatch):
    def draw(*given):
        raise StopIteration

    monkeypatch.setattr(site_frames, "_drawn", draw)
    folder, grid = tmp_path / "start_here", _site.GRIDS["start_here"]
    shutil.copytree(out / "demos" / "start_here", folder)
    table = json.loads((folder / "frames.json").read_text())
    monkeypatch.setattr(site_frames, "fingerprint", lambda *given: table["fingerprint"])
    for name in ("frames.json", "ground.webp", table["frames"]["1,2"][0]):
        whole = (folder / name).read_bytes()
        for content in (whole[:-1], b""):
            (folder / name).write_bytes(content)
            with pytest.raises(StopIteration):
                site_frames.frames(start_here.DEMO, folder, grid)
        (folder / name).unlink()
        with pytest.raises(StopIteration):
            site_frames.frames(start_here.DEMO, folder, grid)
        (folder / name).write_bytes(whole)
        assert site_frames.frames(start_here.DEMO, folder, grid) == table


def test_a_picture_that_is_damaged_is_written_again_and_a_whole_one_stays(out, tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(file, "png")
    name, *size = site_pages.picture(file.getvalue(), tmp_path)
    whole, times = (tmp_path / name).read_bytes(), []
    for content in (whole[:-3], b"", whole.replace(whole[20:22], b"\x00\x00"), whole):
        (tmp_path / name).write_bytes(content)
        times.append((tmp_path / name).stat().st_mtime_ns)
        assert site_pages.picture(file.getvalue(), tmp_path) == (name, *size)
        assert (tmp_path / name).read_bytes() == whole
    assert (tmp_path / name).stat().st_mtime_ns == times[-1]


def test_a_small_budget_thins_the_grid_and_says_so(tmp_path):
    grid = Grid(stops={"task": (1,), "shot": (5,), "inner_steps": (0, 20, 50, 100, 1000)}, budget=60_000)
    table = site_frames.frames(start_here.DEMO, tmp_path / "demo", grid)
    assert table["bytes"] <= 60_000
    assert sum(path.stat().st_size for path in (tmp_path / "demo").glob("*.webp")) == table["bytes"]
    (said,) = [line for line in table["left"] if line.startswith("inner steps")]
    assert re.fullmatch(r"inner steps τ (has 3 of 11 stops|stays at 50)\.", said)


def test_a_demo_without_a_picture_at_its_defaults_says_why_and_has_the_others(tmp_path):
    def compute(**values):
        if values == start_here.DEMO.settings():
            raise InputError("start: expected another one, got this; move a control")
        return start_here.DEMO.compute(**values)

    grid = Grid(stops={"task": (1,), "shot": (5,), "inner_steps": (50, 1000)})
    table = site_frames.frames(replace(start_here.DEMO, compute=compute), tmp_path / "demo", grid)
    assert list(table["frames"]["0"]) == [None, "", "start: expected another one, got this; move a control"]
    assert (tmp_path / "demo" / table["frames"]["1"][0]).exists()


def test_demos_are_found_by_what_the_notebook_imports():
    cells = [
        "from mlkernels.course.demos import start_here as first, search_replay",
        "%magic",
        "widgets.explore(first.DEMO)",
        "made = search_replay.make_demo(log, space)\nwidgets.explore(made)",
    ]
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    for cell in notebook.cells[2:]:
        cell.metadata["tags"] = ["widget"]
    assert site_pages.demos_of(notebook) == {2: start_here.DEMO, 3: search_replay.DEMO}


def test_only_notebooks_that_are_finished_and_not_edited_since_are_taken(tmp_path):
    sources = {name: tmp_path / f"{name}.ipynb" for name in ("00_done", "01_failed", "02_edited", "03_not_run")}
    (tmp_path / "class").mkdir()
    for name, path in sources.items():
        made = _site.notebook()
        made.metadata["mlkernels"]["status"] = "failed" if name == "01_failed" else "finished"
        made.cells.insert(1, new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]}))
        if name != "03_not_run":
            keep(made, tmp_path / "class" / path.name)
        source = _site.notebook()
        source.cells[0].source += " Better." if name == "02_edited" else ""
        nbformat.write(source, path)
    assert site.executed(sources, tmp_path / "class") == {"00_done": tmp_path / "class" / "00_done.ipynb"}


def test_results_become_tables(tmp_path):
    result = {
        "created": "2025-01-02T03:04:05+00:00", "command": "run it", "versions": {"jax": "1"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "x64": True, "cores": 2},
        "cases": {"small": {"times": {"ours": {"min_s": 0.5}, "theirs": {"min_s": 2}}, "met": True}},
        "demos": [{"demo": "one", "ms": [1, 2]}],
    }  # fmt: skip
    (tmp_path / "bench_some_thing.json").write_text(json.dumps(result))
    (found,) = site_benchmarks.benchmarks(tmp_path)
    assert found["title"] == "Some thing"
    assert ("where", "CPU, 2 cores, float64") in found["origin"]
    assert ("again", "run it") in found["origin"]
    rows = [(table["columns"], table["rows"]) for table in found["tables"]]
    assert (["what", "min s"], [("small · times · ours", "0.5"), ("small · times · theirs", "2")]) in rows
    assert (["what", "met"], [("small", "yes")]) in rows
    assert (["what", "ms"], [("one", "1, 2")]) in rows


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_are_valid_and_accessible(out, pages):
    assert set(pages) == {PAGE, "index.html", "claims.html", "benchmarks.html", "teacher.html"}
    for name, soup in pages.items():
        html5lib.HTMLParser(strict=True).parse((out / name).read_text(encoding="utf-8"))
        assert not page_faults(soup), name


def test_every_address_leads_somewhere(out, pages):
    for name, soup in pages.items():
        for tag in soup.find_all(["a", "img", "link", "script"]):
            address = urlsplit(tag.get("href") or tag.get("src") or "")
            if address.scheme in ("https", "http", "data") or not (address.path or address.fragment):
                continue
            target = unquote(address.path) or name
            assert (out / target).is_file(), f"{name} leads to {target}"
            if address.fragment:
                anchors = {each["id"] for each in pages[target].find_all(id=True)}
                assert {address.fragment, unquote(address.fragment)} & anchors, (
                    f"{name} leads to {target}#{address.fragment}"
                )
    for path in (out / "demos").iterdir():
        table = json.loads((path / "frames.json").read_text())
        assert all((path / file).is_file() for file, *_ in table["frames"].values() if file)


def test_a_page_has_one_classic_script_of_its_own_and_no_picture_in_it(out, pages):
    soup = pages[PAGE]
    run = [tag for tag in soup.find_all("script") if tag.get("type") in (None, "text/javascript")]
    assert [tag.get("src", "").partition("?")[0] for tag in run] == ["mathjax/MathJax.js", ""]
    assert "fetch(" not in run[1].get_text()
    assert "import " not in run[1].get_text()
    assert "base64" not in (out / PAGE).read_text(encoding="utf-8")


def test_pictures_that_no_page_shows_any_more_are_removed(out):
    (out / "pictures" / "old.webp").write_bytes(b"")
    site._remove_unused(out)
    assert not (out / "pictures" / "old.webp").exists()
    assert [*(out / "pictures").iterdir()]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Two notebooks, the first of them executed in build/class; what is run and what a site is made of is noted."""
    sources, done = tmp_path / "notebooks", tmp_path / "build" / "class"
    for folder in (sources, done):
        folder.mkdir(parents=True)
    notebook = new_notebook(cells=[new_code_cell("x = 1")], metadata={"mlkernels": {"status": "finished"}})
    for path in (sources / "00_done.ipynb", sources / "01_missing.ipynb"):
        nbformat.write(notebook, path)
    keep(notebook, done / "00_done.ipynb")
    noted = SimpleNamespace(ran=[], built=[], status="finished", notebooks=sources)

    def run(work, **options):
        noted.ran += [job.target for job in work]
        return [jobs.Outcome(job.name, noted.status, "it failed here") for job in work]

    def build(out, notebooks, *, command, say):
        noted.built.append((out, notebooks))
        return {"bytes": 1, "files": 1, "demos": {}}

    monkeypatch.setattr(pool, "run", run)
    monkeypatch.setattr(report, "write_report", lambda out, **options: None)
    monkeypatch.setattr(site, "build", build)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return noted


def test_the_command_takes_what_class_has_done_and_runs_the_rest_in_quick(course, tmp_path, capsys):
    assert status_of("site", "--notebooks", course.notebooks) == 0
    build = tmp_path / "build"
    quick = build / "quick" / "01_missing.ipynb"
    assert course.ran == [quick]
    assert course.built == [(build / "site", {"00_done": build / "class" / "00_done.ipynb", "01_missing": quick})]
    assert "index.html" in capsys.readouterr().out


def test_the_command_makes_no_site_where_a_notebook_fails(course, capsys):
    course.status = "failed"
    assert status_of("site", "--notebooks", course.notebooks) == 1
    assert not course.built
    shown = capsys.readouterr()
    assert shown.err == "it failed here\nno site without them\n"
    assert not shown.out


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(out):
    """A page in an offline Chromium, and all that it has complained of."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium")
    with browser_page(path) as (page, errors):
        page.context.set_offline(True)
        page.on("console", lambda message: errors.append(message.text))
        aborted = "net::ERR_ABORTED"  # by going to another page
        page.on("requestfailed", lambda request: request.failure == aborted or errors.append(request.url))
        yield page, errors


def opened(browser, out, name=PAGE):
    page, _ = browser
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto((out / name).as_uri())
    page.wait_for_function("!window.MathJax || MathJax.isReady")
    page.evaluate(bench.SET)
    return page


def frame_of(out, demo, key):
    return json.loads((out / "demos" / demo / "frames.json").read_text())["frames"][key]


@pytest.mark.browser
def test_a_demo_moves_by_keyboard_alone(browser, out):
    page = opened(browser, out)
    slider = page.get_by_role("slider", name="inner steps τ")
    for _ in range(60):
        page.keyboard.press("Tab")
        if slider.evaluate("node => node === document.activeElement"):
            break
    else:
        raise AssertionError("no way to the slider by Tab")
    picture, said = page.locator("#demo-start_here img"), page.locator("#demo-start_here .mlk-readout")
    assert slider.get_attribute("aria-valuetext") == "50"
    for key, text, frame in (("ArrowRight", "1000", "1,2"), ("Home", "0", "1,0"), ("ArrowRight", "50", "1,1")):
        page.keyboard.press(key)
        file, alt, readout = frame_of(out, "start_here", frame)
        assert slider.get_attribute("aria-valuetext") == text
        assert picture.get_attribute("src").endswith(file)
        assert picture.get_attribute("alt") == alt
        assert said.inner_text() == readout
        page.wait_for_function("node => node.complete && node.naturalWidth > 500", arg=picture.element_handle())
    assert not browser[1]


@pytest.mark.browser
def test_the_site_works_from_a_server_too_and_asks_nobody_else(browser, out):
    handler = partial(SimpleHTTPRequestHandler, directory=out)
    context, asked = browser[0].context.browser.new_context(), []
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto(home + PAGE)
        page.wait_for_function("!window.MathJax || MathJax.isReady")
        page.get_by_role("slider", name="inner steps τ").press("Home")
        picture = page.locator("#demo-start_here img")
        assert picture.get_attribute("src").endswith(frame_of(out, "start_here", "1,0")[0])
        page.wait_for_function("node => node.complete && node.naturalWidth > 500", arg=picture.element_handle())
        context.close()
        server.shutdown()
    assert asked
    assert all(url.startswith((home, "data:", "blob:")) for url in asked)


@pytest.mark.browser
def test_a_control_of_another_set_puts_the_first_back(browser, out):
    page = opened(browser, out)
    angle, temperature = (
        page.get_by_role("slider", name=name) for name in ("angle between the groups", "temperature T")
    )
    angle.press("ArrowRight")
    assert angle.get_attribute("aria-valuetext") == "120°"
    temperature.press("ArrowRight")
    assert temperature.get_attribute("aria-valuetext") == "1"
    assert angle.get_attribute("aria-valuetext") == "90°"
    assert (
        page.locator("#demo-conflicting_tasks img").get_attribute("alt") == frame_of(out, "conflicting_tasks", "0,1")[1]
    )
    page.locator("#demo-conflicting_tasks").get_by_role("button", name="Reset").click()
    assert temperature.get_attribute("aria-valuetext") == "0.3"
    assert page.get_by_text("angle between the groups has 2 of 13 stops").is_visible()
    assert not browser[1]


@pytest.mark.browser
def test_every_page_is_quiet_and_has_contrast(browser, out, pages):
    for name in pages:
        page = opened(browser, out, name)
        assert page.evaluate(FAINT) == [], name
    assert not browser[1]


@pytest.mark.browser
def test_without_script_the_still_pictures_stand(browser, out):
    context = browser[0].context.browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((out / PAGE).as_uri())
    assert page.get_by_text("this demo moves here").first.is_visible()
    assert page.locator("details.twin figure img").count() == 4
    assert all(image.is_visible() for image in page.locator("details.twin figure img").all())
    assert page.locator("input").count() == 0
    context.close()


@pytest.mark.browser
def test_a_phone_moves_no_page_sideways(browser, out, pages):
    page = browser[0]
    for name in pages:
        opened(browser, out, name)
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == 390, name
    page.goto((out / PAGE).as_uri())
    assert page.locator("#demo-start_here img").bounding_box()["width"] >= 600  # its letters can be read


@pytest.mark.browser
def test_on_paper_nothing_is_cut_off(browser, out):
    page = opened(browser, out)
    page.set_viewport_size({"width": 700, "height": 1000})  # of A4 within its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    try:
        assert page.evaluate(CUT) == []
        assert page.locator("#demo-start_here").is_hidden()
        assert page.locator("details.twin figure img").first.is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details.twin[open]").count() == 0
    finally:
        page.emulate_media(media="screen")


@pytest.mark.browser
def test_the_benchmark_measures_every_demo_and_page(browser, out, pages, monkeypatch):
    monkeypatch.setattr(bench, "MOVES", 6)
    result = bench.measured(browser[0].context.browser, out)
    assert set(result["pages"]) == set(pages)
    assert set(result["demos"]) == set(_site.GRIDS)
    assert all(found["moves"] >= 2 and found["median_ms"] > 0 for found in result["demos"].values())
    assert result["size"]["met"]
    assert result["size"]["total_mb"] == pytest.approx(sum(result["size"]["parts_mb"].values()), abs=0.05)
    assert "start_here" in bench.report(result)


def test_the_benchmark_wants_a_site(tmp_path):
    with pytest.raises(InputError, match="make site"):
        bench.measure(site=tmp_path)


@pytest.mark.parametrize("name", ["frames.json", "ground.webp"])
def test_frames_in_which_a_bit_is_flipped_are_drawn_anew(name, out, tmp_path, monkeypatch):
    folder = tmp_path / "start_here"
    shutil.copytree(out / "demos" / "start_here", folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    def drawn(*given):
        raise RuntimeError("drawn anew")

    monkeypatch.setattr(site_frames, "_drawn", drawn)
    with pytest.raises(RuntimeError, match="drawn anew"):
        site_frames.frames(start_here.DEMO, folder, _site.GRIDS["start_here"])
