"""The static twin of a demo: its pictures at a few settings, each under its caption, for where no slider works."""

from __future__ import annotations

from mlkernels.course.demos.demo import Demo
from mlkernels.course.plots import show_png


def twin(demo: Demo) -> None:
    """Show the static twin of a demo: the same picture at three to six settings, for where no slider works.

    Each picture is an output of its own below its settings in words, so that it is as large as any other figure and
    its caption is text: on a phone, on paper, for a screen reader. In the course's pages it is a `<figure>` with a
    `<figcaption>`.

    A demo with `twin_runs` is run at each of them first.

    Args:
        demo: from `mlkernels.course.demos`.

    Raises:
        InputError: settings that have no picture; what is no demo, such as its module.

    Source: every notebook, the cell "if you see no slider".
    """
    stage = Demo.check(demo).build()
    for values in demo.twin:
        frame = demo.frame(stage, demo.finished(**values) if demo.twin_runs else None, **values)
        show_png(frame.png, frame.alt, frame.size[0], caption=demo.caption(**values))
