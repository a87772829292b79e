"""mlkernels export: editions of the course for a class."""

from __future__ import annotations

import click

from mlkernels.commands.options import FOLDER, notebooks_option, say, shorter_path


@click.command()
@click.argument("edition", metavar="student|instructor|nbgrader|otter")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="The folder to make.")
@notebooks_option
def export(edition, names, out, notebooks) -> None:
    """Write an edition of the notebooks for a class.

    NAME is the beginning of a notebook's name, such as 01; without it, all of them are written.

    \b
    student     without solutions
    instructor  with solutions, unfolded
    nbgrader    a folder for nbgrader: cd DIR, then nbgrader generate_assignment NAME
    otter       for Otter-Grader: otter assign DIR/NAME.ipynb RESULT

    For both graders a solution stands in its stub, between # BEGIN SOLUTION and # END SOLUTION, and each exercise gives
    a point. Students and graders need mlkernels, as the notebooks do.

    DIR is written whole or not at all. One that is there already must be empty, or an export of the same edition and
    notebooks with nothing changed and nothing added since: then it is renewed. Any other is refused and left as it is,
    for something of yours would be lost: nbgrader's gradebook and releases in it, too.
    """
    from mlkernels.runner.editions.folder import export as write

    written = write(edition, out, notebooks, names)
    say(f"{len(written)} notebook{'s' * (len(written) != 1)} for {edition} in {shorter_path(out)}")
