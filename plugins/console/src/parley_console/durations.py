"""Spans of time on the command line."""

import re
from typing import Final

import click

_SECONDS_OF_UNIT: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration_s(text: str) -> float:
    """Read `90`, `90s`, `1.5m` or `2h` as seconds. Raises click.BadParameter for anything else, zero included."""
    read = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = float(read[1]) * _SECONDS_OF_UNIT[read[2]] if read else 0.0
    if not seconds:
        raise click.BadParameter(f"{text!r} is not a duration such as 90, 90s, 1.5m or 2h")
    return seconds
