"""Presets: how much a notebook computes, quick | class | full, chosen in one cell and recorded in its output.

A new parameter of a notebook is a line of its cell tagged `parameters` (`width: Optional[int] = None  # what it is`, as
papermill --help-notebook reads it), and its range and itself in the call of `choose`:
`choose(preset, sizes, ranges={"width": (64, None)}, seed=seed, notebook="05_name", width=width)`.
"""

from __future__ import annotations

import html
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlkernels.course.ranges import SEEDS, within
from mlkernels.errors import bad_input
from mlkernels.support.strict_json import to_json

PRESETS = ("quick", "class", "full")
CONFIG_MIME = "application/vnd.mlkernels.config+json"


@dataclass(frozen=True, repr=False)
class Settings(Mapping):
    """The settings in effect: a frozen mapping whose items are attributes too. Shown in a notebook, it records itself.

    Args:
        preset: "quick", "class" or "full".
        seed: what every random key of the notebook is made from.
        notebook: the notebook's name.
        chosen: name -> value.
        overridden: the names whose value is not the preset's.

    Example:
        >>> settings = choose("quick", {p: {"width": 64} for p in PRESETS})
        >>> settings.width, settings["width"], dict(settings)
        (64, 64, {'width': 64})
    """

    preset: str
    seed: int
    notebook: str
    chosen: Mapping[str, Any]
    overridden: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.chosen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "chosen":  # copy and pickle ask before there is anything to look in
            raise AttributeError(name)
        if name in self.chosen:
            return self.chosen[name]
        raise AttributeError(f"no setting is called {name!r}; there are: {', '.join(self.chosen)}")

    def key(self):
        """The random key of this run, `jax.random.key(seed)`."""
        import jax

        return jax.random.key(self.seed)

    def config(self) -> dict[str, Any]:
        """The effective configuration as plain JSON: notebook, preset, seed, settings, overridden."""
        return {
            "notebook": self.notebook,
            "preset": self.preset,
            "seed": self.seed,
            "settings": to_json(self.chosen),
            "overridden": list(self.overridden),
        }

    def _rows(self) -> list[tuple[str, str]]:
        mark = dict.fromkeys(self.overridden, "  (not the preset's)")
        return [("seed", str(self.seed)), *((n, f"{to_json(v)}{mark.get(n, '')}") for n, v in self.chosen.items())]

    def __repr__(self) -> str:
        rows = self._rows()
        wide = max(len(name) for name, _ in rows)
        return "\n".join([f"preset {self.preset}", *(f"  {name:<{wide}}  {value}" for name, value in rows)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        body = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(n)}</th>'
            f'<td style="text-align:left">{html.escape(v)}</td></tr>'
            for n, v in self._rows()
        )
        caption = f'<caption style="text-align:left">preset <b>{self.preset}</b></caption>'
        return {
            "text/plain": repr(self),
            "text/html": f"<table>{caption}<tbody>{body}</tbody></table>",
            CONFIG_MIME: self.config(),
        }


_RESERVED = {f.name for f in fields(Settings)} | {name for name in dir(Settings) if not name.startswith("__")}


def _same_kind(old: Any, new: Any) -> bool:
    """Whether an override can stand where the preset's value stood: number for number, text for text, list for list."""
    if old is None:
        return True
    for kind in (bool, numbers.Number, str, tuple | list, Mapping):
        if isinstance(old, kind) or isinstance(new, kind):
            return isinstance(old, kind) and isinstance(new, kind)
    return True


def choose(
    preset: str,
    presets: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    notebook: str = "",
    ranges: Mapping[str, Any] | None = None,
    **overrides,
) -> Settings:
    """Choose a preset's settings, with some of them overridden, and hold the notebook's parameters to their ranges.

    Args:
        preset: "quick", "class" or "full".
        presets: each of the three names -> its settings; the same settings in all three.
        seed: whole number from 0 to 2^31 - 1.
        notebook: the notebook's name, for the record.
        ranges: parameter -> what it may be: (2, None) for whole numbers of at least 2, (0.0, 0.16) for numbers with
            both ends, a list of names, or "folder". Written as it stands, so that `mlkernels run` reads it from the
            cell and refuses a value before anything is run.
        overrides: setting -> value; None means the preset's own value. Also the parameters that no preset sets, which
            become settings: each of them has a range.

    Returns:
        `Settings`; as the last expression of a cell it shows a table and records the effective configuration.

    Raises:
        InputError: unknown preset or override, a preset missing or with other settings, an override of another kind, a
            value outside its range, a range whose parameter is not given.

    Example:
        >>> sizes = {"quick": {"width": 64}, "class": {"width": 256}, "full": {"width": 4096}}
        >>> choose("quick", sizes, width=None)
        preset quick
          seed   0
          width  64
        >>> choose("full", sizes, seed=3, width=1024).overridden
        ('width',)
        >>> choose("quick", sizes, ranges={"width": (64, None), "rate": (0.0, 0.16)}, width=None, rate=0.2)
        Traceback (most recent call last):
        mlkernels.errors.InputError: rate: expected a number from 0.0 to 0.16, got 0.2; choose such a number

    Source: the cell after `parameters` in every notebook.
    """
    if preset not in PRESETS:
        raise bad_input("preset", f"one of {', '.join(PRESETS)}", repr(preset), "choose one of these")
    if set(presets) != set(PRESETS):
        raise bad_input("presets", ", ".join(PRESETS), ", ".join(presets) or "none", "give settings for each of them")
    names, ranges = list(presets[preset]), ranges or {}
    for other in PRESETS:
        if odd := sorted(set(presets[other]) ^ set(names)):
            raise bad_input(f"preset {other}", f"the settings of {preset}", f"a difference in {', '.join(odd)}",
                            "give every preset the same settings")  # fmt: skip
    if clash := sorted(_RESERVED & {*names, *ranges}):
        raise bad_input("setting", "a name that Settings does not use", ", ".join(clash), "rename it")
    if absent := sorted(set(ranges) - {*names, *overrides}):
        raise bad_input("ranges", "parameters that are given", ", ".join(absent), f"add {absent[0]}={absent[0]}")
    if unknown := sorted(set(overrides) - {*names, *ranges}):
        do = "override an existing setting, or give its range"
        raise bad_input("override", f"one of {', '.join(names)}", ", ".join(unknown), do)
    seed = within("seed", seed, SEEDS)
    chosen = dict(presets[preset]) | {name: value for name, value in overrides.items() if name not in names}
    given = {name: value for name, value in overrides.items() if name in names and value is not None}
    for name, value in given.items():
        if not _same_kind(chosen[name], value):
            raise bad_input(name, f"a value like {chosen[name]!r}", repr(value), "give a value of the same kind")
    chosen.update(given)
    for name, allowed in ranges.items():
        if chosen[name] is not None:
            chosen[name] = within(name, chosen[name], allowed)
    return Settings(preset, seed, notebook, _Frozen(chosen), tuple(given))


class _Frozen(dict):
    """A dict that refuses changes and, unlike a mappingproxy, can be copied and pickled."""

    def _refuse(self, *args, **kwargs):
        raise TypeError("settings do not change; choose() new ones")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse

    def __reduce__(self):
        return (_Frozen, (dict(self),))
