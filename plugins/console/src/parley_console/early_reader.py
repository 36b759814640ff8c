"""Readers that go away early, as `head` does."""

import os
import sys
from collections.abc import Callable

from parley_console.exit_codes import ExitCode


def unless_reader_left(work: Callable[[], ExitCode]) -> ExitCode:
    """Do the work; that nobody reads standard output any more ends it and is no failure."""
    try:
        return work()
    except BrokenPipeError:
        # Python flushes standard output once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
