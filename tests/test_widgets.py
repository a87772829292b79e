"""The demo machinery without a browser: same settings same pixels, controls that move one image, errors in words."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import math
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from _demos import ends_of
from PIL import Image

from benchmarks import sliders
from mlkernels.course import plots, widgets
from mlkernels.course.demos import poster, start_here
from mlkernels.course.demos.demo import Control, Demo, RunItem, Stage, choice, steps
from mlkernels.course.widgets import explorer
from mlkernels.course.widgets.background import Background
from mlkernels.errors import InputError, bad_input
from mlkernels.runner import pages

X = np.linspace(-5, 5, 200)


def _compute(width, inner_steps, ridge, adapt):
    if ridge < 0:
        raise bad_input("ridge", "0 or more", ridge, "raise it <now>")
    rng = np.random.default_rng(int(width))
    half = rng.normal(size=(24, 24)) * (1 if adapt == "MAML" else 0.3)
    decay = 0.0 if inner_steps == math.inf else 1 / (1 + inner_steps)
    matrix = half @ half.T / 24 + (decay + ridge) * np.eye(24)
    points = np.linspace(-4, 4, 8)
    values = np.linalg.eigvalsh(matrix)[::-1]
    return {"matrix": matrix, "values": values, "curve": np.sin(X + decay), "points": (points, np.sin(points))}


def _stage():
    boxes = [(0.02, 0.14, 0.27, 0.74), (0.46, 0.17, 0.2, 0.71), (0.75, 0.17, 0.23, 0.71)]
    fig, (left, middle, right) = plots.figure(11, 3.6, boxes=boxes)
    heat = plots.heatmap(left, np.zeros((24, 24)), blocks=8, limits=(-1, 3))
    left.set_title("Composite kernel Φ")
    spectrum = plots.spectrum(middle, np.ones(24))
    middle.set(ylim=(1e-6, 1e2), title="Spectrum")
    note = middle.text(0.97, 0.95, "", transform=middle.transAxes, ha="right", va="top")
    (curve,) = right.plot(X, X, color=plots.COLOURS["MetaNTK"])
    (dots,) = right.plot([], [], "o", color="black")
    right.set(xlim=(-5, 5), ylim=(-3, 3), title="Adapted prediction", xlabel="x", ylabel="y")
    return Stage(fig, heat=[heat.image, heat.lines], spectrum=spectrum, note=note, curve=curve, dots=dots)


def _move(stage, numbers):
    stage["heat"][0].set_data(numbers["matrix"])
    stage["spectrum"].set_ydata(numbers["values"])
    stage["note"].set_text(f"κ = {numbers['values'][0] / numbers['values'][-1]:.2g}")
    stage["curve"].set_ydata(numbers["curve"])
    stage["dots"].set_data(*numbers["points"])


def make_demo(**changes):
    fields = {
        "name": "sample",
        "question": "What happens to the spectrum as the width grows?",
        "controls": (
            steps("width", "width", [2**k for k in range(4, 13)], 256, "units a layer"),
            steps("inner_steps", "inner steps τ", [0, 1, 2, 4, 16, 64, 256, math.inf], 1),
            steps("ridge", "ridge", [-1.0, 0.0, 1e-3, 1e-2, 0.1], 1e-3),
            choice("adapt", "adapts", ["MAML", "ANIL"], "MAML"),
        ),
        "compute": _compute,
        "stage": _stage,
        "move": _move,
        "describe": lambda n: f'Largest eigenvalue {n["values"][0]:.3g}, drawn as "heat map" & spectrum.',
        "readout": lambda n: f"condition number {n['values'][0] / n['values'][-1]:.3g}",
        "twin": ({"width": 16}, {"width": 256}, {"width": 4096, "inner_steps": math.inf}),
    }
    return Demo(**{**fields, **changes})


@pytest.fixture
def demo():
    return make_demo()


def picture(view):
    """The image that the explorer shows, as pixels."""
    return np.asarray(Image.open(io.BytesIO(view.frame)))


def move(view, **values):
    """What the front end does when the reader moves controls: new indices, and nothing else."""
    indices = {c.name: c.values.index(values[c.name]) for c in view.demo.controls if c.name in values}
    view.indices = view.indices | indices


def press(view, button):
    """A press of a button: the front end's message, as it arrives."""
    view._handle_custom_msg({"do": button}, [])


def test_same_settings_same_pixels_on_a_new_and_on_a_used_stage(demo):
    used = demo.build()
    for values in ({"width": 16}, {"inner_steps": math.inf, "adapt": "ANIL"}, {"width": 4096}):
        demo.frame(used, **values)
    again = demo.frame(used, width=64)
    new = demo.frame(demo.build(), width=64)
    assert again.png == new.png
    assert again.png != demo.frame(used, width=128).png


def test_stage_and_savefig_draw_the_same_picture(demo):
    stage = demo.build()
    staged = np.asarray(Image.open(io.BytesIO(demo.frame(stage, width=64).png)))
    saved = np.asarray(Image.open(io.BytesIO(plots.to_png(stage.figure, stage.figure.dpi))).convert("RGB"))
    np.testing.assert_array_equal(saved, staged)


def test_the_notebooks_style_does_not_change_a_demo(demo):
    import matplotlib

    before = demo.frame(demo.build()).png
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.grid": False, "savefig.facecolor": "red"}):
        assert demo.frame(demo.build()).png == before


def test_a_changed_axis_limit_redraws_the_frame():
    def move(stage, numbers):
        _move(stage, numbers)
        stage.figure.axes[1].set_ylim(1e-6, 10 * numbers["values"][0])

    demo = make_demo(move=move)
    used = demo.build()
    demo.frame(used, adapt="ANIL")
    assert demo.frame(used, adapt="MAML").png == demo.frame(demo.build(), adapt="MAML").png


def test_the_frame_is_kept_while_only_moving_artists_change(demo):
    stage = demo.build()
    demo.frame(stage, width=16)
    kept = stage._frame
    demo.frame(stage, width=64)
    assert stage._frame is kept


def test_ends_visit_both_ends_of_every_slider(demo):
    ends = list(ends_of(demo))
    for control in demo.controls:
        seen = {values[control.name] for values in ends}
        assert {control.values[0], control.values[-1], control.default} <= seen
    assert all(set(values) == {"width", "inner_steps", "ridge", "adapt"} for values in ends)


def test_alt_and_caption(demo):
    assert demo.frame(demo.build(), width=64).alt.startswith("Largest eigenvalue")
    assert demo.caption(inner_steps=math.inf) == "width 256, inner steps τ ∞, ridge 0.001, adapts MAML"
    with pytest.raises(InputError, match="settings width, inner_steps, ridge, adapt"):
        demo.frame(demo.build(), depth=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"twin": ({}, {})}, "three to six"),
        ({"twin": ({}, {}, {"depth": 1})}, "depth"),
        ({"controls": (steps("a", "a", (1, 2), 1), steps("a", "a", (1, 2), 1))}, "one a setting"),
    ],
)
def test_a_demo_that_cannot_work_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        make_demo(**change)


@pytest.mark.parametrize(
    "control",
    [
        {"kind": "knob", "options": (("1", 1), ("2", 2)), "default": 1},
        {"kind": "steps", "options": (("1", 1),), "default": 1},
        {"kind": "steps", "options": (("1", 1), ("1", 2)), "default": 1},
        {"kind": "steps", "options": (("1", 1), ("2", 2)), "default": 3},
    ],
)
def test_a_control_that_cannot_work_is_refused(control):
    with pytest.raises(InputError):
        Control(name="a", label="a", **control)


def test_explore_shows_an_image_with_alt_text_and_fixed_size(demo):
    view = widgets.explore(demo)
    assert view.alt.startswith("Largest eigenvalue")
    assert (view.spec["width"], view.spec["height"]) == (1056, 346)
    assert "condition number" in view.readout
    assert view.refusal == ""
    assert picture(view).shape == (576, 1760, 3)


def test_the_front_end_is_told_of_every_control(demo):
    shown = widgets.explore(demo).spec
    assert (shown["question"], shown["run"]) == (demo.question, False)
    told = [{**control} for control in shown["controls"]]
    assert [control["label"] for control in told] == ["width", "inner steps τ", "ridge", "adapts"]
    assert [control["kind"] for control in told] == ["steps"] * 3 + ["choice"]
    assert told[1]["texts"] == ["0", "1", "2", "4", "16", "64", "256", "∞"]
    assert told[1]["index"] == 1
    assert told[0]["help"] == "units a layer"


def test_what_one_change_sends_goes_in_one_message(demo):
    sent = []

    class Line:
        kernel, comm_id = True, "line"
        on_msg = on_close = close = lambda *_: None

        def send(self, data, **_):
            sent.append(data["state"])

    view = widgets.explore(demo)
    view.comm = Line()
    move(view, width=1024)
    pictures = [state for state in sent if "alt" in state]
    assert len(pictures) == 1
    assert {"readout", "alt"} <= set(pictures[0])
    assert not [state for state in sent if state not in pictures and set(state) - {"indices"}]


# --- the output in the notebook ---------------------------------------------------------------------------------------


@pytest.fixture
def outputs(monkeypatch):
    """What is displayed, as (data, keywords)."""
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **kwargs: shown.append((data, kwargs)))
    return shown


def test_the_output_has_the_picture_for_every_viewer_without_a_kernel(demo, outputs):
    view = widgets.explore(demo)
    view._ipython_display_()
    (still, about), (live, _) = outputs
    assert set(still) == {"text/html", "text/plain"}
    assert explorer.RUN_AGAIN in still["text/html"]
    assert explorer.RUN_AGAIN in still["text/plain"]
    assert view.alt in still["text/plain"]
    page = html.unescape(still["text/html"])
    assert f'alt="{view.alt}"' in page
    assert '"heat map"' not in still["text/html"]  # escaped
    assert base64.b64decode(re.search(r'base64,([^"]+)"', page)[1])[:4] == b"\x89PNG"
    assert f'data-demo="{view.spec["id"]}"' in page
    assert about["metadata"] == {pages.STILL: True}
    assert live["text/plain"] == ""  # the still picture says it
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id


def test_a_page_that_nbconvert_makes_of_a_saved_notebook_has_picture_and_words(demo, outputs):
    from nbconvert.exporters import HTMLExporter
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    widgets.explore(demo)._ipython_display_()
    shown = [new_output("display_data", data, metadata=about.get("metadata", {})) for data, about in outputs]
    page, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[new_code_cell("widgets", outputs=shown)]))
    assert page.count(explorer.RUN_AGAIN) == 1
    assert page.count("<img ") == 1
    assert "Explorer(" not in page


def test_a_demo_without_a_picture_at_its_defaults_says_so_and_is_shown(demo, outputs):
    controls = [replace(each, default=-1.0) if each.name == "ridge" else each for each in demo.controls]
    view = widgets.explore(replace(demo, controls=tuple(controls)))
    view._ipython_display_()
    (still, _), _ = outputs
    assert "ridge: expected 0 or more, got -1" in view.refusal
    assert html.escape(view.refusal) in still["text/html"]
    assert "<img" not in still["text/html"]
    assert still["text/plain"] == f"[picture: {view.refusal}] {explorer.RUN_AGAIN}"
    move(view, ridge=0.1)
    assert not view.refusal
    assert view.frame


def test_the_still_picture_follows_once_the_controls_rest(demo, outputs, monkeypatch):
    monkeypatch.setattr(explorer, "RENEW", 0.05)

    async def notebook():
        view = widgets.explore(demo)
        view._ipython_display_()
        for width in (16, 32, 64):
            move(view, width=width)
        while len(outputs) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        return view

    view = asyncio.run(asyncio.wait_for(notebook(), SOON))
    assert len(outputs) == 3
    data, about = outputs[2]
    assert about["update"]
    assert about["display_id"] == outputs[0][1]["display_id"]
    assert html.escape(view.alt, quote=True) in data["text/html"]


def test_a_pages_script_is_the_view_without_anywidget():
    script = explorer.page_script()
    assert script.count("function explorerView(") == 1
    assert "export" not in script
    assert "model" not in script


def test_what_is_compiled_for_later_comes_behind_the_first_picture(monkeypatch):
    monkeypatch.setattr(explorer, "IDLE", 3600.0)
    order = []

    def compute(**values):
        order.append("picture")
        return _compute(**values)

    def warm():
        for piece in range(3):
            order.append(piece)
            yield

    view = widgets.explore(make_demo(compute=compute, warm=warm))
    assert order == ["picture"]
    monkeypatch.setattr(explorer, "IDLE", 0.0)
    assert view.warming.join(30)
    assert order == ["picture", 0, 1, 2]


@pytest.fixture
def posted(demo, tmp_path, monkeypatch):
    """A demo with a poster, that counts what it computes and waits for leave to do so."""
    made = poster.keep(demo, tmp_path / "poster.png")
    monkeypatch.setattr(explorer, "kept", partial(poster.kept, path=made))
    leave, calls = threading.Event(), []

    def compute(**values):
        assert leave.wait(30)
        calls.append(values)
        return _compute(**values)

    return make_demo(compute=compute), leave, calls


def test_a_poster_is_seen_at_once_and_gives_way_to_the_picture(posted, demo):
    demo_with_poster, leave, calls = posted
    view = widgets.explore(demo_with_poster)
    assert view.poster
    assert view.alt.startswith("Largest eigenvalue")
    assert "condition number" in view.readout
    assert not calls
    kept = view.frame
    leave.set()
    assert view.warming.join(30)
    assert not view.poster
    assert calls[0] == demo.settings()
    assert view.frame != kept  # the same picture in all its colours
    assert view.frame == demo.frame(demo.build()).png


def test_a_control_moved_before_the_picture_is_there_is_answered_and_stays(posted):
    demo, leave, calls = posted
    view = widgets.explore(demo)
    mover = threading.Thread(target=lambda: move(view, width=1024))
    mover.start()
    leave.set()
    mover.join(30)
    assert view.warming.join(30)
    assert not view.poster
    assert calls.count(demo.settings(width=1024)) == 1
    assert "1024" in str(view.values)
    moved = view.frame
    view.set()
    assert view.frame != moved


def test_where_nobody_moves_a_slider_the_picture_is_computed_at_once(posted, monkeypatch):
    demo, leave, calls = posted
    monkeypatch.setenv(explorer.UNATTENDED, "1")
    leave.set()
    view = widgets.explore(demo)
    assert not view.poster
    assert len(calls) == 1


def test_an_error_behind_a_poster_takes_its_place(demo, tmp_path, monkeypatch):
    made = poster.keep(demo, tmp_path / "poster.png")
    monkeypatch.setattr(explorer, "kept", partial(poster.kept, path=made))

    def broken(**values):
        raise ZeroDivisionError("by nothing")

    view = widgets.explore(make_demo(compute=broken))
    assert view.warming.join(30)
    assert "ZeroDivisionError: by nothing" in view.refusal


def test_a_control_that_is_moved_holds_up_what_is_compiled_for_later(monkeypatch):
    monkeypatch.setattr(explorer, "IDLE", 0.0)
    begun, go_on, pieces = threading.Event(), threading.Event(), []

    def warm():
        for piece in range(3):
            begun.set()
            assert go_on.wait(30)
            pieces.append(piece)
            yield

    view = widgets.explore(make_demo(warm=warm))
    assert begun.wait(30)
    monkeypatch.setattr(explorer, "IDLE", 3600.0)
    move(view, width=32)  # answered while the first piece is at work
    assert view.error is None
    go_on.set()
    time.sleep(0.2)
    assert pieces == [0]
    monkeypatch.setattr(explorer, "IDLE", 0.0)
    view.warming.stop()


def test_where_nobody_moves_a_slider_nothing_is_compiled_for_one(monkeypatch):
    monkeypatch.setenv(explorer.UNATTENDED, "1")
    view = widgets.explore(make_demo(warm=lambda: pytest.fail("compiled")))
    assert view.warming.join(30)
    assert view.error is None


def test_an_error_while_compiling_for_later_leaves_the_demo_as_it_is(monkeypatch):
    monkeypatch.setattr(explorer, "IDLE", 0.0)

    def warm():
        yield 1 / 0

    view = widgets.explore(make_demo(warm=warm))
    assert view.warming.join(30)
    move(view, width=32)
    assert view.error is None
    assert view.frame


def test_an_interpreter_that_ends_waits_for_what_it_compiles():
    """A daemon thread within XLA while Python is taken down would be a crash."""
    code = """
import time
from mlkernels.course.widgets.background import Background
import threading

def work():
    for item in range(1000):
        time.sleep(0.05)
        yield item
    print("all of it")

Background(work, lambda *_: None, threading.RLock())
time.sleep(0.2)
"""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == ""
    assert done.stderr == ""
    assert time.monotonic() - start < 45


def shown_by(monkeypatch, *twins):
    """What is displayed while these twins are shown: (data, metadata) each."""
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, metadata=None, raw=False: shown.append((data, metadata))
    )
    for demo in twins:
        widgets.twin(demo)
    return shown


@pytest.mark.parametrize("show", [widgets.explore, widgets.twin])
def test_what_is_no_demo_is_refused(show):
    with pytest.raises(InputError, match=r"demo: expected a Demo, got the module start_here; give start_here\.DEMO"):
        show(start_here)
    with pytest.raises(InputError, match="demo: expected a Demo, got None; give a demo's DEMO"):
        show(None)


def test_a_twin_is_the_demos_own_pictures_each_below_its_caption(demo, monkeypatch):
    shown = shown_by(monkeypatch, demo)
    captions, pictures = shown[::2], shown[1::2]
    assert len(captions) == len(pictures) == 3
    texts = [data["text/plain"] for data, _ in captions]
    assert texts[0] == "width 16, inner steps τ 1, ridge 0.001, adapts MAML"
    assert all(metadata == {"caption_of_next": True} for _, metadata in captions)
    for text, (data, metadata), values in zip(texts, pictures, demo.twin, strict=True):
        about, frame = metadata["image/png"], demo.frame(demo.build(), **values)
        assert about == {"alt": frame.alt, "width": 11 * plots.SCREEN, "caption": text}
        assert data["image/png"] == plots.few_colours(frame.png)


def test_a_caption_is_written_as_text(demo, monkeypatch):
    controls = (choice("adapt", "<b> & co", ["MAML", "ANIL"], "MAML"), *demo.controls[:3])
    data, _ = shown_by(monkeypatch, make_demo(controls=controls))[0]
    assert data["text/plain"].startswith("<b> & co MAML")
    assert data["text/html"].startswith("<p><strong>&lt;b&gt; &amp; co MAML")


def test_latency_goes_through_the_widget_and_reports(demo):
    calm = make_demo(controls=tuple(c for c in demo.controls if c.name != "ridge"), twin=({}, {}, {}),
                     compute=lambda **v: _compute(ridge=0.01, **v))  # fmt: skip
    result = sliders.latency(calm, repeats=3)
    assert result["changes"] == 9
    assert set(result["by_control_ms"]) == {"width", "inner_steps", "adapt"}
    assert 0 < result["min_ms"] <= result["median_ms"] <= result["max_ms"]
    with pytest.raises(InputError, match="at least 1"):
        sliders.latency(calm, repeats=0)
    with pytest.raises(InputError, match="ridge"):
        sliders.latency(demo, repeats=20)


# --- runs -------------------------------------------------------------------------------------------------------------

SOON = 300  # seconds after which a thread hangs; a busy machine may need many


class Steered:
    """A run that takes a step when the test says so, and tells where it is."""

    def __init__(self, last=10, error=None, failed=False):
        self.last, self.error, self.failed = last, error, failed
        self.go, self.left, self.started = threading.Semaphore(0), threading.Event(), []

    def __call__(self, **values):
        self.started.append(values)
        try:
            for step in range(self.last + 1):
                self.go.acquire(timeout=SOON)
                if self.error is not None and step == 2:
                    raise self.error
                end = self.failed and step == 2
                yield RunItem(step / self.last, f"step {step} <of> {self.last}", np.arange(step + 1.0), end)
                if end:
                    return
        finally:
            self.left.set()


def running_demo(run, **changes):
    def stage():
        built = _stage()
        (dots,) = built.figure.axes[2].plot([], [], "r^", animated=True)
        return Stage(built.figure, **built._moving, overlay=dots)

    def overlay(stage, item):
        stage["overlay"].set_data([], []) if item is None else stage["overlay"].set_data(item.data - 4, item.data / 5)

    return make_demo(stage=stage, run=run, overlay=overlay, **changes)


def eventually(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def idle(view):
    return not view.running


def test_a_demo_without_a_run_has_no_button_for_it(demo):
    assert not widgets.explore(demo).spec["run"]
    with pytest.raises(InputError, match="overlay"):
        make_demo(run=Steered())
    with pytest.raises(InputError, match="a demo with a run"):
        demo.finished()


def test_train_draws_the_run_to_its_end_and_reset_takes_it_off():
    run = Steered()
    view = widgets.explore(running_demo(run))
    first = view.frame
    assert idle(view)
    press(view, "run")
    assert view.running
    run.go.release()
    eventually(lambda: "step 0" in view.status)
    run.go.release(run.last)
    assert view.run.join(SOON)
    assert run.started == [view.values]
    assert view.progress == [1, "success"]
    assert "step 10 <of> 10" in view.status
    assert "Run: step 10" in view.alt
    assert idle(view)
    expected = view.demo.frame(view.demo.build(), RunItem(1, "x", np.arange(11.0)))
    np.testing.assert_array_equal(picture(view), np.asarray(Image.open(io.BytesIO(expected.png))))
    press(view, "reset")
    assert view.frame == first
    assert (view.progress, view.status) == ([0, ""], "")


def test_stop_keeps_what_there_is_and_the_thread_ends():
    run = Steered()
    view = widgets.explore(running_demo(run))
    press(view, "run")
    run.go.release()
    eventually(lambda: "Run: step 0" in view.alt)
    kept = view.frame
    press(view, "stop")
    assert idle(view)
    assert "stopped · step 0" in view.status
    run.go.release(3)  # the step that it was at, and more than it may take
    assert view.run.join(SOON)
    assert run.left.is_set()
    assert view.frame == kept
    press(view, "run")  # from the beginning
    run.go.release(run.last + 1)
    assert view.run.join(SOON)
    assert view.progress[0] == 1


@pytest.mark.parametrize("end", ["slider", "reset", "set"])
def test_a_control_that_moves_stops_the_run_and_clears_it(end):
    run = Steered()
    view = widgets.explore(running_demo(run))
    press(view, "run")
    run.go.release()
    eventually(lambda: "Run: step 0" in view.alt)
    if end == "slider":
        move(view, width=1024)
    elif end == "reset":
        press(view, "reset")
    else:
        view.set(width=16)
    shown = view.frame
    assert idle(view)
    assert view.status == ""
    run.go.release(5)
    assert view.run.join(SOON)
    assert view.frame == shown == view.demo.frame(view.demo.build(), **view.values).png


def test_a_run_that_breaks_says_so_and_leaves_the_picture():
    run = Steered(error=FloatingPointError("not a <number>"))
    view = widgets.explore(running_demo(run))
    press(view, "run")
    run.go.release(3)
    assert view.run.join(SOON)
    assert isinstance(view.error, FloatingPointError)
    assert "The run has failed. FloatingPointError: not a <number>" in view.status
    assert "Run: step 1" in view.alt
    assert view.progress[1] == "danger"
    assert idle(view)
    press(view, "reset")
    assert view.error is None


def test_a_run_that_diverges_ends_in_an_alert():
    run = Steered(failed=True)
    view = widgets.explore(running_demo(run))
    press(view, "run")
    run.go.release(3)
    assert view.run.join(SOON)
    assert "The run has ended: step 2" in view.status
    assert view.progress[1] == "danger"
    assert view.error is None


def test_settings_without_a_picture_have_no_run():
    run = Steered()
    view = widgets.explore(running_demo(run))
    move(view, ridge=-1.0)
    press(view, "run")
    assert not view.running
    move(view, ridge=0.1)
    assert view.refusal == ""
    assert not run.started


def test_a_second_run_waits_for_the_first():
    run = Steered()
    view = widgets.explore(running_demo(run))
    press(view, "run")
    eventually(lambda: run.started)
    first = view.run
    press(view, "stop")
    press(view, "run")
    assert len(run.started) == 1
    run.go.release(2 + run.last)
    assert first.join(SOON)
    assert view.run.join(SOON)
    assert len(run.started) == 2
    assert view.progress[0] == 1


def test_sliders_that_move_while_a_run_draws_do_no_harm(monkeypatch):
    def run(**values):
        yield from (RunItem(step / 300, f"step {step}", np.arange(step % 8 + 1.0)) for step in range(301))

    monkeypatch.setattr(explorer, "Background", partial(Background, pause=0.0))  # draw every item
    view = widgets.explore(running_demo(run))
    for width in (16, 32, 64, 128, 512, 1024) * 2:
        press(view, "run")
        eventually(lambda: "Run:" in view.alt)
        move(view, width=width)
        assert "Run:" not in view.alt
    assert view.run.join(SOON)
    assert view.frame == view.demo.frame(view.demo.build(), **view.values).png


def test_in_an_event_loop_the_reports_are_made_there():
    here, run = [], Steered()

    def move(stage, numbers):
        here.append(threading.current_thread())
        _move(stage, numbers)

    async def notebook():
        view = widgets.explore(running_demo(run, move=move))
        press(view, "run")
        run.go.release(run.last + 1)
        while not idle(view):
            await asyncio.sleep(0.005)
        return view

    view = asyncio.run(asyncio.wait_for(notebook(), SOON))
    assert view.run.join(SOON)
    assert view.progress[0] == 1
    assert len(here) >= 2
    assert set(here) == {threading.main_thread()}


def test_a_loop_that_is_gone_ends_the_run():
    run = Steered()
    seen = []

    async def notebook():
        return Background(run, lambda *told: seen.append(told), threading.RLock())

    background = asyncio.run(notebook())
    run.go.release(3)
    assert background.join(SOON)
    assert not seen


def test_a_twin_may_show_the_runs(monkeypatch):
    run = Steered(last=3)
    run.go.release(100)
    without = shown_by(monkeypatch, running_demo(run))
    shown = shown_by(monkeypatch, running_demo(run, twin_runs=True))
    assert len(run.started) == 3
    assert shown[1][0]["image/png"] != without[1][0]["image/png"]
    assert "Run: step 3" in shown[1][1]["image/png"]["alt"]
