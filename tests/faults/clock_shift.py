"""A clock on the wall that a test sets while the server runs: the shim clock_shift.c in it tells the time."""

import struct
from datetime import timedelta
from pathlib import Path

from shim import compiled

_SOURCE = Path(__file__).with_name("clock_shift.c")


class ClockShift:
    """The clock of the processes that have `environment`; right until it is set."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        self.set(timedelta())

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment."""
        return {"LD_PRELOAD": str(compiled(_SOURCE)), "CLOCK_SHIFT_FILE": str(self._file)}

    def set(self, shift: timedelta) -> None:
        """Set the clock to the real time plus `shift`, at once."""
        seconds = struct.pack("=q", int(shift.total_seconds()))
        # In place: the server has the file in its memory.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(seconds)
