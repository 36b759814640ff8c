"""Ids: `<kind>_<26 characters>`, sortable by creation (the ULID layout: 48 bits of milliseconds, 80 random)."""

import os
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def _next() -> int:
    """Return a number greater than every one before it in this process."""
    global _last  # noqa: PLW0603
    with _lock:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | int.from_bytes(os.urandom(10), "big")
        _last = fresh if fresh > _last else _last + 1
        return _last


def new_id(kind: str) -> str:
    """Make an id such as `run_01KAQ3...`; within one process later ids sort after earlier ones."""
    number = _next()
    return f"{kind}_{''.join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))}"
