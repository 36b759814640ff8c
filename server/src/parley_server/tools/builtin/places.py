"""Finds the time zone of a place: by a zone's own name, or by the city that gives a zone its name."""

import re
import unicodedata
import zoneinfo
from difflib import get_close_matches
from functools import lru_cache

from parley_server.tools.errors import ToolError

_CITY_AREAS = frozenset(
    {"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
)
# Entries of a zone database that are no place: the machine's own zone, and a marker for "not set".
_NOT_PLACES = frozenset({"localtime", "posixrules", "Factory"})
_SEPARATORS = re.compile(r"[\s_-]+")
_NEAREST = 3


def zone_of(place: str) -> str:
    """Return the IANA name of a place's time zone.

    Case, accents, and `_`, `-` or a space do not matter; `Tokyo, Japan` is read as `Tokyo` when it is no name
    itself. Raises ToolError with near names when nothing fits.
    """
    zones = _zones_by_key()
    for name in (place, place.partition(",")[0]):
        zone = zones.get(_key(name))
        if zone is not None:
            return zone
    raise _unknown(place)


def _unknown(place: str) -> ToolError:
    # Etc/GMT+3 means three hours *behind* UTC: right when asked for by name, a trap as a suggestion.
    zones = {key: zone for key, zone in _zones_by_key().items() if not zone.startswith("Etc/")}
    keys = get_close_matches(_key(place), zones, n=_NEAREST, cutoff=0.5)
    near = ", ".join(dict.fromkeys(zones[key] for key in keys))
    hint = f"Near names: {near}." if near else "Give an IANA time zone, such as Asia/Tokyo."
    return ToolError("unknown_place", f"No time zone is known for {place!r}.", hint=hint)


@lru_cache(maxsize=1)
def _zones_by_key() -> dict[str, str]:
    """Map every zone's name, and every city of a zone's name, to the zone; a full name wins over a city."""
    names = sorted(zoneinfo.available_timezones() - _NOT_PLACES, key=lambda name: (name.count("/"), name))
    zones = {_key(name): name for name in names}
    for name in names:
        area, _, city = name.rpartition("/")
        if area.partition("/")[0] in _CITY_AREAS:
            zones.setdefault(_key(city), name)
    return zones


def _key(name: str) -> str:
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    kept = plain.casefold().replace(".", "").replace("'", "").replace("\u2019", "")
    return _SEPARATORS.sub(" ", kept).strip()
