"""Canaries: words that say whose they are. Whoever is shown one of another user's has been shown too much."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

# Runs of small letters and digits: words to every search, and nothing that JSON or protobuf writes otherwise.
_CANARY = re.compile(rb"cnry([a-wyz0-9]+)x[0-9a-f]{0,16}")
# A request's own name is in logs and audits on purpose, and in no other user's answers.
_REQUEST_NAME = re.compile(rb"rqst([a-wyz0-9]+)x[0-9a-f]{0,16}")
# Three parts of base64url, as a JWT has them: the header of ours begins with `{"`.
_JWT = re.compile(rb"eyJ[\w-]{20,}\.[\w-]+\.[\w-]+", re.ASCII)
_ID = re.compile(rb"\b(apr|call|conv|item|msg|note|result|run|steer)_[0-9A-Z]{26}\b")

# How the users begin whose things are services' own, and how they do in a word of theirs.
_SERVICE, _SPELLED_SERVICE = "service:", "service0"

# The beginning of every user's words: what a search for it finds must be the searcher's alone.
EVERYBODYS = "cnry"


def canary(owner: str, random: Random) -> str:
    """Return a word of this user's that nobody has said before: 64 random bits are in it."""
    return f"cnry{_spelled(owner)}x{random.getrandbits(64):016x}"


def signature(owner: str) -> str:
    """Return how all words of a user begin: whose something is, and no more."""
    return f"cnry{_spelled(owner)}x"


def request_name(owner: str, random: Random) -> str:
    """Return what a user calls one of his requests."""
    return f"rqst{_spelled(owner)}x{random.getrandbits(64):016x}"


def owners_in(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the owner of every canary, and the canary."""
    return ((_read(found[1]), found[0].decode()) for found in _CANARY.finditer(raw))


def requesters_in(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the owner of every request's name, and the name."""
    return ((_read(found[1]), found[0].decode()) for found in _REQUEST_NAME.finditer(raw))


def ids_in(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the kind and the whole of every id of a stored thing."""
    return ((found[1].decode(), found[0].decode()) for found in _ID.finditer(raw))


def has_token(raw: bytes) -> bool:
    """Tell whether there is a JWT: nobody is shown one but he who has asked for it."""
    return _JWT.search(raw) is not None


def words_in(raw: bytes) -> list[str]:
    """Return every canary once, in order."""
    return list(dict.fromkeys(word for _, word in owners_in(raw)))


def _spelled(owner: str) -> str:
    """Write a user as a part of one word: `service:bot1` has a sign between two."""
    return owner.replace(_SERVICE, _SPELLED_SERVICE)


def _read(spelled: bytes) -> str:
    return re.sub(f"^{_SPELLED_SERVICE}", _SERVICE, spelled.decode())


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that has reached somebody whose it is not: `where` it was seen and `what` it was."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"
