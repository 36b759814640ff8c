"""What the exit code says; scripts rely on it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `parley`."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 64
    UNAVAILABLE = 69
    INTERNAL = 70
    LIMIT = 75
    NOT_ALLOWED = 77
    DEADLINE = 124
    CANCELLED = 130
