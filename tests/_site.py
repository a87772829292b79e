"""A small site: one executed notebook made by hand, with two demos on tiny grids; no kernel runs."""

from __future__ import annotations

import base64

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mlkernels.course import plots
from mlkernels.course.claim_records import CLAIM_MIME
from mlkernels.course.demos.grid import Grid
from mlkernels.runner.pages import WIDGET

NAME = "00_start_here"
GRIDS = {
    "start_here": Grid(stops={"task": (1,), "shot": (2, 5), "inner_steps": (0, 50, 1000)}),
    "conflicting_tasks": Grid(
        together=(("angle",), ("temperature",)),
        stops={"angle": (90, 120), "temperature": (0.3, 1.0)},
    ),
}
LONG_LINE = "x = " + " + ".join(f"a_rather_long_name_{i}" for i in range(12))
LONG_SUM = r"\mathcal K = \mathbb R + " + " + ".join(rf"\Theta_{{{i}}}" for i in range(40))
CLAIM = {
    "id": "start.claim", "statement": "It falls.", "source": "Someone 2020", "measured": "1", "expected": "1",
    "verdict": "holds", "why": "", "test": "t", "expected_to_hold": True, "values": {},
}  # fmt: skip


def code(source, *outputs, tags=()):
    cell = new_code_cell(source, outputs=[*outputs], execution_count=1)
    cell.metadata["tags"] = [*tags]
    return cell


def shown(data, metadata=None):
    return new_output("display_data", data=data, metadata=metadata or {})


def picture(alt, caption=""):
    """What `plots.show_png` leaves of a small figure."""
    fig, ax = plots.figure(4, 2)
    ax.plot([0, 1], [0, 1])
    data, metadata = plots.bundle(plots.to_png(fig), alt, 4)
    data["image/png"] = base64.b64encode(data["image/png"]).decode()
    if not caption:
        return [shown(data, metadata)]
    metadata["image/png"]["caption"] = caption
    text = shown({"text/plain": caption, "text/html": f"<p>{caption}</p>"}, {"caption_of_next": True})
    return [text, shown(data, metadata)]


def explored(module):
    """The cells of a demo: its controls, and its still pictures."""
    widget = shown({WIDGET: {"model_id": "abc"}, "text/plain": "Explorer()"})
    still = [*picture("A line that rises, before.", "steps 0"), *picture("A line that rises, after.", "steps 50")]
    return [
        code(f"widgets.explore({module}.DEMO)", widget, tags=["widget"]),
        new_markdown_cell("**If you see no slider**, here is what it shows."),
        code(f"widgets.twin({module}.DEMO)", *still),
    ]


def notebook():
    """An executed notebook with all that the course's have."""
    cells = [
        new_markdown_cell("# Start here\n\nA *first* notebook. It follows [a paper](https://example.org/paper)."),
        code("from mlkernels.course import widgets\nfrom mlkernels.course.demos import conflicting_tasks, start_here"),
        new_markdown_cell(
            "## Equations\n\n$$"
            + r"\mathcal K = \mathbb R + "
            + " + ".join(rf"\Theta_{{{i}}}" for i in range(40))
            + "$$"
        ),
        new_markdown_cell("| a | b |\n|---|---|\n| one | two |"),
        code(LONG_LINE, *picture("A line that rises.")),
        new_markdown_cell("## Demos"),
        *explored("start_here"),
        *explored("conflicting_tasks"),
        code("secret = 1", tags=["solution"]),
        code("claim", shown({CLAIM_MIME: CLAIM, "text/html": "<p>holds</p>", "text/plain": "holds"})),
    ]
    made = new_notebook(cells=cells)
    made.metadata["mlkernels"] = {
        "status": "finished", "preset": "quick", "seed": 0, "parameters": {}, "config": {},
        "versions": dict.fromkeys(("python", "jax", "neural-tangents"), "1.0"),
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "x64": True, "cores": 2},
        "started": "2025-01-01T00:00:00+00:00", "wall_seconds": 75.0, "fingerprint": "f", "failure": None,
    }  # fmt: skip
    return made
