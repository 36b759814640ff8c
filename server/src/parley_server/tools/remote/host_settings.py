"""What an operator says of a tool host."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from parley_server.domain.name_list import listed
from parley_server.domain.optional_path import OptionalPath
from parley_server.domain.principal import SERVICE_SCOPES, is_tool_scope

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})")
_SOCKET = re.compile(r"unix:\S+")


def _address(target: str) -> str:
    found = _HOST_AND_PORT.fullmatch(target)
    if not _SOCKET.fullmatch(target) and (found is None or not 0 < int(found["port"]) < 65536):
        raise ValueError("write HOST:PORT or unix:PATH")
    return target


def _sendable(token: SecretStr) -> SecretStr:
    value = token.get_secret_value().strip()
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("must be printable ASCII without blanks")
    return SecretStr(value)


def _delegable(scope: str) -> str:
    # Not what services have by name alone: a host must not answer what the user is asked about its own calls.
    if scope not in SERVICE_SCOPES and not is_tool_scope(scope):
        raise ValueError("must be a scope that hosts may have, such as runs:read")
    return scope


_Seconds = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)]
_Scope = Annotated[str, AfterValidator(_delegable)]
_ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class ToolHostSettings(BaseModel):
    """`[tool_hosts.NAME]`: a program elsewhere whose tools agents have, too."""

    # A rejected token must not be shown by the error that rejects it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    target: Annotated[str, AfterValidator(_address)]
    """Where it listens: `HOST:PORT` or `unix:PATH`. What is not on this machine is reached over TLS."""

    token: Annotated[SecretStr, AfterValidator(_sendable)] = SecretStr("")
    """The secret that shows the host that it is this server that calls; empty sends none."""

    tls_ca_file: OptionalPath = None
    """The CA of the host's certificate, as PEM. Unset: those that the system trusts, or no TLS for a host that is on
    this machine."""

    tls_certificate_file: OptionalPath = None
    """The certificate that this server shows, as PEM, for a host that asks for one."""

    tls_private_key_file: Annotated[OptionalPath, Field(validate_default=True)] = None
    """The private key of that certificate, as PEM."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] | None = None
    """What the server puts before the names of the host's tools. Unset: NAME and `_`."""

    allowed: Annotated[tuple[_ToolName, ...], BeforeValidator(listed), Field(max_length=256)] = ()
    """The tools that agents get, by the host's own names; in the environment with commas between them. Empty: all."""

    connect_timeout_s: _Seconds = 5.0
    """How long a connection may take, in seconds."""

    describe_timeout_s: _Seconds = 10.0
    """How long the host may take to tell its tools, in seconds."""

    call_timeout_s: _Seconds = 600.0
    """How long a call may take at most, in seconds, whatever the tool says of itself."""

    delegate_scopes: Annotated[tuple[_Scope, ...], BeforeValidator(listed), Field(max_length=32)] = ()
    """What the host may do at this server for the user of a call, by the token that comes with it, for as long as the
    call may take, five minutes at most, and as far as the run's own caller may: the scopes that a service has by
    default, such as `runs:read`, and those of tools. In the environment with commas between them. Empty: the token only
    proves for whom it works."""

    refresh_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """How often the host is asked for its tools while all is well, in seconds."""

    @field_validator("tls_private_key_file")
    @classmethod
    def _pair(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if (path is None) != (others.data.get("tls_certificate_file") is None):
            raise ValueError("tls_certificate_file and tls_private_key_file belong together; set both or neither")
        return path

    @property
    def is_local(self) -> bool:
        """Tell whether the host is on this machine."""
        host = self.target.rpartition(":")[0].strip("[]")
        if _SOCKET.fullmatch(self.target) or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def uses_tls(self) -> bool:
        """Tell whether the connection is encrypted: always, but for a host on this machine that has no certificate."""
        return not self.is_local or self.tls_ca_file is not None or self.tls_certificate_file is not None

    def prefix_of(self, name: str) -> str:
        """Return the prefix of the tools of the host that the operator calls `name`."""
        return f"{name}_" if self.prefix is None else self.prefix
