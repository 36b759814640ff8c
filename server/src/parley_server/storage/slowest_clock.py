"""The clock by which what is kept grows old."""

import time
from datetime import UTC, datetime, timedelta


class SlowestClock:
    """Tells the time by the clock on the wall as it was when it was furthest behind since this object was made.

    Rows carry the wall's times, and an operator or a time server may set that clock by hours. What a sweep destroys
    cannot be made again, so its age is counted in time that has really passed: a clock that is set forward makes
    nothing older, and neither does one that was behind for a while and is right again. The price is that some things
    are kept longer, by as much as the clock was set or the machine slept, until the next start.
    """

    def __init__(self) -> None:
        self._origin = datetime.max.replace(tzinfo=UTC)
        self.now()

    def now(self) -> datetime:
        """Return the time, in UTC; never after that of the wall. Ask often, for what it does not see it cannot heed."""
        elapsed = timedelta(seconds=time.monotonic())
        self._origin = min(self._origin, datetime.now(UTC) - elapsed)
        return self._origin + elapsed
