"""What an operator says of services that show a certificate."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from parley_server.auth.grants import ActAs, Scopes, act_as_problems, scope_problems
from parley_server.domain.name_list import Names
from parley_server.domain.principal import MAX_SERVICE_CHARS, is_service_id

SPIFFE_ID = re.compile(r"spiffe://[a-z0-9][a-z0-9._-]{0,254}(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+")
_ANY_BELOW = "/*"


class MtlsServiceSettings(BaseModel):
    """`[mtls.NAME]`: a service that proves itself by its certificate (needs `[tls] client_ca_file`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spiffe_ids: Annotated[Names, Field(min_length=1, max_length=64)]
    """Which certificates are its: the SPIFFE id in their subject alternative name, `spiffe://TRUST-DOMAIN/PATH`, or a
    path that ends in `/*` for all that are below it. Nothing else of a certificate counts, and no trust domain that no
    service names."""

    service: str = ""
    """Its name here; empty: NAME."""

    scopes: Scopes = ()
    """What it may do. Empty: what the key of a service gets that names no scope."""

    act_as: ActAs = ()
    """The users for whom it may speak: ids, or beginnings of ids and `*`."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the keys: each with the key, and what to do."""
        if not all(SPIFFE_ID.fullmatch(_example_of(pattern)) for pattern in self.spiffe_ids):
            yield "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH, and /* at its end alone"
        if self.service and not is_service_id(self.service):
            yield f"service: is no name; write letters, digits and . _ @ + : -, at most {MAX_SERVICE_CHARS}"
        yield from scope_problems(self.scopes)
        yield from act_as_problems(self.act_as, is_service=True)


def is_covered(spiffe_id: str, pattern: str) -> bool:
    """Tell whether a pattern means this id; a pattern that ends in /* means all below it, and not itself."""
    return spiffe_id.startswith(pattern[:-1]) if pattern.endswith(_ANY_BELOW) else spiffe_id == pattern


def overlap_problems(services: Mapping[str, MtlsServiceSettings]) -> Iterator[tuple[str, str]]:
    """Yield whose certificates could be another service's too, each with its name."""
    seen: dict[str, str] = {}
    for name, service in services.items():
        for pattern in service.spiffe_ids:
            for other_pattern, other in seen.items():
                if other != name and (is_covered(pattern, other_pattern) or is_covered(other_pattern, pattern)):
                    yield name, f"spiffe_ids: {pattern} means certificates of [mtls.{other}] too; let each be of one"
            seen.setdefault(pattern, name)


def _example_of(pattern: str) -> str:
    return f"{pattern[:-1]}any" if pattern.endswith(_ANY_BELOW) else pattern
