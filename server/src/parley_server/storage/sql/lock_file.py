"""The lock that keeps a second server off a data directory and tells others where the first one listens."""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from parley_server.domain.errors import StartError

# Whoever looks whether the lock is held holds it for an instant, and that must not refuse a server.
_PATIENCE_S = 0.5
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock; `address` is empty until it serves."""

    pid: int
    address: str


class DataDirectoryInUseError(Exception):
    """Another live server holds the data directory."""

    def __init__(self, path: Path, holder: Holder | None) -> None:
        where = f" and listens on {holder.address}" if holder and holder.address else ""
        super().__init__(f"another parley-server holds {path.parent}{where}; stop it or choose another --data-dir")


class LockFile:
    """`server.lock`: held by flock for the life of the process, so its holder's end is certain knowledge.

    Use it with `with`. Raises DataDirectoryInUseError when a live process has it, StartError when it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock."""
        self._descriptor = _opened(self._path, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + _PATIENCE_S
        while not _try_lock(self._descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                os.close(self._descriptor)
                raise DataDirectoryInUseError(self._path, read_holder(self._path))
            time.sleep(_PAUSE_S)
        self.publish("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock up; the file stays, empty."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def publish(self, address: str) -> None:
        """Say where this server listens. Raises StartError when that cannot be written."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "address": address}).encode(), 0)
        except OSError as error:
            raise StartError(f"{self._path} cannot be written ({error.strerror}); see to the disk") from error


def read_holder(path: Path) -> Holder | None:
    """Return what the lock's last holder has written, None if nothing; it may be dead."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(content["pid"]), str(content["address"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def live_holder(path: Path) -> Holder | None:
    """Return who holds the lock now, None if nobody does. Raises StartError when it cannot be read."""
    try:
        descriptor = _opened(path, os.O_RDONLY)
    except StartError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else read_holder(path)
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"{path.parent}: the data directory cannot be used ({error.strerror}); check its rights, or choose another "
            "with --data-dir"
        ) from error


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
