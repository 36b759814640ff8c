"""TLS on the listener: who gets through the handshake, and by which protocol."""

import asyncio
import socket
import ssl
import warnings
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import authority, issued_by
from cryptography.hazmat.primitives.asymmetric import rsa
from parley_server.auth.local import operating_system_user
from rpc.tls_server import TlsServer, get_run, serving_tls, until

CA = authority()
OTHER_CA = authority("Other CA")
GOOD = issued_by(CA)
RSA = issued_by(CA, key=rsa.generate_private_key(65537, 2048))
CLIENTS = {"none": None, "of the CA": issued_by(CA, "client"), "of another CA": issued_by(OTHER_CA, "client")}
SERVERS = {
    "good": GOOD,
    "wrong host": issued_by(CA, hosts=["elsewhere.example"]),
    "of another CA": issued_by(OTHER_CA),
}
ROOTS = CA.certificate_pem


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", [*SERVERS, "ended while serving"])
async def test_who_gets_through_the_handshake(tmp_path: Path, server: str, client: str) -> None:
    """Twelve cells: a server's certificates against a client's, where clients must show one."""
    pair = SERVERS.get(server) or issued_by(CA, ends=datetime.now(UTC) + timedelta(seconds=1.5))
    async with serving_tls(tmp_path, pair, client_ca=CA) as running:

        async def is_over() -> bool:
            return server in SERVERS or datetime.now(UTC) >= pair.certificate.not_valid_after_utc

        await until(is_over)
        may_call = server == "good" and client == "of the CA"
        assert await running.outcome(ROOTS, CLIENTS[client]) == ("OK" if may_call else "UNAVAILABLE")
        await still_serves(running)


async def still_serves(running: TlsServer) -> None:
    """Prove that the server serves a client in order, with a certificate in order."""
    client_ca = None if running.files.client_ca is None else CA
    GOOD.write(running.files.certificate.parent, client_ca)
    await running.certificates.reload()
    assert await running.outcome(ROOTS, CLIENTS["of the CA"]) == "OK"


async def test_without_a_clients_ca_nobody_has_to_show_a_certificate(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, GOOD) as running:
        assert [await running.outcome(ROOTS, client) for client in CLIENTS.values()] == ["OK"] * 3


async def test_a_client_that_speaks_in_the_clear_is_turned_away(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, GOOD) as running:
        assert await running.outcome(None) == "UNAVAILABLE"
        await still_serves(running)


def disturb(port: int, noise: bytes) -> None:
    """Send noise and read to the end, which may come in the middle of either."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, suppress(OSError):
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", bytes(70_000)])
async def test_what_is_no_handshake_harms_nobody(tmp_path: Path, noise: bytes) -> None:
    async with serving_tls(tmp_path, GOOD) as running:
        await asyncio.to_thread(disturb, running.port, noise)
        await still_serves(running)


async def test_over_tls_too_a_caller_on_this_machine_is_the_local_user(tmp_path: Path) -> None:
    async with (
        serving_tls(tmp_path, GOOD, client_ca=CA) as running,
        running.channel(ROOTS, CLIENTS["of the CA"]) as channel,
    ):
        # The client's certificate opens the connection and names nobody.
        assert (await get_run(channel)).run.conversation_id == operating_system_user()


def handshake(port: int, version: ssl.TLSVersion, ciphers: str) -> tuple[str | None, str | None]:
    """Shake hands by Python's own TLS; return the version and the protocol that were agreed upon."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ROOTS.decode())
    context.set_alpn_protocols(["h2"])
    # The client is willing to do anything, so that it is the server that refuses.
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        return secured.version(), secured.selected_alpn_protocol()


@pytest.mark.parametrize(
    ("version", "ciphers", "agreed"),  # the suites are of a certificate with an RSA key
    [
        (ssl.TLSVersion.TLSv1_3, "ALL", "TLSv1.3"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA384", None),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256:AES128-SHA", None),
        (ssl.TLSVersion.TLSv1_1, "ALL", None),
        (ssl.TLSVersion.TLSv1, "ALL", None),
    ],
)
async def test_the_protocols(tmp_path: Path, version: ssl.TLSVersion, ciphers: str, agreed: str | None) -> None:
    """TLS 1.3, and 1.2 with authenticated encryption and forward secrecy: gRPC's defaults, which nothing may loosen."""
    async with serving_tls(tmp_path, RSA) as running:
        shaking = asyncio.to_thread(handshake, running.port, version, ciphers)
        if agreed is None:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await shaking
        else:
            assert await shaking == (agreed, "h2")
        await still_serves(running)
