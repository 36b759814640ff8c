"""A clock on the wall that a test sets while the server runs: the shim clock_shift.c in it tells the time."""

import shutil
import struct
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock_shift.c")


def why_not() -> str:
    """Say why no clock can be set here; empty when one can."""
    if sys.platform != "linux":
        return "the shim is for Linux"
    return "" if shutil.which("gcc") else "there is no gcc to compile the shim"


class ClockShift:
    """The clock of the processes that have `environment`; right until it is set."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        self._library = folder / "clock_shift.so"
        self.set(timedelta())
        # Optimized, such a shim has crashed its process.
        command = ["gcc", "-O0", "-Wall", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._file)}

    def set(self, shift: timedelta) -> None:
        """Set the clock to the real time plus `shift`, at once."""
        seconds = struct.pack("=q", int(shift.total_seconds()))
        # In place: the server has the file in its memory.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(seconds)
