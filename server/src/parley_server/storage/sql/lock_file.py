"""The lock that keeps a second server off a data directory and tells others where the first one listens."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path


class DataDirectoryInUseError(Exception):
    """Another live server holds the data directory; `address` is where it listens, empty if it does not yet."""

    def __init__(self, path: Path, address: str) -> None:
        where = f" and listens on {address}" if address else ""
        super().__init__(f"another parley-server holds {path.parent}{where}; stop it or choose another --data-dir")
        self.address = address


class LockFile:
    """`server.lock`: held by flock for the life of the process, so its holder's end is certain knowledge."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises DataDirectoryInUseError when a live process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataDirectoryInUseError(self._path, read_address(self._path)) from None
        self._descriptor = descriptor
        self._write({"pid": os.getpid()})

    def publish(self, address: str) -> None:
        """Say where this server listens, for `make run` and the like."""
        self._write({"pid": os.getpid(), "address": address})

    def release(self) -> None:
        """Give the lock up; the file stays."""
        if self._descriptor is not None:
            self._write({})
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, content: dict[str, object]) -> None:
        if self._descriptor is None:
            raise RuntimeError("the lock is not held")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(content).encode(), 0)


def read_address(path: Path) -> str:
    """Return the address the lock's holder has published, empty if none."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return str(content.get("address", ""))
    return ""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[LockFile]:
    """Hold the lock for a block."""
    lock = LockFile(path)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()
