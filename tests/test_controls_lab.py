"""A demo's controls in JupyterLab: keys, focus, a kernel that restarts, a notebook that is opened again."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import _browser
import nbformat
import pytest
from _browser import PICTURES, TOKEN
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import expect

from mlkernels.course.widgets.explorer import RUN_AGAIN

pytestmark = pytest.mark.browser
NAME = "controls"
SETTINGS = "lab/api/settings/@jupyter-widgets/jupyterlab-manager:plugin"
DEMO = """
import time
from mlkernels.course import plots, widgets
from mlkernels.course.demos.demo import Demo, RunItem, Stage, choice, steps

computed = []

def compute(**values):
    time.sleep(0.1)
    computed.append(values)
    return values

def stage():
    fig, ax = plots.figure(8, 3)
    return Stage(fig, line=ax.plot([0, 1], [0, 1])[0])

def run(**values):
    for step in range(400):
        time.sleep(0.05)
        yield RunItem(step / 400, f"step {step}")

demo = Demo(
    name="sample", question="Which way does it go?",
    controls=(steps("slope", "slope", range(12), 0), choice("edge", "edge", "abcdef", "a")),
    compute=compute, stage=stage, move=lambda stage, n: stage["line"].set_ydata([0, n["slope"] / 11]),
    describe=lambda n: f"A line of slope {n['slope']}, edge {n['edge']}.",
    readout=lambda n: f"slope {n['slope']}, computed {len(computed)} times",
    twin=({}, {}, {}), run=run, overlay=lambda stage, item: None,
)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A page with a notebook of one demo, and its uncaught errors."""
    path, home = _browser.chromium(), tmp_path_factory.mktemp("lab")
    if path is None:
        pytest.skip(f"no browser found, looked for {', '.join(_browser.BROWSERS)}")
    figure = "fig, ax = plots.figure(4, 3)\nax.plot([1, 2])\nplots.show(fig, 'A line that rises.')"
    cells = [new_code_cell(DEMO), new_code_cell("widgets.explore(demo)"), new_code_cell(figure)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (home / "notebooks").mkdir()
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# Controls"), *cells], metadata=kernel), home / f"notebooks/{NAME}.ipynb"
    )
    PICTURES.mkdir(parents=True, exist_ok=True)
    with _browser.jupyterlab(home / "notebooks", home) as address, _browser.browser_page(path) as (page, errors):
        _browser.open_notebook(page, address, f"{NAME}.ipynb")
        _browser.run_all(page, minutes=5)
        page.locator(".mlk-demo").scroll_into_view_if_needed()
        yield page, errors


def test_keys_stay_in_the_controls(lab):
    page, _ = lab
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    edge = page.get_by_role("combobox", name="edge", exact=True)
    slope = page.get_by_role("slider", name="slope", exact=True)
    for control, key, alt in ((edge, "ArrowDown", "slope 0, edge b"), (slope, "ArrowRight", "slope 1, edge b")):
        control.focus()
        page.keyboard.press(key)
        expect(page.locator(".mlk-picture")).to_have_attribute("alt", re.compile(alt))
        assert control.evaluate("control => control === document.activeElement")
    for key in ("a", "b", "d", "d", "m", "Shift+M"):  # commands of a notebook
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert slope.evaluate("control => control === document.activeElement")
    expect(page.locator(".mlk-live")).to_contain_text("slope 1, computed")


def test_a_slider_that_is_dragged_does_not_outrun_the_kernel(lab):
    page, _ = lab
    slope, readout = page.get_by_role("slider", name="slope", exact=True), page.locator(".mlk-readout")

    def number():
        return int(re.search(r"computed (\d+)", readout.text_content())[1])

    slope.focus()
    page.keyboard.press("Home")
    expect(readout).to_contain_text("slope 0")
    before = number()
    for _ in range(11):
        page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("slope 11")
    assert 1 <= number() - before <= 8, "values in between are skipped, the last is not"


def test_train_turns_into_stop_and_keeps_the_keyboard(lab):
    page, _ = lab
    button = page.locator(".mlk-run")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_accessible_name("Stop")
    expect(page.locator(".mlk-status")).to_contain_text("step")
    assert button.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    expect(button).to_have_accessible_name("Train")
    expect(page.locator(".mlk-status")).to_contain_text("stopped")
    assert button.evaluate("button => button === document.activeElement")


def test_figures_have_their_alt_text(lab):
    page, errors = lab
    assert page.get_by_role("img", name="A line that rises.").count() == 1
    assert not _browser.troubles(page)
    assert not errors


def test_after_a_restart_the_demo_says_that_it_is_dead(lab):
    page, _ = lab
    page.wait_for_timeout(2000)  # the still picture in the output follows
    notebook = _browser.saved(page, NAME)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "slope 11, edge b" in shown[0]["text/plain"]
    page.locator('[data-jp-item-name="restart"] jp-button').first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(page.locator(".mlk-note")).to_have_text(RUN_AGAIN)
    assert page.locator(".mlk-demo :is(input, select, button):enabled").count() == 0
    assert page.locator(".mlk-still").is_hidden()
    page.locator(".mlk-demo").screenshot(path=PICTURES / "controls_dead.png")
    _browser.wait_until_idle(page)


def reopen(page):
    page.reload()
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for()
    page.get_by_text(RUN_AGAIN).locator("visible=true").first.wait_for()
    page.wait_for_timeout(3000)  # JupyterLab looks for a widget's model for two seconds
    words = page.locator(".jp-Notebook").inner_text()
    assert "Loading widget" not in words
    assert "model not found" not in words


def test_opened_without_a_run_the_notebook_shows_the_last_picture(lab):
    page, errors = lab
    reopen(page)
    assert page.get_by_role("img", name="A line of slope 11, edge b.").is_visible()
    page.screenshot(path=PICTURES / "controls_reopened.png")
    assert not errors


def test_opened_with_saved_widgets_it_does_so_too(lab):
    page, errors = lab
    settings = urljoin(page.url, f"/{SETTINGS}?token={TOKEN}")
    cookies = {each["name"]: each["value"] for each in page.context.cookies()}
    headers = {"X-XSRFToken": cookies.get("_xsrf", "")}
    assert page.request.put(settings, data={"raw": '{"saveState": true}'}, headers=headers).ok
    page.reload()
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for()
    _browser.wait_until_idle(page)
    _browser.run_all(page, minutes=5)
    assert not errors  # later JupyterLab may raise its own: of a file that it reads while the server writes it
    for _ in range(60):  # what is on the disk may be of before
        if "widgets" in _browser.saved(page, NAME).metadata:
            break
        page.wait_for_timeout(1000)
    else:
        raise AssertionError("no widget state was saved")
    for session in page.request.get(urljoin(page.url, f"/api/sessions?token={TOKEN}")).json():
        page.request.delete(urljoin(page.url, f"/api/sessions/{session['id']}?token={TOKEN}"), headers=headers)
    reopen(page)
    assert page.get_by_role("img", name="A line of slope 0, edge a.").locator("visible=true").count() == 1
    page.screenshot(path=PICTURES / "controls_restored.png")
