"""Power cuts, played: a SIGKILL, and then every file of a directory goes back to what was synced of it.

The shim power_cut.c, loaded into the server, writes down the way back; here it is gone. Half of the cuts lose all that
was not synced. The other half lose, file by file, only what was written after some moment, as with a disk that had
begun to write. Not played: writes of one file that reach the disk out of order, or half.
"""

import contextlib
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shim import compiled

_RECORD = struct.Struct("=QQQ")
_SOURCE = Path(__file__).with_name("power_cut.c")


@dataclass(frozen=True)
class _Write:
    """How to take back one write: the bytes that were at `offset`, and the file's size."""

    offset: int
    old_size: int
    old: bytes


class PowerCut:
    """Power cuts for what is below `root`; `folder` is its own, outside of it."""

    def __init__(self, root: Path, folder: Path, rng: random.Random) -> None:
        self._root = root
        self._journal = folder / "journal"
        self._rng = rng
        self._journal.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        """Return what the server needs in its environment."""
        journal = {"POWER_CUT_ROOT": str(self._root), "POWER_CUT_JOURNAL": str(self._journal)}
        return {"LD_PRELOAD": str(compiled(_SOURCE))} | journal

    def lose_unsynced(self) -> int:
        """Let the power fail: no process may be at work on the files. Returns how many writes and names were lost."""
        lost = sum(self._lose_writes(path) for path in self._files())
        lost += self._lose_names()
        for path in self._journal.iterdir():
            path.unlink()
        for path in self._root.glob("*-shm"):
            # Memory that processes shared is not on any disk.
            path.write_bytes(self._rng.randbytes(path.stat().st_size))
        return lost

    def _files(self) -> list[Path]:
        """All files there are, those too that have lost their names and may get them back."""
        named = self._root.iterdir() if self._root.exists() else []
        by_inode = {path.stat().st_ino: path for path in [*self._journal.glob("kept-*"), *named]}
        return [by_inode[inode] for inode in sorted(by_inode)]

    def _lose_writes(self, path: Path) -> int:
        writes = list(_read_journal(self._journal / str(path.stat().st_ino)))
        survive = 0 if self._rng.random() < 0.5 else self._rng.randint(0, len(writes))
        with path.open("r+b") as file:
            for write in reversed(writes[survive:]):
                file.seek(write.offset)
                file.write(write.old)
                file.truncate(write.old_size)
        return len(writes) - survive

    def _lose_names(self) -> int:
        journal = self._journal / "names"
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
        for line in reversed(lines):
            what, path, other, keep = line.split("\t")
            with contextlib.suppress(FileNotFoundError):
                _take_back(what, Path(path), other, keep)
        return len(lines)


def _take_back(what: str, path: Path, other: str, keep: str) -> None:
    if what == "made":
        path.unlink()
    elif what == "renamed":
        Path(other).rename(path)
    if keep:
        kept_for = Path(other) if what == "renamed" else path
        kept_for.unlink(missing_ok=True)
        os.link(keep, kept_for)


def _read_journal(path: Path) -> Iterator[_Write]:
    """Read the records of a journal; a last one that is short stands for a write that never came."""
    content = path.read_bytes() if path.exists() else b""
    start = 0
    while start + _RECORD.size <= len(content):
        offset, old_size, length = _RECORD.unpack_from(content, start)
        start += _RECORD.size
        if start + length > len(content):
            return
        yield _Write(offset, old_size, content[start : start + length])
        start += length
