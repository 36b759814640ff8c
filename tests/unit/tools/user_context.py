"""A checked context for tests of code that only passes it on."""

from datetime import UTC, datetime

from parley_server.domain.context import RequestContext
from parley_server.domain.principal import Principal, PrincipalKind

NOW = datetime(2026, 11, 22, 9, 3, tzinfo=UTC)


def context_of(user_id: str = "ann", *, time_zone: str = "Europe/Berlin", locale: str = "de-DE") -> RequestContext:
    """Make a user's own context."""
    return RequestContext(
        user_id=user_id,
        principal=Principal(kind=PrincipalKind.USER, subject=user_id, method="api_key"),
        request_id="req_1",
        timestamp=NOW,
        time_zone=time_zone,
        locale=locale,
    )
