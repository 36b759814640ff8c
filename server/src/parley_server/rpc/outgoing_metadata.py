"""Metadata on its way out. For an illegal one the core answers in words of its own, and what was to be told is lost."""

import re
from collections.abc import Iterable

Metadata = tuple[tuple[str, str | bytes], ...]

_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_BINARY_SUFFIX = "-bin"


def outgoing(pairs: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Return the pairs. Raises ValueError for one that HTTP/2 would not carry."""
    checked = tuple(pairs)
    for key, value in checked:
        if not _KEY.fullmatch(key):
            raise ValueError("a metadata key is lower-case ASCII")
        if key.endswith(_BINARY_SUFFIX) != isinstance(value, bytes):
            raise ValueError(f"{key}: bytes are for keys that end in -bin, and text for the others")
        if isinstance(value, str) and not _TEXT.fullmatch(value):
            raise ValueError(f"{key}: a metadata value is printable ASCII")
    return checked
