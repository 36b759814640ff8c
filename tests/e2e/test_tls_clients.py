"""TLS from end to end: the real server, the Python client and the console, with certificates made on the spot."""

import asyncio
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import DAY, authority, issued_by
from e2e.test_console import ask
from e2e.test_signals import wait_for_log
from parley_client import HandshakeError, NotAuthenticatedError, ParleyClient, ReconnectLimits, TlsFiles
from parley_client import sync as blocking
from parley_server.rpc.tls_settings import CertificateFiles
from server_process import ServerProcess, running_server

CA, OTHER_CA = authority(), authority("Other CA")
SERVER, RENEWED = issued_by(CA, "server"), issued_by(CA, "renewed")
CLIENT, STRANGER = issued_by(CA, "client"), issued_by(OTHER_CA, "client")
SOON = ReconnectLimits(connect_for_s=1.0)


def environment_of(files: CertificateFiles) -> dict[str, str]:
    """Return the settings that name these files."""
    named = {
        "PARLEY_TLS__CERTIFICATE_FILE": str(files.certificate),
        "PARLEY_TLS__PRIVATE_KEY_FILE": str(files.private_key),
    }
    return named if files.client_ca is None else {**named, "PARLEY_TLS__CLIENT_CA_FILE": str(files.client_ca)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of a module's tests: those of the server, and of clients."""
    folder = tmp_path_factory.mktemp("certificates")
    SERVER.write(folder, client_ca=CA)
    for name, pair in (("client", CLIENT), ("stranger", STRANGER), ("ca", CA), ("other_ca", OTHER_CA)):
        (folder / f"{name}.pem").write_bytes(pair.certificate_pem)
        (folder / f"{name}.key").write_bytes(pair.key_pem)
    (folder / "garbage").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants certificates of its clients."""
    files = SERVER.write(folder, client_ca=CA)
    with running_server(tmp_path_factory.mktemp("server"), environment=environment_of(files)) as running:
        yield running


def client_files(folder: Path, roots: str = "ca", client: str | None = "client") -> TlsFiles:
    shown = (None, None) if client is None else (folder / f"{client}.pem", folder / f"{client}.key")
    return TlsFiles(folder / f"{roots}.pem", *shown)


def variables(files: TlsFiles) -> dict[str, str]:
    named = {
        "PARLEY_ROOT_CERTIFICATES": files.root_certificates,
        "PARLEY_CLIENT_CERTIFICATE": files.client_certificate,
        "PARLEY_CLIENT_KEY": files.client_key,
    }
    return {name: str(path) for name, path in named.items() if path is not None}


async def test_the_client_asks_over_tls(server: ServerProcess, folder: Path) -> None:
    async with ParleyClient(server.address, tls=client_files(folder)) as client:
        async with client.run("What is 17 * 23?") as run:
            await run.wait()
        assert "391" in run.text


def test_the_blocking_client_takes_its_files_from_the_environment(
    server: ServerProcess, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in variables(client_files(folder)).items():
        monkeypatch.setenv(name, path)
    with blocking.ParleyClient(server.address) as client, client.run("What is 17 * 23?") as run:
        run.wait()
        assert "391" in run.text


async def test_a_unix_socket_speaks_tls_as_well(tmp_path: Path, folder: Path) -> None:
    environment = environment_of(SERVER.write(tmp_path / "certificates", client_ca=CA))
    server = ServerProcess(tmp_path / "data", environment=environment)
    server.address = f"unix:{tmp_path / 'socket'}"
    server.start()
    try:
        async with ParleyClient(server.address, tls=client_files(folder)) as client:
            assert await client.agents()
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("roots", "client", "words"),
    [
        ("other_ca", "client", "the server's certificate is not trusted"),
        ("ca", None, "a client certificate that it trusts"),
        ("ca", "stranger", "a client certificate that it trusts"),
    ],
)
async def test_the_client_says_what_keeps_the_two_apart(
    server: ServerProcess, folder: Path, roots: str, client: str | None, words: str
) -> None:
    async with ParleyClient(server.address, tls=client_files(folder, roots, client), reconnect=SOON) as refused:
        with pytest.raises(HandshakeError, match=words):
            async with refused.run("hello"):
                pass


@pytest.mark.parametrize("given", ["flags", "environment", "both"])
def test_the_console_asks_over_tls(server: ServerProcess, folder: Path, tmp_path: Path, given: str) -> None:
    files = client_files(folder)
    flags = ["--root-certificates", str(files.root_certificates)]
    shown = ["--client-certificate", str(files.client_certificate), "--client-key", str(files.client_key)]
    extra: Mapping[str, str] = {} if given == "flags" else variables(files)
    arguments = {"flags": flags + shown, "environment": [], "both": flags}[given]
    answered = ask(server.address, tmp_path, *arguments, "ask", "What is 17 * 23?", **extra)
    assert (answered.returncode, answered.stdout) == (0, "17 * 23 = 391\n"), answered.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        ([], 69, "it may want TLS, or a client certificate"),
        (["--tls"], 69, "the server's certificate is not trusted: "),
        (["--root-certificates", "ca.pem"], 69, "it may want TLS, or a client certificate"),
        (["--root-certificates", "garbage"], 64, "holds no root certificate"),
        (["--tls", "--client-key", "client.key"], 64, "go together"),
        (["--client-certificate", "client.pem", "--client-key", "stranger.key"], 64, "no client certificate and its"),
        (["--root-certificates", "absent"], 64, "does not exist"),
    ],
)
def test_the_console_says_what_is_wrong_in_a_sentence(
    server: ServerProcess, folder: Path, tmp_path: Path, arguments: list[str], exit_code: int, words: str
) -> None:
    given = [argument if argument.startswith("--") else str(folder / argument) for argument in arguments]
    failed = ask(server.address, tmp_path, "ask", "hello", *given)
    assert (failed.returncode, failed.stdout) == (exit_code, "")
    (told,) = [line for line in failed.stderr.splitlines() if words in line]
    assert exit_code == 64 or told.startswith(f"parley: no connection to {server.address}: ")


def test_the_console_says_that_the_certificate_is_for_another_host(tmp_path: Path, folder: Path) -> None:
    files = issued_by(CA, hosts=["elsewhere.example"]).write(tmp_path / "certificates")
    with running_server(tmp_path / "data", environment=environment_of(files)) as other:
        failed = ask(other.address, tmp_path, "ask", "hello", "--root-certificates", str(folder / "ca.pem"))
    assert (failed.returncode, "for another host" in failed.stderr) == (69, True)


def test_the_console_says_that_the_server_does_not_speak_tls(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as plain:
        failed = ask(plain.address, tmp_path, "ask", "hello", PARLEY_TLS="true")
        assert (failed.returncode, "the server does not speak TLS" in failed.stderr) == (69, True)
        off = ask(plain.address, tmp_path, "ask", "What is 17 * 23?", PARLEY_TLS="false", PARLEY_CLIENT_KEY="absent")
        assert off.returncode == 0


async def test_a_hangup_takes_up_a_new_certificate_and_keeps_the_old_one_from_garbage(tmp_path: Path) -> None:
    files = SERVER.write(tmp_path / "certificates")
    roots = tmp_path / "ca.pem"
    roots.write_bytes(CA.certificate_pem)
    with running_server(tmp_path / "data", environment=environment_of(files)) as server:
        async with ParleyClient(server.address, tls=TlsFiles(roots)) as client, client.run("Tell me a story") as run:
            await anext(run)
            RENEWED.write(tmp_path / "certificates")
            await hang_up(server, 1)
            assert await shown_by(server) == RENEWED.certificate_pem.decode()
            files.certificate.write_bytes(b"garbage")
            await hang_up(server, 2)
            assert await shown_by(server) == RENEWED.certificate_pem.decode()
            await run.wait()
            assert run.error is None
        assert server.log.count('"certificate_kept"') == 1
        assert server.stop() == 0


async def hang_up(server: ServerProcess, count: int) -> None:
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(wait_for_log, server, '"reloaded"', count)


async def shown_by(server: ServerProcess) -> str:
    host, _, port = server.address.rpartition(":")
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))


async def test_off_loopback_tls_lets_in_who_has_a_key_and_nobody_else(tmp_path: Path, folder: Path) -> None:
    environment = environment_of(SERVER.write(tmp_path / "certificates"))
    key = server_program("keys", "create", "--user", "ann", data_dir=tmp_path / "data").stdout.strip()
    server = ServerProcess(tmp_path / "data", environment=environment)
    server.address = "0.0.0.0:0"
    server.start()
    try:
        target = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        async with ParleyClient(target, key, tls=client_files(folder, client=None)) as client:
            assert await client.agents()
        async with ParleyClient(target, "", tls=client_files(folder, client=None)) as nobody:
            with pytest.raises(NotAuthenticatedError):
                await nobody.agents()
    finally:
        assert server.stop() == 0


def server_program(
    *arguments: str, data_dir: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "parley_server", *arguments, "--data-dir", str(data_dir)],
        env={"PATH": "", **(environment or {})},
        cwd=data_dir.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [["serve", "--listen", "127.0.0.1:0"], ["config", "check"]])
def test_a_certificate_that_has_ended_refuses_the_start(tmp_path: Path, command: list[str]) -> None:
    ended = issued_by(CA, ends=datetime.now(UTC) - DAY)
    environment = environment_of(ended.write(tmp_path / "certificates"))
    refused = server_program(*command, data_dir=tmp_path / "data", environment=environment)
    assert (refused.returncode, refused.stdout) == (78, "")
    assert refused.stderr.startswith("parley-server: [tls] certificate_file: ")
    assert refused.stderr.endswith("; renew it\n")
    assert refused.stderr.count("\n") == 1


def test_a_check_tells_of_the_address_and_of_the_certificate(tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path / "absent.pem", tmp_path / "absent.key")
    environment = {**environment_of(files), "PARLEY_SERVER__LISTEN": "nowhere"}
    failed = server_program("config", "check", data_dir=tmp_path / "data", environment=environment)
    assert failed.returncode == 78
    listener, certificate = failed.stderr.splitlines()
    assert "[server] listen: 'nowhere' is no address" in listener
    assert "[tls] certificate_file" in certificate


def test_a_check_takes_what_the_server_would(tmp_path: Path) -> None:
    environment = {**environment_of(SERVER.write(tmp_path / "tls")), "PARLEY_SERVER__LISTEN": "0.0.0.0:50051"}
    checked = server_program("config", "check", data_dir=tmp_path / "data", environment=environment)
    assert (checked.returncode, checked.stderr) == (0, "")
