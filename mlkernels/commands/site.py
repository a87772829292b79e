"""`mlkernels site`: the whole course as pages whose demos move without a kernel."""

from __future__ import annotations

import click

from mlkernels.commands.options import FOLDER, notebooks_option, say, shorter_path
from mlkernels.support import provenance
from mlkernels.support.files import alone, check_place


@click.command()
@click.option("--out", type=FOLDER, metavar="DIR", help="Where the site goes [build/site of the checkout].")
@notebooks_option
def site(out, notebooks) -> int:
    """Write the course as a site that needs neither kernel nor network.

    Takes the notebooks that lie executed in build/class and have not been edited since, and runs the others in quick,
    as `mlkernels run --preset quick --resume` does; draws each demo at the settings of its grid, minutes each the first
    time. Open DIR/index.html in any browser, as a file or from a server.
    """
    import os

    import jax

    from mlkernels.runner import pool, report
    from mlkernels.runner.jobs import plan
    from mlkernels.runner.notebooks import find_notebooks
    from mlkernels.runner.site import build, executed
    from mlkernels.runner.worker import kernel_environment, tidy_cache

    found = find_notebooks(notebooks)
    home = next(iter(found.values())).parents[1]
    out = out or home / "build" / "site"
    check_place(out / "index.html")
    command = provenance.command()
    if told := tidy_cache(home):
        say(told, err=True)
    ready = executed(found, home / "build" / "class")
    if missing := [name for name in found if name not in ready]:
        work, quick = plan(notebooks, missing, None, "quick", ())
        with alone(quick):
            outcomes = pool.run(work, workers=1, timeout=None, resume=True)
            report.write_report(quick, preset="quick", command=command)
        if failed := [
            outcome.detail or outcome.name for outcome in outcomes if outcome.status not in ("finished", "unchanged")
        ]:
            say("\n".join([*failed, "no site without them"]), err=True)
            return 1
        ready |= {job.name: job.target for job in work}
    os.environ.update(kernel_environment(home))
    jax.config.update("jax_enable_x64", True)  # as in the notebooks
    with alone(out):
        made = build(out, {name: ready[name] for name in found}, command=command, say=say)
    size = f"{made['bytes'] / 1e6:.1f} MB in {made['files']} files"
    say(f"{size}; open {shorter_path(out / 'index.html')}")
    return 0
