"""The settings of TLS on the listener: apart from what reads certificates, which takes 8 MiB where there is TLS."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from parley_server.domain.optional_path import OptionalPath


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the certificate is, with the chain below it, its private key, and the CA of clients that must show one."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


class TlsSettings(BaseModel):
    """`[tls]`: the server's certificate. Without one the server listens on this machine alone.

    The files are read at the start, on SIGHUP, and when they change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate_file: OptionalPath = None
    """The certificate, and below it those that lead to its root, as PEM."""

    private_key_file: OptionalPath = Field(default=None, validate_default=True)
    """The certificate's private key as PEM, without a password. Refused when other users may read it: it has mode
    0600, or 0640 where it is root's."""

    client_ca_file: OptionalPath = None
    """The CA of the clients, as PEM. Where it is set, nobody connects without a certificate of that CA."""

    @field_validator("private_key_file")
    @classmethod
    def _pair(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if (path is None) != (others.data.get("certificate_file") is None):
            raise ValueError("certificate_file and private_key_file belong together; set both or neither")
        return path

    @field_validator("client_ca_file")
    @classmethod
    def _needs_tls(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is not None and others.data.get("certificate_file") is None:
            raise ValueError("clients show certificates over TLS alone; set certificate_file and private_key_file")
        return path

    @property
    def files(self) -> CertificateFiles | None:
        """The files, None where there is no TLS."""
        if self.certificate_file is None or self.private_key_file is None:
            return None
        return CertificateFiles(self.certificate_file, self.private_key_file, self.client_ca_file)
