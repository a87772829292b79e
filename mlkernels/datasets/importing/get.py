"""Getting a dataset: find or fetch a copy, understand its form, check it, and write it once in the prepared form."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path

from mlkernels.datasets import RECIPE_MODULES, folders
from mlkernels.datasets.equal_pixels import in_words
from mlkernels.datasets.fetch import fetch
from mlkernels.datasets.importing.archives import is_archive, unpack
from mlkernels.datasets.importing.expectations import check_labels, check_pixels
from mlkernels.datasets.importing.recipe import Download, Recipe, not_imported
from mlkernels.datasets.importing.write import write_prepared
from mlkernels.datasets.prepared import open_prepared, read_manifest
from mlkernels.errors import InputError, bad_input
from mlkernels.support.file_faults import fault_of
from mlkernels.support.files import scratch_folder
from mlkernels.support.words import span


def recipe_of(name: str) -> Recipe:
    """The recipe of an imported dataset."""
    return import_module(f"mlkernels.datasets.{RECIPE_MODULES[name]}").RECIPES[name]


def get(
    recipe: Recipe, source: Path | None = None, *, accept: Callable[[Recipe], bool] = lambda recipe: False,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int], Callable[[int], None] | None] = lambda what, total: None,
) -> Path:  # fmt: skip
    """Import a dataset, unless it is there already: its prepared folder. Nothing of the user's is changed.

    The source is a local copy in any form that the recipe knows, or an archive of one; without any, the folders of
    MLKERNELS_DATA are looked into, then what a trusted address gives is downloaded. `accept` is asked where a licence
    restricts use, `say` gets a line about what is done, `progress` gives for each step what gets the number of images.
    """
    there = _there(recipe, source, say)
    if there is not None:
        return there
    if source is not None:
        _check_known(recipe, source)
    source = source or _lying_about(recipe, say)
    if source is None and not recipe.downloads:
        do = f"take it from {recipe.where}, then call `mlkernels data get {recipe.name} --from PATH`"
        raise bad_input(recipe.name, "a local copy", "none, and there is no address to download it from", do)
    if recipe.restricted and not accept(recipe):
        do = "read them; --accept-licence says that you accept them"
        raise bad_input(f"licence of {recipe.name}", f"your consent to {recipe.licence}", "none", do)
    folder = folders.claim(folders.writing_folder())
    source = source or _downloaded(recipe, folder, say)
    target = folder / recipe.name
    with ExitStack() as stack:
        place, form = _understood(recipe, source, target, stack, say)
        say(f"{source}: {recipe.forms[form].words}")
        parts = recipe.splits_of(place, form)
        notes = check_labels(recipe.expected, parts, str(source))
        total = sum(int(part.counts.sum()) for part in parts.values())
        size, free = total * math.prod(recipe.expected.shape), shutil.disk_usage(folder).free
        if free < size:
            expected, got = f"{size / 1e9:.2f} GB of room for the prepared form", f"{free / 1e9:.2f} GB"
            do = f"make room, or name another folder first in {folders.VARIABLE}; nothing was written"
            raise bad_input(str(folder), expected, got, do)
        write_prepared(
            target,
            parts,
            recipe.expected.shape,
            sources=(source,) if place != source else (),
            notes=notes,
            check=partial(check_pixels, recipe.expected),
            progress=progress(recipe.name, total),
            name=recipe.name,
            source=str(source.resolve()),
            form=recipe.forms[form].words,
            licence=recipe.licence,
            licence_accepted=recipe.restricted,
        )
    return target


def described(manifest: dict) -> Iterable[str]:
    """Lines about a prepared dataset: counts of classes and images, channel means, equal images, what else to know."""
    for split, about in manifest["splits"].items():
        counts = about["counts"]
        means = " ".join(f"{value:.4f}" for value in about["mean"])
        yield f"{split:<5} {len(counts)} classes, {sum(counts)} images ({span(counts)} a class), channel means {means}"
    if "equal" in manifest:  # which folders of earlier versions lack
        yield in_words(manifest["equal"])
    for note in manifest["notes"]:
        yield f"note: {note}"


def _there(recipe: Recipe, source: Path | None, say: Callable[[str], None]) -> Path | None:
    """The prepared folder, if it is there and whole. A broken one in a folder of ours will be replaced, and kept."""
    folder = folders.find_folder(recipe.name)
    if folder is None:
        return None
    try:
        open_prepared(folder, name=recipe.name)
    except InputError as error:
        if folder.parent.resolve() != folders.writing_folder().resolve():
            do = f"replace it, or take its folder out of {folders.VARIABLE}"
            raise bad_input(str(folder), "a whole prepared copy", "a damaged one", do) from error
        say(f"{folder} is damaged; it will be kept beside the new one")
        return None
    then = read_manifest(folder)["source"]
    if source is not None and str(source.resolve()) != then:
        do = "to import this one instead, first rename or remove that folder"
        raise bad_input(recipe.name, f"no copy in {folder}", f"one that was made from {then}", do)
    say(f"{recipe.name} is there already, in {folder}; `mlkernels data verify {recipe.name}` reads all of it")
    return folder


def _lying_about(recipe: Recipe, say: Callable[[str], None]) -> Path | None:
    """A whole copy that lies in a folder that is read anyway, or the files that would be downloaded."""
    for folder in folders.folders():
        here = [download for download in recipe.downloads if (folder / download.name).is_file()]
        if here and len(here) < len(recipe.downloads) and folder == folders.writing_folder():
            continue  # a download that was cut off, which goes on
        if here and len(here) == len(recipe.downloads):
            for download in here:
                _check_download(folder / download.name, download)
            say(f"found {here[0].name} in {folder}")
            return folder / here[0].name
        for place in (folder, folder / recipe.name):
            if place.is_dir() and recipe.recognise(place) is not None:
                say(f"found a copy in {place}")
                return place
    return None


def _downloaded(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> Path:
    """Fetch the recipe's files; those that are there are not fetched again. Returns the first of them."""
    for download in recipe.downloads:
        path = folder / download.name
        if path.is_file():
            _check_download(path, download)
            continue
        if download.sha256 is None:
            say(f"{download.name}: no checksum of it is known; its contents are checked after the download")
        fetch(download.url, path, download.sha256)
    return folder / recipe.downloads[0].name


def _check_download(path: Path, download: Download) -> None:
    """A file of a download that is there already is whole, or it is kept aside and said."""
    if fault := fault_of(path, download.sha256):
        raise folders.reject(path, f"the file of {download.url}", fault)


def _check_known(recipe: Recipe, source: Path) -> None:
    """It is a form of the dataset or an archive, or an `InputError` says what it is."""
    if not source.exists():
        raise bad_input(str(source), "a file or folder", "nothing of that name", "correct the path after --from")
    if recipe.recognise(source) is not None or is_archive(source):
        return
    if source.is_dir():
        archives = [file.name for file in sorted(source.iterdir()) if is_archive(file)]
        do = f"give one of its archives: --from {source / archives[0]}" if archives else "give the folder of such files"
        raise bad_input(str(source), recipe.forms_in_words(), "a folder with none of these", do)
    fault = fault_of(source) or "a file of another kind"
    raise not_imported(source, recipe.forms_in_words(), fault, "give such a copy")


def _understood(recipe: Recipe, source: Path, target: Path, stack: ExitStack, say) -> tuple[Path, str]:
    """Where the copy lies and its form; an archive that is not known as it is gets unpacked until the stack ends."""
    form = recipe.recognise(source)
    if form is not None:
        return source, form
    scratch = stack.enter_context(scratch_folder(target.with_name(f"{target.name}-unpacked")))
    say(f"unpacking {source}")
    count = unpack(source, scratch, recipe.wants)
    place = scratch
    while (form := recipe.recognise(place)) is None:  # archives often hold one folder that holds the rest
        inner = [entry for entry in place.iterdir() if entry.is_dir()]
        if len(inner) != 1:
            got = f"an archive with none of these among {count} files"
            raise not_imported(source, recipe.forms_in_words(), got)
        place = inner[0]
    return place, form
