"""The account from the Python client, its blocking face and the console's commands."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pexpect
import pytest
from e2e.test_console import PARLEY, environment
from e2e.test_isolation import keys
from nursery import ran
from parley_client import AbortedError, NotAuthenticatedError, ParleyClient, QuietHours, sync
from server_process import ServerProcess


@pytest.fixture
def key(server: ServerProcess) -> str:
    """A key of a user who is erased at some test's end."""
    return keys(server, "create", "--user", "ann")


def console(server: ServerProcess, home: Path, *arguments: str, key: str = "") -> tuple[int, str, str]:
    """Run `parley account`; returns its exit code, what it said and what it complained of."""
    where = environment(server.address, home) | ({"PARLEY_API_KEY": key} if key else {})
    done = ran([sys.executable, *PARLEY[1:], "account", *arguments], where)
    return done.returncode, done.stdout, done.stderr


def fields(output: str) -> Mapping[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in output.splitlines()}


async def test_an_account_is_set_field_by_field_exported_and_erased(server: ServerProcess, key: str) -> None:
    async with ParleyClient(server.address, key) as client:
        made = await client.account.update(display_name="Ann\u2028B", time_zone="Asia/Tokyo")
        changed = await client.account.update(quiet_hours=QuietHours(start_minute=60, end_minute=120), etag=made.etag)
        assert (changed.display_name, changed.quiet_hours.end_minute) == ("Ann\u2028B", 120)
        with pytest.raises(AbortedError):
            await client.account.update(locale="de", etag=made.etag)
        assert not (await client.account.update(no_quiet_hours=True, display_name="")).HasField("quiet_hours")
        await client.account.update(display_name="Ann\u2028B")
        async with client.run("What is 6 * 7?") as run:
            assert [event async for event in run]
        lines = [json.loads(line) async for line in client.account.export()]
        assert lines[0]["account"]["displayName"] == "Ann\u2028B"
        assert {next(iter(line)) for line in lines} >= {"conversation", "message", "run", "toolCall", "apiKeys"}
        assert await client.account.erase("ann", confirmation="ann")
        with pytest.raises(NotAuthenticatedError):
            await client.account.get()


def test_the_blocking_client_has_it_too(server: ServerProcess, key: str) -> None:
    with sync.ParleyClient(server.address, key) as client:
        assert client.account.update(locale="de-CH").locale == "de-CH"
        assert next(iter(json.loads(next(iter(client.account.export()))))) == "account"
        assert client.account.erase("ann", confirmation="ann")


def test_the_console_shows_sets_and_exports(server: ServerProcess, tmp_path: Path) -> None:
    code, told, _ = console(
        server, tmp_path, "set", "--name", "Zoë", "--zone", "Europe/Berlin", "--quiet", "22:00-7:05"
    )
    assert (code, fields(told)["zone"], fields(told)["quiet"]) == (0, "Europe/Berlin", "22:00-07:05")
    code, told, _ = console(server, tmp_path, "set", "--zone", "", "--quiet", "")
    assert (code, fields(told)["name"], fields(told)["quiet"]) == (0, "Zoë", "-")
    assert console(server, tmp_path)[1] == told
    exported = console(server, tmp_path, "export")[1]
    assert json.loads(exported.splitlines()[0])["account"]["displayName"] == "Zoë"
    for bad in (["set"], ["set", "--quiet", "25:00-1:00"], ["set", "--zone", "Mars/Base"]):
        code, _, complaint = console(server, tmp_path, *bad)
        assert code == 64
        assert complaint


def test_the_console_erases_only_who_is_written_out(server: ServerProcess, key: str, tmp_path: Path) -> None:
    code, _, complaint = console(server, tmp_path, "erase", "--confirm", "bob", key=key)
    assert code == 64
    assert "nothing is erased" in complaint
    where = environment(server.address, tmp_path) | {"PARLEY_API_KEY": key}
    at_terminal = pexpect.spawn(PARLEY[0], [*PARLEY[1:], "account", "erase"], env=where, encoding="utf-8", timeout=30)
    at_terminal.expect_exact("type ann")
    at_terminal.sendline("ann")
    at_terminal.expect_exact("nothing is left of ann")
    at_terminal.expect(pexpect.EOF)
    at_terminal.close()
    assert at_terminal.exitstatus == 0
    assert console(server, tmp_path, key=key)[0] == 77
