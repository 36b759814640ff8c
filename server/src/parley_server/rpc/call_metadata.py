"""A call's metadata: read once, by one pass that counts, since a dictionary would keep the last of two silently."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from parley_server.rpc.mapping.request_context import BINARY_KEY, JSON_KEY

AUTHORIZATION_KEY = "authorization"
REQUEST_ID_KEY = "x-request-id"
# What proxies add of whom they forward. Nobody is believed by it.
_FORWARDED = frozenset(
    {
        "forwarded",
        "via",
        "x-envoy-external-address",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    }
)
# What HTTP/2 counts for a header besides its name and value.
_ENTRY_OVERHEAD_BYTES = 32

_REQUEST_ID = re.compile(r"[ -~]{1,64}")


@dataclass(frozen=True, slots=True)
class CallMetadata:
    """What Parley reads of the metadata. Values that may come once are kept as often as they came.

    `is_forwarded` tells that a proxy says it forwards the call for somebody else.
    """

    size_bytes: int
    request_id: str
    authorizations: tuple[str | bytes, ...] = ()
    contexts: tuple[tuple[str, str | bytes], ...] = ()
    is_forwarded: bool = False


def read_metadata(pairs: Iterable[tuple[str, str | bytes]]) -> CallMetadata:
    """Read the metadata. Never fails: what is wrong with it is said by those who need the values.

    The request id is the caller's where it is one, else a new one.
    """
    size = 0
    request_ids: list[str | bytes] = []
    authorizations: list[str | bytes] = []
    contexts: list[tuple[str, str | bytes]] = []
    is_forwarded = False
    for key, value in pairs:
        size += len(key) + len(value) + _ENTRY_OVERHEAD_BYTES
        if key == REQUEST_ID_KEY:
            request_ids.append(value)
        elif key == AUTHORIZATION_KEY:
            authorizations.append(value)
        elif key in {BINARY_KEY, JSON_KEY}:
            contexts.append((key, value))
        elif key in _FORWARDED:
            is_forwarded = True
    return CallMetadata(size, _request_id(request_ids), tuple(authorizations), tuple(contexts), is_forwarded)


def _request_id(values: list[str | bytes]) -> str:
    match values:
        case [str(value)] if _REQUEST_ID.fullmatch(value):
            return value
        case _:
            # Not one of the ids that sort: it is in no table, and every call without one of its own gets it.
            return f"req_{secrets.token_hex(12)}"
