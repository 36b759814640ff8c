"""Faults of the disk under a database: the shim disk_faults.c, loaded into a process, and what it is told."""

import errno
import mmap
import struct
from enum import IntFlag
from pathlib import Path

from shim import compiled

_CONTROL = struct.Struct("=IIQQQQ")
_SOURCE = Path(__file__).with_name("disk_faults.c")
FOREVER = 2**64 - 1


class Kind(IntFlag):
    """What fails: calls that write, truncate or allocate; those that sync; those that read; new threads of anything."""

    WRITE = 1
    SYNC = 2
    READ = 4
    THREAD = 8


class DiskFaults:
    """Faults for the files whose paths begin as `database`, in processes with `environment()`; none until `fail`.

    `folder` is there, and holds none of them.
    """

    def __init__(self, database: Path, folder: Path) -> None:
        self._database = database
        self._path = folder / "disk_faults.control"
        self._path.write_bytes(bytes(_CONTROL.size))
        with self._path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _CONTROL.size)

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment."""
        control = {"DISK_FAULTS_FILE": str(self._database), "DISK_FAULTS_CONTROL": str(self._path)}
        return {"LD_PRELOAD": str(compiled(_SOURCE))} | control

    def fail(self, kind: Kind, error: int = errno.EIO, *, first: int = 1, count: int = FOREVER) -> None:
        """Let calls fail: of those from now on the `first`, counted from 1, and `count - 1` after it."""
        _CONTROL.pack_into(self._control, 0, 0, 0, 0, 0, 0, 0)
        _CONTROL.pack_into(self._control, 0, kind, error, first, count, 0, 0)

    def stop(self) -> None:
        """Let no more calls fail."""
        struct.pack_into("=I", self._control, 0, 0)

    @property
    def failed(self) -> int:
        """How many calls have failed since `fail`."""
        return int(_CONTROL.unpack_from(self._control)[-1])
