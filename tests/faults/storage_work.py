"""Work of the store alone, each time in a process of its own, on a disk whose faults disk_faults.c makes.

A program: reads the path of a database a line, works on it in a fork, and answers with that one's exit code. What was
acknowledged, refused, and seen meanwhile is in `told-` and the database's name.
"""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import structlog
from parley_server.domain.errors import StartError, StorageUnavailableError
from parley_server.storage.sql.sqlite import SqliteDatabase
from sqlalchemy import Connection, text

COMMITS = 150
START_ERROR, WRONG = 78, 99

_INSERT = text("INSERT INTO work VALUES (:number, zeroblob(:size))")
_COUNT = text("SELECT count(*) AS count FROM work")


def _insert(connection: Connection, number: int) -> None:
    connection.execute(_INSERT, {"number": number, "size": number * 97 % 9000})


async def _write(database: SqliteDatabase, told: Path) -> None:
    stored = 0
    for number in range(COMMITS):
        try:
            await database.transaction(partial(_insert, number=number))
        except StorageUnavailableError as error:
            line = f"{error.reason} {number}"
        else:
            stored += 1
            line = f"ok {number}"
        try:
            (row,) = await database.fetch(_COUNT)
        except StorageUnavailableError:
            line += " unread"
        else:
            assert row["count"] == stored, (row["count"], stored)
        with told.open("a") as file:
            file.write(line + "\n")


async def _work(path: Path) -> int:
    try:
        async with SqliteDatabase(path) as database:
            await _write(database, path.with_name(f"told-{path.stem}"))
    except StartError:
        return START_ERROR
    return 0


def _main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for line in sys.stdin:
        if child := os.fork():
            sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
            sys.stdout.flush()
            continue
        code = WRONG
        try:
            code = asyncio.run(_work(Path(line.strip())))
        finally:
            os._exit(code)


if __name__ == "__main__":
    _main()
