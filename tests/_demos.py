"""Settings of a demo that are worth a test."""

from __future__ import annotations


def ends_of(demo):
    """The defaults, all first and all last stops, and each control at its ends with the others at their defaults."""
    yield demo.settings()
    yield {control.name: control.values[0] for control in demo.controls}
    yield {control.name: control.values[-1] for control in demo.controls}
    for control in demo.controls:
        stops = control.values if control.kind == "choice" else (control.values[0], control.values[-1])
        yield from (demo.settings(**{control.name: value}) for value in stops)
