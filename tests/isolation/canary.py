"""Canaries: words that say whose they are. Whoever is shown one of another user's has been shown too much."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

# Runs of small letters and digits: words to every search, and nothing that JSON or protobuf writes otherwise.
_CANARY = re.compile(rb"cnry([a-wyz0-9]+)x[0-9a-f]{0,16}")
# A request's own name is in logs and audits on purpose, and in no other user's answers.
_REQUEST_NAME = re.compile(rb"rqst([a-wyz0-9]+)x[0-9a-f]{0,16}")
_ID = re.compile(rb"\b(apr|call|conv|item|msg|note|result|run|steer)_[0-9A-Z]{26}\b")

# The beginning of every user's words: what a search for it finds must be the searcher's alone.
EVERYBODYS = "cnry"


def canary(owner: str, random: Random) -> str:
    """Return a word of this user's that nobody has said before: 64 random bits are in it."""
    return f"cnry{owner}x{random.getrandbits(64):016x}"


def request_name(owner: str, random: Random) -> str:
    """Return what a user calls one of his requests."""
    return f"rqst{owner}x{random.getrandbits(64):016x}"


def owners_in(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the owner of every canary, and the canary."""
    return ((found[1].decode(), found[0].decode()) for found in _CANARY.finditer(raw))


def requesters_in(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the owner of every request's name, and the name."""
    return ((found[1].decode(), found[0].decode()) for found in _REQUEST_NAME.finditer(raw))


def ids_in(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the kind and the whole of every id of a stored thing."""
    return ((found[1].decode(), found[0].decode()) for found in _ID.finditer(raw))


def words_in(raw: bytes) -> list[str]:
    """Return every canary once, in order."""
    return list(dict.fromkeys(word for _, word in owners_in(raw)))


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that has reached somebody whose it is not: `where` it was seen and `what` it was."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"
