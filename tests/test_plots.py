"""The course's look: colours that all readers can tell apart, alt text on every figure, panels that say n."""

from __future__ import annotations

import ast
import io
import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from _notebooks import read
from PIL import Image

from mlkernels.course import plots
from mlkernels.errors import InputError

# Machado, Oliveira and Fernandes 2009, full severity, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    c = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    f = XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    ("sight", "least"), [("normal", 15), ("protanopia", 13), ("deuteranopia", 13), ("tritanopia", 9)]
)
def test_every_reader_can_tell_the_methods_apart(sight, least):
    seen = {name: lab(np.asarray(SIGHT[sight]) @ linear(colour)) for name, colour in plots.COLOURS.items()}
    distance = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    assert min(distance.values()) >= least, min(distance, key=distance.get)


def test_colours_stand_out_on_white_and_looks_differ_without_colour():
    for name, colour in plots.COLOURS.items():
        assert 1.05 / (XYZ[1] @ linear(colour) + 0.05) >= 3, name
    shapes = [(plots.MARKERS[name], str(plots.LINESTYLES[name])) for name in plots.LOOKS]
    assert len(set(shapes) - {("o", "-")}) == len(shapes) - 2  # only MAML and "measured" share circles on a line


def test_the_cycle_of_the_style_is_as_safe():
    colours = plots.STYLE["axes.prop_cycle"].by_key()["color"]
    assert {c.upper().lstrip("#") for c in colours} <= {c.lstrip("#") for c in plots.COLOURS.values()}


def widths_of_lines(source):
    """The numbers that code gives as widths of lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in ("linewidth", "linewidths", "lw"):
            yield from (each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in ("linewidth", "linewidths"):
                    yield from (each.value for each in ast.walk(value) if isinstance(each, ast.Constant))


def test_no_line_is_thinner_than_a_pixel_at_the_size_that_figures_are_shown_at():
    least = 72 / plots.SCREEN  # points
    with matplotlib.rc_context(plots.STYLE):
        ticks = [f"{axis}tick.{kind}.width" for axis in "xy" for kind in ("major", "minor")]
        names = ["lines.linewidth", "axes.linewidth", "grid.linewidth", "patch.linewidth", *ticks]
        assert not {name: matplotlib.rcParams[name] for name in names if matplotlib.rcParams[name] < least}
    course, home = Path(plots.__file__).parents[1], Path(__file__).parents[1] / "notebooks"
    sources = {path.name: [path.read_text(encoding="utf-8")] for path in course.rglob("*.py")}
    sources |= {
        path.name: [cell.source for cell in read(path).cells if cell.cell_type == "code"]
        for path in home.glob("*.ipynb")
    }
    widths = {name: [w for source in those for w in widths_of_lines(source)] for name, those in sources.items()}
    assert sum(map(len, widths.values())) > 50
    assert not {name: thin for name, those in widths.items() if (thin := [w for w in those if 0 < w < least])}


def test_look():
    _, ax = plots.figure()
    (line,) = ax.plot([1, 2], [1, 2], **plots.look("Meta-RKHS-II"))
    assert line.get_color() == plots.COLOURS["Meta-RKHS-II"]
    with pytest.raises(InputError, match="method: expected one of MAML, ANIL"):
        plots.look("maml")


def test_use_style():
    with matplotlib.rc_context():
        plots.use_style()
        assert matplotlib.rcParams["image.cmap"] == "cividis"
        assert matplotlib.rcParams["font.size"] >= 10


def test_figures_are_outside_pyplot_and_in_the_style():
    with matplotlib.rc_context({"axes.spines.top": True, "axes.grid": False}):
        fig, axes = plots.figure(8, 3, columns=2)
    assert axes.shape == (2,)
    assert not axes[0].spines["top"].get_visible()
    assert fig.get_size_inches().tolist() == [8, 3]
    fig, axes = plots.figure(boxes=[(0.1, 0.1, 0.3, 0.8), (0.6, 0.1, 0.3, 0.8)])
    assert axes[1].get_position().x0 == pytest.approx(0.6)
    heavy = ("matplotlib.pyplot", "IPython", "ipywidgets", "jax")
    code = f"import sys, mlkernels.course.plots; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.fixture
def displayed(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **kwargs: shown.append((data, kwargs)))
    return shown


def test_show_gives_the_picture_its_alt_text(displayed):
    fig, ax = plots.figure(6.5, 4)
    ax.plot([1, 2], [1, 2])
    plots.show(fig, "  A line that\nrises. ")
    ((data, kwargs),) = displayed
    assert kwargs == {"metadata": {"image/png": {"alt": "A line that rises.", "width": 624}}, "raw": True}
    assert data["text/plain"] == "[picture: A line that rises.]"
    assert Image.open(io.BytesIO(data["image/png"])).size == (1040, 640)
    assert data["text/html"].startswith('<img alt="A line that rises." width="624" height="384"')
    assert len(data["text/html"]) + len(data["image/png"]) < len(plots.to_png(fig))  # few colours


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_show_refuses_a_figure_without_alt_text(displayed, alt):
    fig, _ = plots.figure()
    with pytest.raises(InputError, match="alt: expected"):
        plots.show(fig, alt)
    assert not displayed


def test_show_closes_a_pyplot_figure(displayed):
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"backend": "agg"}):
        fig = plt.figure()
        plots.show(fig, "Nothing.")
        assert not plt.fignum_exists(fig.number)


def test_heatmap_draws_lines_between_tasks():
    fig, ax = plots.figure()
    drawn = plots.heatmap(ax, np.arange(24.0).reshape(4, 6), blocks=(2, 3), label="entry")
    assert len(drawn.lines.get_segments()) == 2
    assert drawn.image.get_clim() == (0, 23)
    assert drawn.image.get_cmap().name == "cividis"
    plots.to_png(fig)
    one = plots.heatmap(plots.figure()[1], -np.eye(2), centre=0.0, colorbar=False)
    assert one.image.get_clim() == (-1, 1)
    assert one.image.get_cmap().name == "RdBu_r"
    assert one.colorbar is None
    assert not one.lines.get_segments()
    with pytest.raises(InputError, match="matrix"):
        plots.heatmap(ax, np.ones(3))


def test_spectrum_sorts_and_leaves_out_what_a_log_axis_cannot_show():
    _, ax = plots.figure()
    y = plots.spectrum(ax, [1.0, 100.0, 0.0, 10.0]).get_ydata()
    np.testing.assert_array_equal(y, [100, 10, 1, np.nan])
    assert ax.get_yscale() == "log"


def test_band_is_students_interval_and_says_n():
    from mlkernels.course.claims import interval

    ys = np.random.default_rng(0).uniform(1, 2, size=(5, 3))
    _, ax = plots.figure()
    line = plots.band(ax, [1, 2, 3], ys, method="ANIL", label="adapted")
    assert line.get_label() == "adapted, mean and 95 % interval, n = 5"
    corners = ax.collections[0].get_paths()[0].vertices
    at_two = sorted({round(y, 9) for x, y in corners if x == 2})
    expected = interval(ys[:, 1])
    np.testing.assert_allclose(at_two, [expected.low, expected.high])
    assert plots.band(ax, [1, 2, 3], ys[:1], method="NTK").get_label() == "NTK, n = 1"
    with pytest.raises(InputError, match=r"ys: expected \[seeds, 2\]"):
        plots.band(ax, [1, 2], ys, method="ANIL")
    with pytest.raises(InputError, match="positive"):
        plots.band(ax, [1, 2, 3], -ys, method="ANIL", log=True)


def test_loglog_width_draws_the_theoretical_slope_from_the_first_mean():
    widths = np.array([64, 256, 1024])
    errors = np.outer([0.9, 1.0, 1.1], widths**-0.5)
    fig, ax = plots.figure()
    line = plots.loglog_width(ax, widths, errors, method="MetaNTK")
    theory = ax.lines[-1]
    assert theory.get_label() == "slope -0.5"
    np.testing.assert_allclose(theory.get_ydata(), line.get_ydata())
    assert [text.get_text() for text in ax.get_xticklabels()] == ["64", "256", "1024"]
    plots.to_png(fig)
