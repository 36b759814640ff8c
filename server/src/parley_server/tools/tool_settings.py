"""What an operator says of the tools."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from parley_server.domain.name_list import Names, listed
from parley_server.tools.builtin.fetching.allowed_hosts import AllowedHost
from parley_server.tools.limits import MAX_CALLS_PER_TURN, MAX_PARALLEL_CALLS, MAX_TOOL_TIME_S, CallLimits
from parley_server.tools.threads import DEFAULT_THREADS


def _is_host(entry: str) -> str:
    AllowedHost.parse(entry)
    return entry


class FetchUrlSettings(BaseModel):
    """`[tools.fetch_url]`: reading web pages, on hosts that are listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    """Whether agents have the tool at all."""

    allow: Annotated[
        tuple[Annotated[str, AfterValidator(_is_host)], ...], BeforeValidator(listed), Field(max_length=256)
    ] = ()
    """The hosts: `example.com`, `*.example.org` for all names below it, `example.com:8443` for a port other than the
    scheme's own; in the environment with commas between them. Redirects lead to no others either."""

    allow_private_addresses: bool = False
    """Whether these hosts may be on private networks and on this machine. Link-local addresses, where clouds keep
    credentials, are never asked."""

    max_bytes: Annotated[int, Field(ge=1024, le=10_000_000)] = 1024 * 1024
    """How much is read of a page, in bytes, packed and unpacked."""

    timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    """How long a page may take with all its redirects, in seconds."""


class ToolSettings(BaseModel):
    """`[tools]`: the tools that agents have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: Names = ()
    """Modules whose tools agents have too, such as `my_company.tools`, installed where the server is; in the
    environment with commas between them."""

    disabled: Names = ()
    """Tools that no agent has, by name; in the environment with commas between them."""

    threads: Annotated[int, Field(ge=1, le=1024)] = DEFAULT_THREADS
    """How many calls of tools that are no coroutines run at once. Others wait for at most half their time-out."""

    calls_per_turn: Annotated[int, Field(ge=1, le=64)] = MAX_CALLS_PER_TURN
    """How many calls of one answer of the model are run; those beyond are answered `too_many_calls`."""

    parallel_calls: Annotated[int, Field(ge=1, le=64)] = MAX_PARALLEL_CALLS
    """How many calls of one run are under way at once. Of one tool a user has at most as many as the tool says."""

    max_run_tool_s: Annotated[float, Field(gt=0, le=86_400)] = MAX_TOOL_TIME_S
    """How long the tools of one run may be at work in all, in seconds; calls beyond are not begun."""

    fetch_url: FetchUrlSettings = FetchUrlSettings()

    def call_limits(self) -> CallLimits:
        """Return what the calls of every run are held to."""
        return CallLimits(self.calls_per_turn, self.parallel_calls, self.max_run_tool_s)
