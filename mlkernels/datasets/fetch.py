"""Downloads that appear whole and checked, or not at all, and that go on where they were cut off."""

from __future__ import annotations

import os
from pathlib import Path

from mlkernels.datasets.folders import VARIABLE, reject
from mlkernels.errors import bad_input
from mlkernels.support.file_faults import fault_of, kind_of
from mlkernels.support.files import alone, not_written


def fetch(url: str, path: Path, sha256: str | None) -> None:
    """Download to `path` with a progress bar; it appears there whole and checked, or not at all.

    What came before the network failed is kept as `NAME.part`, and the next call asks the server for the rest. What is
    not the file is kept aside as `NAME.broken-N`. `sha256` is None where nobody has published it.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with alone(part.parent, part.name):
            resumed = part.exists() and part.stat().st_size > 0
            _download(url, part)
            wrong = fault_of(part, sha256, kind_of(path.name))
            if wrong and resumed:  # the file on the server may have changed between the two halves
                part.unlink()
                _download(url, part)
                wrong = fault_of(part, sha256, kind_of(path.name))
            os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)  # a full disk is left as it was
        raise not_written(path, error) from error
    if wrong:  # under its own name for a moment, so that what is kept aside has it too
        raise reject(path, f"the file of {url}", wrong)


def _download(url: str, part: Path) -> None:
    """Fetch what is missing of `part`; an `InputError` says why the network did not give it."""
    import pooch
    import requests

    with open(part, "ab") as file:
        have = file.tell()

        def answered(response, *_, **__) -> None:
            """A server that does not know ranges sends all of it again."""
            partial = response.status_code == 206
            if partial and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise requests.RequestException("another range than was asked for", response=response)
            if response.status_code == 200:
                file.truncate(0)

        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        fetcher = pooch.HTTPDownloader(
            progressbar=True, chunk_size=1 << 16, headers=headers, hooks={"response": answered}
        )
        try:
            fetcher(url, file, None)
            return
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            if status == 416 and have:  # nothing lies beyond what is here: `fault_of` will say whether it is the file
                return
            said = f"HTTP {status}" if status is not None else type(error).__name__
            do = f"without a network, put that file into {part.parent} or into a folder that {VARIABLE} names"
            kept = file.tell()
            if kept:
                do = f"call again, and the download goes on after the {kept} bytes that are here; {do}"
            failure = bad_input(url, "a download", f"none ({said})", do)
    if not part.stat().st_size:
        part.unlink()
    raise failure
