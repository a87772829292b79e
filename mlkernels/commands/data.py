"""The command line's group `data`: list, get and verify datasets. Heavy imports stay inside the commands."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import click

from mlkernels.commands.options import TypedPath, say
from mlkernels.errors import InputError, bad_input
from mlkernels.support.progress import bar


@click.group()
def data() -> None:
    """List, get and verify datasets."""


@data.command("list")
def list_() -> int:
    """Show the datasets with size, licence and state."""
    from mlkernels import datasets
    from mlkernels.datasets import folders

    rows = [("name", "size", "on disk", "licence", "state")]
    rows += [_row(name) for name in datasets.names()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[-1]]).rstrip())
    say(f"read: {folders.where_looked()}; written: {folders.writing_folder()}")
    return 0


@data.command()
@click.argument("name")
@click.option("--from", "source", type=TypedPath(), metavar="PATH", help="A local copy, in any usual form.")
@click.option("--accept-licence", is_flag=True, help="You accept the licence, where one restricts use.")
def get(name, source, accept_licence) -> int:
    """Download a dataset, or import a local copy.

    The copy is checked and converted once, into the folder that `mlkernels data path` prints. The copy itself is left
    as it is. data/README.md says which forms of each dataset are understood.
    """
    from mlkernels import datasets
    from mlkernels.datasets import folders
    from mlkernels.datasets.equal_pixels import counted, in_words, sets_of_equal
    from mlkernels.datasets.importing import get
    from mlkernels.datasets.prepared import read_manifest

    datasets.available(name)  # an unknown name is refused here
    _say_where(folders)
    if name in datasets.MADE:
        if source is not None:
            do = f"put its files into {folders.writing_folder()} or into a folder of {folders.VARIABLE}"
            raise bad_input(f"{name} --from", "a dataset that is imported", name, f"{do}, as data/README.md says")
        made = datasets.load(name)
        say(made.summary())
        say(in_words(counted(made, sets_of_equal(made))))
        return 0
    unit = {"unit": "image", "unit_scale": True}
    with ExitStack() as stack:
        folder = get.get(
            get.recipe_of(name),
            source,
            accept=lambda recipe: accept_licence or _asked(recipe),
            say=lambda line: say(line, err=True),
            progress=lambda what, total: stack.enter_context(bar(sys.stderr, desc=what, total=total, **unit)).update,
        )
    say(f"{name}: {folder}")
    for line in get.described(read_manifest(folder)):
        say(line)
    return 0


@data.command()
@click.argument("name", required=False)
def verify(name) -> int:
    """Read all of a dataset again and hold it against its checksums.

    Without NAME, every dataset that is here. Exit status 1 if one is damaged.
    """
    from mlkernels import datasets
    from mlkernels.datasets import folders
    from mlkernels.datasets.equal_pixels import in_words
    from mlkernels.datasets.prepared import verify_prepared

    chosen = [name] if name else [one for one in datasets.names() if datasets.available(one)]
    wrong = 0
    for one in chosen:
        if datasets.available(one) is None:
            do = f"get it: mlkernels data get {one}"
            raise bad_input(one, "a dataset that is here", f"none in {folders.where_looked()}", do)
        try:
            folder, manifest = folders.find_folder(one), None
            if folder is None:  # a file that is read as it is
                where = datasets.load(one, **({"download": False} if one == "omniglot" else {})).source
            else:
                where = folder
                total = sum(file.stat().st_size for file in folder.iterdir() if file.suffix == ".npy")
                with bar(sys.stderr, desc=one, total=total, unit="B", unit_scale=True) as shown:
                    manifest = verify_prepared(folder, shown.update, one)
            say(f"ok    {one}: {where}")
            if manifest is not None and manifest["equal"]["sets"]:
                say(f"      {in_words(manifest['equal'])}")
            if manifest is not None and "sha256" not in manifest:
                say("      its manifest is of an earlier version, without a checksum: names are not verified")
        except InputError as error:
            wrong += 1
            say(f"WRONG {one}: {error}", err=True)
    return 1 if wrong else 0


@data.command()
def path() -> int:
    """Print the folder that data is written to.

    On the error channel: why a folder of MLKERNELS_DATA is only read.
    """
    from mlkernels.datasets import folders

    say(str(folders.writing_folder()))
    _say_where(folders)
    return 0


def _row(name: str) -> tuple[str, ...]:
    """Name, size, bytes on the disk, licence and state of a dataset."""
    from mlkernels import datasets
    from mlkernels.datasets import folders
    from mlkernels.datasets.importing import get
    from mlkernels.datasets.prepared import read_manifest

    where = datasets.available(name)
    if name == "glyphs":
        return (name, "240 classes 28x28x1", "-", "MIT", "made here")
    if name == "omniglot":
        state = f"ready: {where}" if where else "to download: mlkernels data get omniglot"
        return (name, "1623 classes 28x28x1", "3 MB", "MIT", state)
    recipe = get.recipe_of(name)
    expected = recipe.expected
    size = f"{'/'.join(map(str, expected.classes.values()))} classes {'x'.join(map(str, expected.shape))}"
    disk = f"{recipe.disk / 1e9:.1f} GB"
    how = "to download" if recipe.downloads else "give a local copy"
    state = f"{how}: mlkernels data get {name}{'' if recipe.downloads else ' --from PATH'}"
    folder = folders.find_folder(name)
    if folder is not None:
        try:
            read_manifest(folder, name)
            state = f"ready: {where}"
        except InputError:
            state = f"damaged: {where}"
    elif where is not None:
        state = f"a part of it: {where}; {state}"
    terms = f"{recipe.licence.partition(' (')[0].partition(':')[0]}{', to be accepted' if recipe.restricted else ''}"
    return (name, size, disk, terms, state)


def _say_where(store) -> None:
    """Which folders that the user named are not written to, and why."""
    for folder in store.named_folders():
        if reason := store.why_not(folder):
            say(f"{folder} is only read: {reason}; what is new goes to {store.writing_folder()}", err=True)


def _asked(recipe) -> bool:
    """Ask for consent to a licence, if there is somebody to ask."""
    if not sys.stdin.isatty():
        return False
    say(f"{recipe.name} is under {recipe.licence}.", err=True)
    return click.confirm("Do you accept these terms?", default=False, err=True)
