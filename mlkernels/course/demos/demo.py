"""What a demo is: settings -> numbers -> a figure whose frame stays while its content moves. No widgets here."""

from __future__ import annotations

import inspect
import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from PIL import Image

from mlkernels.course.demos.grid import Grid
from mlkernels.course.plots import DPI, STYLE, check_alt
from mlkernels.errors import bad_input
from mlkernels.support.arguments import in_short

__all__ = ["Control", "Demo", "Frame", "RunItem", "Stage", "choice", "once", "steps", "written"]

# for what a demo computes once: XLA compiles it in half of the time
once = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

_ON_TOP = 100  # added to the z-order of what moves, so that drawing it last is drawing it in order


@dataclass(frozen=True)
class Control:
    """One control of a demo: explicit stops and never a continuum, so that each can be compiled and tested.

    Args:
        kind: "steps" for a slider, "choice" for buttons.
        name: the setting, a keyword of the demo's `compute`.
        label: what the reader sees, with the symbol of the text.
        options: (text, value) for each stop.
        default: one of the values.
        help: a sentence on what it does.
    """

    kind: str
    name: str
    label: str
    options: tuple[tuple[str, Any], ...]
    default: Any
    help: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("steps", "choice"):
            raise bad_input(f"control {self.name}, kind", "steps or choice", repr(self.kind), "choose one")
        texts = [text for text, _ in self.options]
        if len(texts) < 2 or len(set(texts)) < len(texts):
            expected = "two or more, each with its own text"
            raise bad_input(f"control {self.name}, options", expected, texts, "rename them")
        if self.default not in self.values:
            raise bad_input(f"control {self.name}, default", f"one of {self.values}", repr(self.default), "choose one")

    @property
    def values(self) -> tuple[Any, ...]:
        return tuple(value for _, value in self.options)

    def text(self, value: Any) -> str:
        """The text of a value, also of one between the stops."""
        return next((text for text, stop in self.options if stop == value), written(value))


def written(value: Any) -> str:
    """A value as a label: infinity as its sign, numbers short.

    Example:
        >>> written(math.inf), written(0.1), written(64)
        ('∞', '0.1', '64')
    """
    if isinstance(value, float):
        return "∞" if value == math.inf else f"{value:g}"
    return str(value)


def steps(name: str, label: str, values: Iterable[Any], default: Any, help: str = "", unit: str = "") -> Control:
    """A slider over these values, each said with its unit."""
    return Control("steps", name, label, tuple((f"{written(v)}{unit}", v) for v in values), default, help)


def choice(name: str, label: str, values: Iterable[Any], default: Any, help: str = "") -> Control:
    """Buttons for these values."""
    return Control("choice", name, label, tuple((written(v), v) for v in values), default, help)


class Stage:
    """A figure whose frame (axes, ticks, labels) is drawn once, while its moving artists are drawn anew for each frame.

    A whole 3-panel figure takes matplotlib about 100 ms, nearly all of it for ticks and text; the moving artists take a
    few. When something else than they has changed, as an axis limit, the frame is drawn again by itself.

    Args:
        figure: with fixed axes (`plots.figure(..., boxes=...)`).
        moving: name -> an artist, or a list of artists, that `move` will change.
    """

    def __init__(self, figure: Figure, **moving: Artist | Iterable[Artist]) -> None:
        self.figure = figure
        self._moving = moving
        artists = [a for item in moving.values() for a in (list(item) if isinstance(item, list | tuple) else [item])]
        for artist in artists:
            artist.set_animated(True)
            artist.set_zorder(artist.get_zorder() + _ON_TOP)
        self._artists = sorted(artists, key=Artist.get_zorder)
        self._frame = None
        figure.set_dpi(DPI)

    def __getitem__(self, name: str) -> Any:
        return self._moving[name]

    def pixels(self) -> np.ndarray:
        """The picture as it is now, `[height, width, 4]` uint8; a view that the next call overwrites."""
        canvas = self.figure.canvas
        if self._frame is None or self.figure.stale:  # what moves is `animated` and makes nothing stale
            canvas.draw()
            self._frame = canvas.copy_from_bbox(self.figure.bbox)
        else:
            canvas.restore_region(self._frame)
        renderer = canvas.get_renderer()
        for artist in self._artists:
            artist.draw(renderer)
        return np.asarray(canvas.buffer_rgba())

    def still(self) -> np.ndarray:
        """The part of the picture that stays, without what moves: `[height, width, 4]` uint8."""
        self.pixels()
        self.figure.canvas.restore_region(self._frame)
        return np.array(self.figure.canvas.buffer_rgba())

    def png(self) -> bytes:
        """The picture as PNG."""
        file = io.BytesIO()
        Image.fromarray(self.pixels()).convert("RGB").save(file, "png", compress_level=1)
        return file.getvalue()


class Frame(NamedTuple):
    """One answer of a demo: the picture, its alt text, a line with the numbers, the picture's size in inches."""

    png: bytes
    alt: str
    readout: str
    size: tuple[float, float]


class RunItem(NamedTuple):
    """One item of a demo's run.

    Args:
        done: how far the run has come, 0 to 1.
        text: that in words, for the line beside the progress bar and for the alt text.
        data: what `overlay` draws; all of the run so far, since items may be skipped.
        failed: whether the run ends here for a reason that the reader must see, as divergence.
    """

    done: float
    text: str
    data: Any = None
    failed: bool = False


@dataclass(frozen=True)
class Demo:
    """A demo as pure functions: the same settings give the same picture, on a new stage and on a used one.

    With `run` a demo has besides its picture something that takes long, on a button: a computation whose items are
    drawn over the picture while it goes on.

    Args:
        name: short, for messages and benchmarks.
        question: what the reader should think about before moving anything.
        controls: two to six, in three rows: with question and figure they must fit a screen.
        compute: (**settings) -> numbers, of any type; raises InputError for settings that have no answer.
        stage: () -> `Stage`: the figure with all that stays, and placeholders for what moves.
        move: (stage, numbers): put the numbers into the stage's artists; every moving artist, every time.
        describe: (numbers) -> the alt text of this picture.
        twin: three to six settings (those not named are the defaults) for the static picture.
        readout: (numbers) -> the line above the figure.
        warm: () -> an iterable that compiles whatever the controls can ask for, a piece of at most about a second an
            item, what is asked for first in front. It is gone through behind the first picture, in a thread of its own.
        run: (**settings) -> an iterator of `RunItem`, each at most about 0.2 s of work after the one before; None for
            a demo that only predicts. It runs in a thread of its own and is left between two items when stopped.
        overlay: (stage, item or None): put an item into the stage's artists; None clears them.
        twin_runs: whether the static picture shows the runs, finished.
        grid: which settings have a picture in the course's pages, where no kernel runs; all together, thinned to 500
            pictures, where none is given.

    Raises:
        InputError: two controls for one setting, a twin of another length or with an unknown setting, a run without an
            overlay, a grid that does not fit the controls.
    """

    name: str
    question: str
    controls: tuple[Control, ...]
    compute: Callable[..., Any]
    stage: Callable[[], Stage]
    move: Callable[[Stage, Any], None]
    describe: Callable[[Any], str]
    twin: tuple[Mapping[str, Any], ...]
    readout: Callable[[Any], str] = lambda numbers: ""
    warm: Callable[[], Iterable] = lambda: ()
    run: Callable[..., Iterator[RunItem]] | None = None
    overlay: Callable[[Stage, RunItem | None], None] | None = None
    twin_runs: bool = False
    grid: Grid = field(default_factory=Grid)

    def __post_init__(self) -> None:
        names = [control.name for control in self.controls]
        if len(set(names)) < len(names):
            raise bad_input(f"demo {self.name}, controls", "one a setting", ", ".join(names), "rename one")
        if not 3 <= len(self.twin) <= 6:
            raise bad_input(f"demo {self.name}, twin", "three to six settings", len(self.twin), "add or drop some")
        if self.run is not None and self.overlay is None:
            raise bad_input(f"demo {self.name}, overlay", "a function, as there is a run", None, "draw the run's items")
        for values in self.twin:
            self.settings(**values)
        self.grid.check(self.name, self.controls)

    def settings(self, **values: Any) -> dict[str, Any]:
        """These values, with the controls' defaults for those not named. An unknown name is an InputError."""
        defaults = {control.name: control.default for control in self.controls}
        if unknown := sorted(set(values) - set(defaults)):
            expected = f"settings {', '.join(defaults)}"
            raise bad_input(f"demo {self.name}", expected, ", ".join(unknown), "use one of these")
        return defaults | values

    def caption(self, **values: Any) -> str:
        """The settings in words, as in "width 64, inner steps ∞"."""
        values = self.settings(**values)
        return ", ".join(f"{control.label} {control.text(values[control.name])}" for control in self.controls)

    def build(self) -> Stage:
        """A new stage in the course's look, whatever the notebook has set."""
        with matplotlib.rc_context(STYLE):
            return self.stage()

    def frame(self, stage: Stage, item: RunItem | None = None, /, **values: Any) -> Frame:
        """The answer to these settings, drawn on this stage; with an item of a run drawn over it."""
        numbers = self.compute(**self.settings(**values))
        with matplotlib.rc_context(STYLE):
            self.move(stage, numbers)
            if self.overlay is not None:
                self.overlay(stage, item)
            png = stage.png()
        size = tuple(float(inches) for inches in stage.figure.get_size_inches())
        alt = self.describe(numbers) + ("" if item is None else f" Run: {item.text}.")
        return Frame(png, check_alt(alt), self.readout(numbers), size)

    @classmethod
    def check(cls, demo: Any) -> Demo:
        """A demo, or an `InputError` for what is none: a demo's module, most often."""
        if not isinstance(demo, cls):
            module = getattr(demo, "__name__", "").rpartition(".")[2]
            do = f"give {module}.DEMO" if isinstance(getattr(demo, "DEMO", None), cls) else "give a demo's DEMO"
            raise bad_input("demo", "a Demo", f"the module {module}" if inspect.ismodule(demo) else in_short(demo), do)
        return demo

    def finished(self, **values: Any) -> RunItem:
        """The last item of a whole run with these settings."""
        if self.run is None:
            raise bad_input(f"demo {self.name}", "a demo with a run", "one without", "use frame")
        return deque(self.run(**self.settings(**values)), maxlen=1).pop()
