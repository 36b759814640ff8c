"""A fault of the disk at any call of the store: what was acknowledged is there, and nothing else."""

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.disk_faults import FOREVER, DiskFaults, Kind
from faults.storage_work import COMMITS, START_ERROR
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.writer_faults import SYNC_FAILED_EXIT_CODE
from shim import why_not
from sqlalchemy import text

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

# A commit is several writes and a sync; every 128 commits there is a checkpoint, which has two syncs of its own.
MAX_WRITE, MAX_SYNC, MAX_READ = 800, COMMITS + 4, 400
CHECKPOINT = range(126, 136)


@dataclass(frozen=True)
class Told:
    """What a worker said: the numbers that were acknowledged and refused, and by which reasons."""

    exit_code: int
    acknowledged: frozenset[int]
    refused: frozenset[int]
    reasons: frozenset[str]
    unread: int


class Workers:
    """Lets workers work on databases below a folder, whose disk fails as `faults` says."""

    def __init__(self, folder: Path, template: Path) -> None:
        self._folder = folder
        self._template = template
        (folder / "control").mkdir()
        self.faults = DiskFaults(folder / "work", folder / "control")
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.storage_work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | self.faults.environment(),
        )
        self._turn = 0

    def work(self, kind: Kind, error: int, first: int, count: int) -> Told:
        """Let one work on a fresh database; what is stored then is held against what it said."""
        self._turn += 1
        path = self._folder / f"work-{self._turn}.db"
        shutil.copy(self._template, path)
        self.faults.fail(kind, error, first=first, count=count)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        told = _read(int(self._process.stdout.readline()), path.with_name(f"told-{path.stem}"))
        self.faults.stop()
        _check(told, path, kind)
        for file in self._folder.glob("*work-*"):
            file.unlink()
        return told

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def _read(exit_code: int, path: Path) -> Told:
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return Told(
        exit_code,
        frozenset(int(line[1]) for line in lines if line[0] == "ok"),
        frozenset(int(line[1]) for line in lines if line[0] != "ok"),
        frozenset(line[0] for line in lines if line[0] != "ok"),
        sum("unread" in line for line in lines),
    )


def _check(told: Told, path: Path, kind: Kind) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored = {number for (number,) in database.execute("SELECT number FROM work")}
    assert told.acknowledged <= stored
    # Of what a sync failed for nobody was told anything.
    assert len(stored - told.acknowledged) <= (1 if kind == Kind.SYNC else 0)


@pytest.fixture(scope="module")
async def workers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    template = folder / "template.db"
    async with SqliteDatabase(template) as database:
        await database.transaction(
            lambda connection: connection.execute(text("CREATE TABLE work (number INTEGER, content BLOB)"))
        )
    made = Workers(folder, template)
    yield made
    made.close()


def disk_is_full_from(first: int, workers: Workers) -> None:
    """Let the disk be full from a write on, for thirty of them."""
    told = workers.work(Kind.WRITE, errno.ENOSPC, first, 30)
    if told.exit_code != START_ERROR:
        assert told.exit_code == 0
        assert not told.unread
        assert len(told.acknowledged) + len(told.refused) == COMMITS
        assert told.reasons <= {"STORAGE_FULL", "STORAGE_UNAVAILABLE"}


def write_fails(first: int, count: int, workers: Workers) -> None:
    told = workers.work(Kind.WRITE, errno.EIO, first, count)
    assert told.exit_code in (0, START_ERROR)
    assert told.reasons <= {"STORAGE_UNAVAILABLE"}


def sync_fails(first: int, count: int, workers: Workers) -> None:
    """A sync that fails is the last there is, however good the disk is afterwards."""
    told = workers.work(Kind.SYNC, errno.EIO, first, count)
    assert told.exit_code == SYNC_FAILED_EXIT_CODE
    assert not told.refused
    assert workers.faults.failed == 1


def read_fails(first: int, count: int, workers: Workers) -> None:
    told = workers.work(Kind.READ, errno.EIO, first, count)
    assert told.exit_code in (0, START_ERROR)
    assert told.reasons <= {"STORAGE_UNAVAILABLE"}


def some(calls: Iterable[int], size: int) -> list[int]:
    return sorted(random.Random(20).sample(list(calls), size))


@pytest.mark.parametrize("first", some(range(1, MAX_WRITE), 6))
def test_a_disk_that_is_full_for_a_while(first: int, workers: Workers) -> None:
    disk_is_full_from(first, workers)


@pytest.mark.parametrize("first", some(range(1, MAX_WRITE), 3))
@pytest.mark.parametrize("count", [1, FOREVER])
def test_a_write_that_fails(first: int, count: int, workers: Workers) -> None:
    write_fails(first, count, workers)


@pytest.mark.parametrize("first", [1, *some(range(2, MAX_SYNC), 3), *some(CHECKPOINT, 3)])
@pytest.mark.parametrize("count", [1, FOREVER])
def test_a_sync_that_fails_is_the_last(first: int, count: int, workers: Workers) -> None:
    sync_fails(first, count, workers)


@pytest.mark.parametrize("first", some(range(1, MAX_READ), 3))
@pytest.mark.parametrize("count", [1, FOREVER])
def test_a_read_that_fails(first: int, count: int, workers: Workers) -> None:
    read_fails(first, count, workers)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_call_fails_once(workers: Workers) -> None:
    for first in range(1, MAX_WRITE):
        disk_is_full_from(first, workers)
        write_fails(first, 1, workers)
    for first in range(1, MAX_SYNC):
        sync_fails(first, 1, workers)
    for first in range(1, MAX_READ):
        read_fails(first, 1, workers)
