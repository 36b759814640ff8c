"""TLS as files say it: the roots to trust, and the certificate to show to a server that asks for one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

_SWITCH: Final = "PARLEY_TLS"
_ON_OR_OFF: Final = {"0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for a connection over TLS; none at all is TLS by the roots that gRPC brings.

    `root_certificates` are trusted in place of those. `client_certificate`, with the chain below it, and `client_key`
    go together. The files are read when a client is built: a renewed one takes a new client.
    """

    root_certificates: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    def completed(self, environment: Mapping[str, str] = os.environ) -> "TlsFiles":
        """Take what is not set from PARLEY_ROOT_CERTIFICATES, PARLEY_CLIENT_CERTIFICATE and PARLEY_CLIENT_KEY."""

        def named(variable: str) -> Path | None:
            path = environment.get(variable)
            return Path(path).expanduser() if path else None

        return TlsFiles(
            self.root_certificates or named("PARLEY_ROOT_CERTIFICATES"),
            self.client_certificate or named("PARLEY_CLIENT_CERTIFICATE"),
            self.client_key or named("PARLEY_CLIENT_KEY"),
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ValueError, which names the file, for those that cannot be used."""
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("a client certificate and its key go together: give both or neither")
        self._check()
        return grpc.ssl_channel_credentials(
            _content(self.root_certificates), _content(self.client_key), _content(self.client_certificate)
        )

    def _check(self) -> None:
        """Hold the files to what a handshake needs; gRPC itself would call it an unreachable server."""
        import ssl  # noqa: PLC0415 - costs more than the rest, and most connections need none of it

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.root_certificates is not None:
            try:
                context.load_verify_locations(self.root_certificates)
            except OSError as error:  # SSLError is one
                raise ValueError(f"{self.root_certificates}: {_reason(error, 'holds no root certificate')}") from error
        if self.client_certificate is not None and self.client_key is not None:
            try:
                # An empty password, because none at all would ask for one at the terminal.
                context.load_cert_chain(self.client_certificate, self.client_key, password="")
            except OSError as error:
                fault = _reason(error, "they are no client certificate and its key as PEM, without a password")
                raise ValueError(f"{self.client_certificate}, {self.client_key}: {fault}") from error


def tls_from_environment(environment: Mapping[str, str] = os.environ) -> bool | TlsFiles:
    """Return what PARLEY_TLS and the variables of `TlsFiles` say; naming a file is asking for TLS.

    Raises ValueError for a PARLEY_TLS that is neither true nor false.
    """
    files = TlsFiles().completed(environment)
    switch = (environment.get(_SWITCH) or str(files != TlsFiles())).lower()
    if switch not in _ON_OR_OFF:
        raise ValueError(f"{_SWITCH} is {switch!r}; write true or false")
    return files if _ON_OR_OFF[switch] else False


def _content(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


def _reason(error: OSError, fault: str) -> str:
    """Say why a file could not be loaded: it cannot be read, or else `fault`."""
    return os.strerror(error.errno) if isinstance(error, FileNotFoundError | PermissionError) and error.errno else fault
