"""The wall's clock, as the store reads it."""

from collections.abc import Callable
from datetime import UTC, datetime

from parley_server.storage.sql.database import to_micros

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def now_micros() -> int:
    """Return the time as the tables have it."""
    return to_micros(utc_now())
