"""TLS on the listener: a certificate that is replaced while the server runs."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import structlog

from parley_server.rpc.certificates import CertificateError, ServerCertificate, load_certificate
from parley_server.rpc.tls_settings import CertificateFiles

POLL_S = 5.0
REMIND_S = 24 * 60 * 60.0
WARN_BEFORE = timedelta(days=14)

# Of each file what changes with it: a renewal, a rename over it, and rights that are set right.
_Stamps = tuple[tuple[int, int, int, int] | None, ...]

_log = structlog.get_logger(__name__)


class CertificateReloader:
    """Holds the certificate in use, and replaces it when the files hold another one that is in order.

    Connections that stand keep the certificate they began with. `poll_s` is how often the files are looked at, and
    `remind_s` how often a certificate near its end is complained about, in seconds.

    Raises:
        CertificateError: the files cannot be used.
    """

    def __init__(self, files: CertificateFiles, poll_s: float = POLL_S, remind_s: float = REMIND_S) -> None:
        self._files = files
        self._poll_s = poll_s
        self._remind_s = remind_s
        self._reloading = asyncio.Lock()
        self._tried = _stamps(files)
        self._use(load_certificate(files, datetime.now(UTC)))

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of one listener; each of its handshakes asks for the certificate then in use."""
        given = self._configuration

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by threads of the core, one at a time, while a client waits: it reads a reference and no more.
            nonlocal given
            if given is self._configuration:
                return None
            given = self._configuration
            return given

        fetcher: Callable[[], grpc.ServerCertificateConfiguration] = fetch  # type: ignore[assignment]  # None: no change
        return grpc.dynamic_ssl_server_credentials(
            given, fetcher, require_client_authentication=self._files.client_ca is not None
        )

    async def reload(self) -> None:
        """Take up what the files hold now; keep what there is, with a warning, when that is not in order."""
        async with self._reloading:
            # Before reading: what is written meanwhile counts as another change.
            self._tried = await asyncio.to_thread(_stamps, self._files)
            try:
                loaded = await asyncio.to_thread(load_certificate, self._files, datetime.now(UTC))
            except CertificateError as error:
                _log.warning("certificate_kept", problem=str(error), ends=self._certificate.not_after.isoformat())
            else:
                self._use(loaded)

    async def watch(self) -> None:
        """Follow the files, until cancelled. A change is taken up when two looks in a row find the same."""
        clock = asyncio.get_running_loop().time
        before, reminded = self._tried, clock()
        while True:
            await asyncio.sleep(self._poll_s)
            found = await asyncio.to_thread(_stamps, self._files)
            # A certificate and its key are two files: between the two writes they do not match.
            if found == before != self._tried:
                await self.reload()
            before = found
            if clock() - reminded >= self._remind_s:
                reminded = clock()
                self._warn_near_the_end()

    def _use(self, certificate: ServerCertificate) -> None:
        self._certificate = certificate
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(certificate.private_key_pem, certificate.chain_pem)], certificate.client_ca_pem
        )
        ends = certificate.not_after.isoformat()
        _log.info("certificate_loaded", fingerprint=certificate.fingerprint, ends=ends)
        self._warn_near_the_end()

    def _warn_near_the_end(self) -> None:
        left = self._certificate.not_after - datetime.now(UTC)
        if left <= WARN_BEFORE:
            ends = self._certificate.not_after.isoformat()
            _log.warning("certificate_ends", ends=ends, days_left=left.days, hint="renew [tls] certificate_file")


def _stamps(files: CertificateFiles) -> _Stamps:
    paths = (files.certificate, files.private_key, files.client_ca)
    return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Return what changes when the file does; None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
