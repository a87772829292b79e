"""A demo's controls on a plain page in Chromium: what a screen reader hears, the keyboard alone, and what stays put."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import _browser
import numpy as np
import pytest
from PIL import Image

from mlkernels.course.demos.demo import Control, Demo, choice, steps
from mlkernels.course.widgets import explorer

pytestmark = pytest.mark.browser
WIDE, HIGH = 1056, 346
QUESTION = "What happens to the spectrum as the width grows?"
HELP = "units of each layer"
DARK = "--jp-ui-font-color1: #fff; --jp-layout-color0: #111; background: #111"
MANY = tuple((f"operation {i}", i) for i in range(6))


def a_demo(run=None) -> Demo:
    controls = (
        steps("width", "width", (16, 64, 256), 64, HELP),
        steps("angle", "angle", (0, 45, 90), 45, unit="°"),
        choice("adapts", "adapts", ("MAML", "ANIL"), "MAML"),
        Control("choice", "edge", "edge 1", MANY, 0),
    )
    return Demo("sample", QUESTION, controls, dict, lambda: None, print, str, ({}, {}, {}), run=run, overlay=run)


def picture(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (WIDE, HIGH), colour).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture(scope="module")
def browser():
    path = _browser.chromium()
    if path is None:
        pytest.skip(f"no browser found, looked for {', '.join(_browser.BROWSERS)}")
    with _browser.browser_page(path) as found:
        yield found


@pytest.fixture
def open_demo(browser):
    """(run, size, dark) -> a page with one demo; `calls` there is what the reader did."""
    page, errors = browser
    page.set_default_timeout(20_000)

    def build(run=False, size=(1280, 720), dark=False):
        spec = explorer.spec(a_demo(print if run else None), WIDE, HIGH) | {"id": "demo"}
        css = Path(explorer.__file__).with_suffix(".css").read_text(encoding="utf-8")
        theme = f'data-jp-theme-light="false" style="{DARK}"' if dark else ""
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.goto("about:blank")  # away with the last test's names
        page.set_content(f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>demo</title>
            <style>{css}</style></head><body {theme}><main id="root"></main><script>{explorer.page_script()}
            const calls = [];
            const note = name => value => calls.push([name, value]);
            const on = {{move: note("move"), run: note("run"), stop: note("stop"), reset: note("reset")}};
            const view = explorerView(document.getElementById("root"), {json.dumps(spec)}, on);
            </script></body></html>""")
        show(page, "white", "A white picture.", "loss 0.5")
        return page

    yield build
    assert not errors


def show(page, colour, alt, readout):
    page.evaluate("shown => view.show(shown)", {"src": picture(colour), "alt": alt, "readout": readout})


def heard(page) -> list[tuple[str, str, str, dict]]:
    """(role, name, description, states) of all that Chromium tells a screen reader, in order."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    found = [
        (
            node["role"]["value"],
            node.get("name", {}).get("value", ""),
            node.get("description", {}).get("value", ""),
            {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
            | {"value": node.get("value", {}).get("value")},
        )
        for node in nodes
        if not node.get("ignored")
    ]
    session.detach()
    return found


def one(page, role, name):
    (found,) = [node for node in heard(page) if node[:2] == (role, name)]
    return found


def said(page, slider):
    """A slider's value in words, as the page gives it: Chromium 156 puts the bare number into its protocol."""
    one(page, "slider", slider)
    return page.get_by_role("slider", name=slider, exact=True).get_attribute("aria-valuetext")


def calls(page):
    return page.evaluate("calls.splice(0)")


def test_every_control_has_a_name_and_says_its_value_with_its_unit(open_demo):
    page = open_demo(run=True)
    assert said(page, "width") == "64"
    assert one(page, "slider", "width")[2] == HELP
    assert said(page, "angle") == "45°"
    assert one(page, "radio", "MAML")[3]["checked"] == "true"
    assert one(page, "radio", "ANIL")[3]["checked"] == "false"
    assert one(page, "combobox", "edge 1")[3]["value"] == "operation 0"
    assert one(page, "image", "A white picture.")
    assert one(page, "group", QUESTION)
    assert one(page, "group", "adapts")
    assert one(page, "button", "Train")
    assert one(page, "button", "Reset")
    focusable = [node for node in heard(page) if node[3].get("focusable") and node[0] != "RootWebArea"]
    assert all(name for _, name, _, _ in focusable), focusable
    assert len([node for node in heard(page) if node[3].get("live") == "polite"]) == 1


def test_the_keyboard_alone_reaches_and_moves_all(open_demo):
    page = open_demo(run=True)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert calls(page) == [["move", {"width": 2, "angle": 1, "adapts": 0, "edge": 0}]]
    assert said(page, "width") == "256"
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert said(page, "angle") == "0°"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert one(page, "radio", "ANIL")[3]["checked"] == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert calls(page)[-1] == ["move", {"width": 2, "angle": 0, "adapts": 1, "edge": 1}]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert calls(page) == [["run", None], ["reset", None]]
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('.mlk-demo')"), "read-outs are no tab stops"


def test_plain_keys_stay_in_the_demo_and_others_do_not(open_demo):
    page = open_demo()
    page.evaluate("window.got = []; document.addEventListener('keydown', event => got.push(event.key))")
    for _ in page.locator(".mlk-demo :is(input, select, button)").all():
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.mlk-demo') !== null"):
            for key in ("a", "ArrowDown", "Shift+M", "Control+s"):
                page.keyboard.press(key)
    got = page.evaluate("got")
    assert "s" in got
    assert not {"a", "ArrowDown", "M"} & set(got)


def test_a_demo_moved_from_outside_says_so_and_calls_nobody(open_demo):
    page = open_demo()
    page.evaluate("view.indices({width: 0, angle: 2, adapts: 1, edge: 5})")
    assert said(page, "width") == "16"
    assert one(page, "combobox", "edge 1")[3]["value"] == "operation 5"
    assert one(page, "radio", "ANIL")[3]["checked"] == "true"
    assert calls(page) == []


def test_one_live_region_speaks_when_the_controls_rest(open_demo):
    page = open_demo(run=True)
    live = page.locator(".mlk-live")
    assert live.text_content() == "loss 0.5"
    page.evaluate("""window.said = [];
        new MutationObserver(() => said.push(document.querySelector('.mlk-live').textContent))
            .observe(document.querySelector('.mlk-live'), {childList: true})""")
    for step in range(35):  # a run
        page.evaluate("step => { view.status(`step ${step}`); view.progress(step / 35) }", step)
        show(page, "white", "Again.", f"loss {step}")
    page.wait_for_function("said.length > 0")
    page.wait_for_timeout(300)
    assert page.evaluate("said") == ["step 34. loss 34"]
    assert page.locator("[role=status], [role=alert], output:not([aria-hidden=true])").count() == 1
    assert page.locator(".mlk-status").count() == 1


def test_the_run_has_one_button_that_keeps_the_keyboard(open_demo):
    page = open_demo(run=True)
    button = page.locator(".mlk-run")
    button.focus()
    page.keyboard.press("Enter")
    page.evaluate("view.running(true)")
    assert one(page, "button", "Stop")
    assert button.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    page.evaluate("view.running(false)")
    assert calls(page) == [["run", None], ["stop", None]]
    page.evaluate("view.refuse('Too much.')")
    assert one(page, "button", "Train")[3]["disabled"]
    assert button.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    assert calls(page) == []


PLACES = """() => ['.mlk-controls', '.mlk-said', '.mlk-picture'].flatMap(name => {
    const box = document.querySelector(name).getBoundingClientRect();
    return [box.x, box.y, box.width, box.height].map(Math.round);
})"""


def test_nothing_jumps(open_demo):
    page = open_demo(run=True)
    page.wait_for_timeout(100)  # the first layout
    before = page.evaluate(PLACES)
    page.evaluate("view.refuse('No picture for these settings. width: expected 16, got 3; take another')")
    assert page.evaluate(PLACES) == before
    assert page.locator(".mlk-picture").evaluate("image => Number(getComputedStyle(image).opacity)") < 0.5
    above = page.locator(".mlk-refusal").bounding_box()["y"] - page.locator(".mlk-controls").bounding_box()["y"]
    assert above > 0
    page.evaluate("view.refuse('')")
    page.evaluate("view.running(true); view.status('step 1 of 100: loss 0.5 of its start'); view.progress(0.01)")
    assert page.evaluate(PLACES) == before
    page.evaluate("view.progress(1, 'success'); view.running(false)")
    show(page, "red", "Red.", "loss 1e-12")
    assert page.evaluate(PLACES) == before


def test_a_demo_that_is_dead_says_so_and_comes_back(open_demo):
    page = open_demo(run=True)
    page.evaluate("view.dead('Run this cell to move the sliders.')")
    assert page.get_by_text("Run this cell to move the sliders.", exact=True).first.is_visible()
    enabled = page.locator(".mlk-demo :is(input, select, button):enabled")
    assert enabled.count() == 0
    page.evaluate("view.dead('')")
    assert enabled.count() == 7


@pytest.mark.parametrize(("size", "least"), [((1920, 1080), 18), ((1280, 720), 18), ((960, 540), 13)])
def test_a_demo_fits_the_screen(open_demo, size, least):
    page = open_demo(run=True, size=size)
    page.wait_for_timeout(100)
    box = page.locator(".mlk-demo").bounding_box()
    shown = page.locator(".mlk-picture").bounding_box()
    assert box["y"] + box["height"] <= size[1]
    assert shown["width"] >= 0.95 * min(box["width"], 1.5 * size[1])
    for part in (".mlk-demo label", ".mlk-readout", ".mlk-run", ".mlk-reset", ".mlk-status", ".mlk-question"):
        assert page.locator(part).first.evaluate("node => parseFloat(getComputedStyle(node).fontSize)") >= least


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two opaque CSS colours, as `rgb(1, 2, 3)`."""

    def luminance(colour):
        parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted(luminance(colour) for colour in (one, other))
    return float((high + 0.05) / (low + 0.05))


@pytest.mark.parametrize("dark", [False, True])
def test_words_and_states_stand_out_in_both_themes(open_demo, dark):
    page = open_demo(run=True, dark=dark)
    page.evaluate("view.refuse('No.'); view.status('The run has failed.'); view.progress(1, 'danger')")
    paper = "rgb(17, 17, 17)" if dark else "rgb(255, 255, 255)"
    colour = "(node, name) => getComputedStyle(node)[name]"

    def style(part, name):
        return page.locator(part).first.evaluate(colour, name)

    for part in (".mlk-refusal", ".mlk-status", ".mlk-question", ".mlk-readout"):
        assert contrast(style(part, "color"), paper) >= 4.5, part
    on, off = ".mlk-buttons input:checked + label", ".mlk-buttons input:not(:checked) + label"
    assert contrast(style(on, "color"), style(on, "backgroundColor")) >= 4.5
    assert contrast(style(on, "backgroundColor"), style(off, "backgroundColor")) >= 3
    assert contrast(style(off, "borderTopColor"), paper) >= 3
    assert style(on, "textDecorationLine") == "underline"  # not by colour alone
