"""Where this process runs, as far as it matters to an answer: the user's time zone and language."""

import os
import re
import zoneinfo
from collections.abc import Mapping
from pathlib import Path

_LOCALTIME = Path("/etc/localtime")
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_NOT_A_PLACE = {"localtime", "posixrules", "Factory"}
# What a machine is set to where nobody has set it.
_UNSET = {"UTC", "Etc/UTC", "UCT", "Etc/UCT", "Universal", "Etc/Universal", "Zulu", "Etc/Zulu"}


def local_time_zone(environment: Mapping[str, str] = os.environ, localtime: Path = _LOCALTIME) -> str:
    """Return the machine's IANA zone (`Europe/Berlin`): from TZ, else from the link /etc/localtime.

    Empty when neither names one, and when the link names UTC; the server then takes the account's zone, which beats a
    guess, or UTC.
    """
    if "TZ" in environment:
        return _zone_in(environment["TZ"].removeprefix(":"))
    zone = _zone_in(os.path.realpath(localtime))
    return "" if zone in _UNSET else zone


def local_locale(environment: Mapping[str, str] = os.environ) -> str:
    """Return the user's language as a BCP 47 tag (`de-CH`), from LC_ALL, LC_MESSAGES or LANG; empty when unknown."""
    value = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    tag = re.split(r"[.@]", value)[0].replace("_", "-")
    known = _LANGUAGE_TAG.fullmatch(tag) and tag not in {"C", "POSIX"}
    return tag if known else ""


def _zone_in(path: str) -> str:
    """Return the zone that a name, or a file below a zoneinfo folder, stands for; empty when it is none."""
    name = path.rpartition("/zoneinfo/")[2].removeprefix("posix/").removeprefix("right/")
    if name in _NOT_A_PLACE:
        return ""
    try:
        return zoneinfo.ZoneInfo(name).key
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return ""
