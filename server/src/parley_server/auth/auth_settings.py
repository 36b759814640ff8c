"""What an operator says of who is let in, and what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from parley_server.auth.failure_limiter import MAX_FAILURES
from parley_server.auth.installed import installed_names
from parley_server.auth.jwt_settings import IssuerSettings, prefix_problems
from parley_server.auth.mtls_settings import MtlsServiceSettings, overlap_problems
from parley_server.domain.name_list import Names

BUILT_IN = ("mtls", "api_key", "delegation", "jwt", "local")


class AuthSettings(BaseModel):
    """`[auth]`: who is let in, and what keeps the stored hashes of keys useless to a thief."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash_key: SecretStr | None = None
    """The key of the keyed hashes, 32 characters or more. Without one it is made in the data directory."""

    hash_key_file: Path | None = None
    """A file that holds `hash_key`; used where that is not set."""

    local: bool = True
    """Whether a process on this machine needs no credential and acts as the server's own user. Holds for loopback and
    unix sockets alone."""

    providers: Annotated[Names, Field(max_length=16)] = ()
    """The types of the providers that are asked who calls, in this order: `mtls`, `api_key`, `delegation`,
    `jwt`, `local`, and the names of entry points in the group `parley.auth_providers` of packages that are
    installed where the server is. Empty: `mtls` where there is an `[mtls.NAME]`, `api_key`, `delegation`, `jwt` where
    there is an `[issuers.NAME]`, and `local` where it holds."""

    max_failures_per_minute: int = Field(default=MAX_FAILURES, ge=1, le=1000)
    """How many bad credentials an address may send in a minute. The next get RESOURCE_EXHAUSTED, and with them every
    credential from there that was not good lately. Counted by the IPv4 address, by the /64 network of an IPv6 address,
    and ten times as many for all callers on this machine together."""

    recheck_s: float = Field(default=45.0, ge=0.1, le=3600.0, allow_inf_nan=False)
    """How long a stream goes on without another look at its credential, in seconds: at the next event after that it
    ends if the credential has. A stream that is quiet has an event every 15 seconds."""


@dataclass(frozen=True, slots=True)
class Admission:
    """All that the settings say of who is let in at a listener, and what of the listener matters for that."""

    auth: AuthSettings
    issuers: Mapping[str, IssuerSettings]
    mtls: Mapping[str, MtlsServiceSettings]
    listens_locally: bool
    asks_for_certificates: bool

    @property
    def provider_types(self) -> tuple[str, ...]:
        """The providers in the order they are asked.

        `local` is for loopback and unix-socket listeners alone: behind any other, a proxy on this machine would
        turn every caller into the server's user.
        """
        is_there = {
            "mtls": bool(self.mtls),
            "api_key": True,
            "delegation": True,
            "jwt": bool(self.issuers),
            "local": self.auth.local and self.listens_locally,
        }
        return self.auth.providers or tuple(name for name in BUILT_IN if is_there[name])

    def problems(self) -> Iterator[str]:
        """Yield all that is wrong: each with its place, and what to do."""
        for name, issuer in self.issuers.items():
            yield from (f"[issuers.{name}] {problem}" for problem in issuer.problems())
        yield from (f"[issuers.{name}] {problem}" for name, problem in prefix_problems(self.issuers))
        for name, service in self.mtls.items():
            yield from (f"[mtls.{name}] {problem}" for problem in service.problems())
        yield from (f"[mtls.{name}] {problem}" for name, problem in overlap_problems(self.mtls))
        if self.mtls and not self.asks_for_certificates:
            yield "[mtls] needs certificates of clients; set [tls] client_ca_file, with certificate_file"
        yield from (f"[auth] providers: {problem}" for problem in self._order_problems())

    def _order_problems(self) -> Iterator[str]:
        named = self.auth.providers
        if not named:
            return
        yield from _name_problems(named)
        for kind, table, given in (("jwt", "issuers", self.issuers), ("mtls", "mtls", self.mtls)):
            if given and kind not in named:
                yield f"{kind} is not among them, so that [{table}] would be for nothing; name it, or remove those"
            if kind in named and not given:
                yield f"{kind} has nobody to let in; add an [{table}.NAME], or leave it out"
        if "local" in named and not self.listens_locally:
            yield "local is for loopback and unix sockets alone; leave it out"
        if "local" in named[:-1]:
            yield "local takes whoever brings nothing that it knows; name it last"
        if "local" in named and not self.auth.local:
            yield "local is among them and [auth] local is off; keep one"


def _name_problems(named: Sequence[str]) -> Iterator[str]:
    if len(set(named)) < len(named):
        yield "one is named twice; name each once"
    there = installed_names()
    for name in named:
        if name not in BUILT_IN and name not in there:
            known = ", ".join((*BUILT_IN, *sorted(there)))
            yield f"there is no {name}, neither here nor in an installed package; there are {known}"
