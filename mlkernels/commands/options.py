"""What commands share: paths and options, the dataset by its name, progress, and a stop that keeps what is done."""

from __future__ import annotations

import inspect
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from mlkernels.errors import bad_input
from mlkernels.support.progress import Progress, bar
from mlkernels.support.words import printable


def say(text: object, err: bool = False) -> None:
    """Show lines on a terminal, whatever the names in them are made of."""
    click.echo(printable(str(text)), err=err)


class Time(click.ParamType):
    """A number of at least 0, or inf."""

    name = "number|inf"

    def convert(self, value, param, ctx):
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no number, nor inf", param, ctx)


class SettingsCommand(click.Command):
    """A command with options that are made when they are asked for, since their settings know JAX.

    Args:
        settings: makes them, by `options_of`.
    """

    def __init__(self, *arguments, settings: Callable[[], list[click.Option]], **more):
        super().__init__(*arguments, **more)
        self.settings = settings

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if self.settings is not None:
            self.params, self.settings = [*self.settings(), *self.params], None
        return super().get_params(ctx)


def options_of(settings: Callable, *names: str, **defaults) -> list[click.Option]:
    """Options of a command that stand for arguments of a dataclass or a function.

    Their defaults are those of the arguments, unless a command has others, their help is what the docstring says of
    each in its first sentence. A tuple is an option in the singular that may be repeated; "methods=--method" gives
    another name.
    """
    arguments, options = inspect.signature(settings).parameters, []
    section = inspect.getdoc(settings).partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    ([\w, ]+): (.+(?:\n {8}.+)*)", section, re.M)
    said = {name: " ".join(text.split()) for together, text in entries for name in together.split(", ")}
    for name, _, flag in (each.partition("=") for each in names):
        default = defaults.get(name, arguments[name].default)
        several, kind = isinstance(default, tuple), None  # click takes the default's type
        if default is None:
            kind = int if str(arguments[name].annotation).startswith("int") else str
        elif default == math.inf:
            kind = Time()
        help_ = re.split(r"(?<=\.) ", said[name])[0].replace("`", "").rstrip(".") + "."
        help_ = help_[0].upper() + help_[1:] + " May be repeated." * several
        flag = flag or "--" + name.replace("_", "-") + f"/--no-{name}" * (default is True)
        more = {"type": kind, "multiple": several, "is_flag": True if default is False else None}
        options.append(click.Option([flag, name], default=default, show_default=True, help=help_, **more))
    return options


def data_option(default: str):
    """The option --data."""
    return click.option("--data", default=default, show_default=True, metavar="NAME", help="See mlkernels data list.")


def named_dataset(name: str):
    """The dataset, or an `InputError` lists those that there are."""
    from mlkernels import datasets

    known = datasets.names()
    if name not in known:
        raise bad_input("--data", " or ".join(known), name, "see mlkernels data list")
    return datasets.load(name)


@contextmanager
def working(lock: AbstractContextManager, kept: str) -> Iterator[Counter]:
    """Work under a lock, `files.alone` of the place that is written to, and show how far it is.

    Ctrl-C and a polite kill end the command with exit status 130, and say what is kept.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with closing(Counter(sys.stderr)) as display, lock:
            yield display
    except KeyboardInterrupt:
        say(f"stopped; {kept}", err=True)
        raise click.exceptions.Exit(130) from None


class TypedPath(click.Path):
    """A `click.Path` that expands ~, which a shell leaves alone in --out=~/x, and refuses an empty text."""

    def __init__(self, **options: Any):
        super().__init__(path_type=Path, **options)

    def convert(self, value, param, ctx):
        text = os.fspath(value)
        if not text.strip():
            self.fail("an empty text is no path", param, ctx)
        try:
            return super().convert(Path(text).expanduser(), param, ctx)
        except RuntimeError:
            self.fail(f"{text!r} is of no known user; write ./~ for a ~", param, ctx)


class Counter:
    """Shows a `Progress`: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, stream: TextIO):
        self.stream, self.said = stream, 0.0
        self.bar = bar(stream, bar_format="{n_fmt} of {total_fmt} {bar} {desc}")

    def __call__(self, progress: Progress) -> None:
        done = progress.done
        total = done + 1 if progress.total is None else progress.total
        self.bar.n, self.bar.total = done, total
        self.bar.set_description_str(printable(str(progress)))
        if self.bar.disable and (done == total or time.monotonic() - self.said > 60):
            self.said = time.monotonic()
            print(printable(f"{done} of {total}, {progress}"), file=self.stream, flush=True)

    def close(self) -> None:
        self.bar.close()


FOLDER = TypedPath(file_okay=False)
notebooks_option = click.option(
    "--notebooks", type=FOLDER, metavar="DIR", help="Folder of the notebooks [the checkout's]."
)


def shorter_path(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
