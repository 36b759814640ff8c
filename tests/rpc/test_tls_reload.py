"""A certificate replaced under way: new handshakes see it, old connections live on, a bad one changes nothing."""

import asyncio
import os
import ssl
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import DAY, Pair, authority, issued_by
from parley_server.rpc.tls import CertificateReloader
from rpc.tls_server import TlsServer, get_run, serving_tls, until
from structlog.testing import capture_logs

CA = authority()
FIRST, SECOND = issued_by(CA, "first"), issued_by(CA, "second")
ROOTS = CA.certificate_pem

Logs = list[MutableMapping[str, object]]


def logged(logs: Logs, event: str) -> Logs:
    return [line for line in logs if line["event"] == event]


async def shows(running: TlsServer, pair: Pair) -> bool:
    """Shake hands; tell whether the server shows this certificate."""
    shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", running.port))
    return shown == pair.certificate_pem.decode()


async def test_new_handshakes_see_the_new_certificate_and_old_connections_live_on(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, FIRST) as running, running.channel(ROOTS) as old:
        await get_run(old)
        assert await shows(running, FIRST)
        SECOND.write(tmp_path)
        await running.certificates.reload()
        assert await shows(running, SECOND)
        assert await running.outcome(ROOTS) == "OK"
        await get_run(old)


async def test_files_that_change_are_taken_up_unasked(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, FIRST) as running:
        SECOND.write(tmp_path)
        await until(lambda: shows(running, SECOND))


async def test_links_that_are_turned_are_a_change(tmp_path: Path) -> None:
    """As Kubernetes and certbot renew."""
    SECOND.write(tmp_path / "second")
    live = tmp_path / "live"
    async with serving_tls(live, FIRST) as running:
        for file in ("server.pem", "server.key"):
            (live / "next").symlink_to(tmp_path / "second" / file)
            (live / "next").rename(live / file)
        await until(lambda: shows(running, SECOND))


async def test_a_pair_that_is_half_written_is_waited_for(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, FIRST) as running:
        running.files.certificate.write_bytes(SECOND.certificate_pem)
        await running.certificates.reload()
        assert await shows(running, FIRST)
        running.files.private_key.write_bytes(SECOND.key_pem)
        await until(lambda: shows(running, SECOND))


@pytest.mark.parametrize("damage", ["garbage", "absent", "ended", "open to all", "another key"])
async def test_what_is_not_in_order_keeps_the_old_one_and_is_told_once(tmp_path: Path, damage: str) -> None:
    with capture_logs() as logs:
        async with serving_tls(tmp_path, FIRST) as running:
            spoil(running, damage)

            async def was_told() -> bool:
                return bool(logged(logs, "certificate_kept"))

            await until(was_told)
            assert await running.outcome(ROOTS) == "OK"
            assert await shows(running, FIRST)
            running.files.private_key.unlink(missing_ok=True)
            SECOND.write(tmp_path)
            await until(lambda: shows(running, SECOND))
    told = [str(line["problem"]) for line in logged(logs, "certificate_kept")]
    assert told[0].startswith("[tls] ")
    assert len(set(told)) == len(told)


def spoil(running: TlsServer, damage: str) -> None:
    match damage:
        case "garbage":
            running.files.certificate.write_bytes(os.urandom(1000))
        case "absent":
            running.files.private_key.unlink()
        case "ended":
            issued_by(CA, ends=datetime.now(UTC) - DAY).write(running.files.certificate.parent)
        case "open to all":
            running.files.private_key.chmod(0o644)
        case _:
            running.files.private_key.write_bytes(SECOND.key_pem)


async def test_the_clients_ca_is_replaced_as_well(tmp_path: Path) -> None:
    other_ca = authority("Other CA")
    old, new = issued_by(CA, "client"), issued_by(other_ca, "client")
    async with serving_tls(tmp_path, FIRST, client_ca=CA) as running:
        assert [await running.outcome(ROOTS, client) for client in (old, new)] == ["OK", "UNAVAILABLE"]
        FIRST.write(tmp_path, client_ca=other_ca)
        await running.certificates.reload()
        assert [await running.outcome(ROOTS, client) for client in (old, new)] == ["UNAVAILABLE", "OK"]


async def test_handshakes_in_the_middle_of_reloads_all_get_through(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, FIRST) as running:

        async def renew() -> None:
            for pair in (SECOND, FIRST) * 20:
                pair.write(tmp_path)
                await running.certificates.reload()

        outcomes = asyncio.gather(*(running.outcome(ROOTS) for _ in range(60)))
        await renew()
        assert await outcomes == ["OK"] * 60


@pytest.mark.parametrize(("days", "is_near"), [(13, True), (15, False)])
async def test_a_certificate_near_its_end_is_complained_about_again_and_again(
    tmp_path: Path, days: int, is_near: bool
) -> None:
    ends = datetime.now(UTC) + days * DAY
    with capture_logs() as logs:
        async with serving_tls(tmp_path, issued_by(CA, ends=ends)) as running:
            assert len(logged(logs, "certificate_ends")) == is_near
            await running.certificates.reload()
            assert (len(logged(logs, "certificate_ends")) >= 2) == is_near

            async def is_reminded() -> bool:
                return not is_near or len(logged(logs, "certificate_ends")) >= 4

            await until(is_reminded)
    assert all(line["days_left"] == days - 1 for line in logged(logs, "certificate_ends"))
    assert "PRIVATE" not in str(logs)


async def test_the_watch_outlives_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    files = FIRST.write(tmp_path)
    certificates = CertificateReloader(files, poll_s=0.001)
    with capture_logs() as logs:
        watching = asyncio.create_task(certificates.watch())
        for attempt in range(30):
            for path in (files.certificate, files.private_key):
                path.write_bytes(os.urandom(attempt))
                await asyncio.sleep(0.002)
        SECOND.write(tmp_path)
        count = len(logged(logs, "certificate_loaded"))

        async def is_taken_up() -> bool:
            return len(logged(logs, "certificate_loaded")) > count

        await until(is_taken_up)
        assert not watching.done()
        watching.cancel()
