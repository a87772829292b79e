"""The command line as a user calls it, without a process."""

from __future__ import annotations

import pytest

from mlkernels.commands import main


def status_of(*arguments, command=main.cli) -> int:
    """The exit status of `mlkernels ARGUMENTS`, or of another command; what it shows is for pytest's capsys."""
    with pytest.raises(SystemExit) as leaving:
        main.main([str(argument) for argument in arguments], command)
    return leaving.value.code
