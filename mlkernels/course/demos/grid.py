"""Which settings of a demo have a picture where no kernel runs: a grid of stops, and what it may weigh."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlkernels.errors import bad_input

if TYPE_CHECKING:
    from mlkernels.course.demos.demo import Control

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """The settings of a demo that get a picture of their own in the course's pages.

    Args:
        together: sets of controls. Of each set every combination of stops has a picture, with all other controls at
            their defaults; moved beyond, they go back there. One set of all controls where none is given.
        stops: control -> the stops of it that are kept, its default among them; all where it is not named. A control
            with one stop is not shown.
        runs: sets of controls, as `together`: settings for which the finished run has a picture, too.
        most: pictures, at most.
        budget: bytes of all pictures, at most.

    Example:
        >>> Grid().budget
        4000000
    """

    together: tuple[tuple[str, ...], ...] = ()
    stops: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    runs: tuple[tuple[str, ...], ...] = ()
    most: int = 500
    budget: int = 4_000_000

    def check(self, name: str, controls: Sequence[Control]) -> None:
        """Refuse a grid that does not fit a demo's controls: an unknown name, a stop that is none, a default left out.

        Raises:
            InputError: which, and what would fit.
        """
        known = {control.name: control for control in controls}
        named = {each for group in (*self.together, *self.runs) for each in group} | set(self.stops)
        if unknown := sorted(named - set(known)):
            expected = f"controls {', '.join(known)}"
            raise bad_input(f"demo {name}, grid", expected, ", ".join(unknown), "use one of these")
        for control, stops in self.stops.items():
            values, default = known[control].values, known[control].default
            if default not in stops or not set(stops) <= set(values):
                expected = f"some of {values}, {default!r} among them"
                raise bad_input(f"demo {name}, grid, stops of {control}", expected, stops, "name stops of the control")

    def kept(self, control: Control) -> tuple[Any, ...]:
        """The stops of a control that have pictures, in its order; its default alone where it moves with none."""
        if self.together and not any(control.name in group for group in self.together):
            return (control.default,)
        stops = self.stops.get(control.name, control.values)
        return tuple(value for value in control.values if value in stops)

    def groups(self, controls: Sequence[Control]) -> tuple[tuple[str, ...], ...]:
        """The sets of controls that move together."""
        return self.together or (tuple(control.name for control in controls),)

    def points(
        self, controls: Sequence[Control], groups: Sequence[Sequence[str]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every setting that has a picture, the defaults first and each once; of `groups` instead of `together`, if
        given.
        """
        defaults = {control.name: control.default for control in controls}
        seen = set()
        for group in ((), *(self.groups(controls) if groups is None else groups)):
            moved = [control for control in controls if control.name in group]
            for values in itertools.product(*(self.kept(control) for control in moved)):
                point = defaults | dict(zip((control.name for control in moved), values, strict=True))
                if (mark := tuple(point.values())) not in seen:
                    seen.add(mark)
                    yield point

    def thinner(self, controls: Sequence[Control]) -> Grid | None:
        """This grid without every second stop of the control that has most, its ends and default kept; None where
        nothing is left to thin.
        """
        moving = {each for group in self.groups(controls) for each in group}
        control = max((each for each in controls if each.name in moving), key=lambda each: len(self.kept(each)))
        stops = self.kept(control)
        if len(stops) < 2:
            return None
        home = stops.index(control.default)
        fewer = [v for i, v in enumerate(stops) if (i - home) % 2 == 0 or i in (0, len(stops) - 1)]
        if len(fewer) == len(stops):
            fewer = [control.default]
        return replace(self, stops={**self.stops, control.name: tuple(fewer)})

    def fitting(self, controls: Sequence[Control]) -> Grid:
        """This grid, thinned until it has at most `most` pictures."""
        grid = self
        while sum(1 for _ in itertools.islice(grid.points(controls), self.most + 1)) > self.most:
            grid = grid.thinner(controls)
        return grid
