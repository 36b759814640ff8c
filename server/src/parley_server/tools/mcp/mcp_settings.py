"""What an operator says of an MCP server."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from parley_server.domain.name_list import Names
from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.tools.credentials.source import SLOT_PATTERN
from parley_server.tools.definition import MAX_TIMEOUT_S

PACKAGE_MISSING = "[mcp] needs the package mcp; install it with `pip install 'parley-server[mcp]'`"
# What stands for a user's secret in a template: the name of its slot, in braces.
SLOT = re.compile(rf"\{{({SLOT_PATTERN})\}}")
_URL = re.compile(r"https?://[^/@\s]+(/\S*)?")
_PREFIX = r"^[A-Za-z0-9_-]{0,32}$"


def _paired(value: object) -> object:
    """Read what the environment writes as NAME=VALUE: with commas between them, or one a line."""
    if not isinstance(value, str):
        return value
    entries = value.splitlines() if "\n" in value else value.split(",")
    pairs = [entry.partition("=") for entry in entries if entry.strip()]
    if any(not is_pair for _, is_pair, _ in pairs):
        raise ValueError("write NAME=VALUE, with commas between them or one a line")
    return {name.strip(): text.strip() for name, _, text in pairs}


Secrets = Annotated[Mapping[str, SecretStr], BeforeValidator(_paired), Field(max_length=64)]
Templates = Annotated[Mapping[str, str], BeforeValidator(_paired), Field(max_length=16)]
Effects = Annotated[Mapping[str, ToolEffect], BeforeValidator(_paired)]


class McpServerSettings(BaseModel):
    """`[mcp.NAME]`: an MCP server whose tools agents have; a program that is started, or a URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = ""
    """The program to start, which speaks MCP on its standard input and output; it gets `PATH`, `HOME`, `USER`,
    `LOGNAME`, `SHELL` and `TERM` of this server's environment, and nothing else of it."""

    args: Names = ()
    """The program's arguments; in the environment with commas between them."""

    env: Secrets = {}
    """More environment variables for the program: `env = { MODE = "strict" }`, in the environment `MODE=strict` with
    commas between them."""

    cwd: str = ""
    """The program's working directory; empty: this server's."""

    url: str = ""
    """Where the server is, in the place of `command`: `https://example.com/mcp`, spoken to by streamable HTTP."""

    headers: Secrets = {}
    """Headers of every request to the URL: `headers = { "X-Tenant" = "acme" }`."""

    user_env: Templates = {}
    """Environment variables with secrets of the user for whom the program runs: `user_env = { GITHUB_TOKEN =
    "{github}" }`; `{github}` is the user's credential of that slot."""

    user_headers: Templates = {}
    """Headers with secrets of the user: `user_headers = { Authorization = "Bearer {github}" }`."""

    list_as: str = ""
    """The user whose credentials list the tools, for a server that lists none without; empty: they are listed without
    a credential. All users are told of the tools that are listed for this one."""

    shared: bool = False
    """Whether all users share one client, and so one program or session. Only for servers that keep nothing of whoever
    asks: else every user has his own."""

    prefix: Annotated[str | None, Field(pattern=_PREFIX)] = None
    """What the names of the tools begin with here; not set: the table's name and `_`."""

    allowed: Names = ()
    """The tools that are taken, by the server's own names; empty: all."""

    effect: ToolEffect = ToolEffect.WRITE
    """What a call does to the world where nothing else says it: `read`, `idempotent` or `write`."""

    effects: Effects = {}
    """The same for single tools, by the server's own names: `effects = { search = "read" }`."""

    trust_hints: bool = False
    """Whether to believe what the server says of its tools: `readOnlyHint` makes one `read`, `idempotentHint`
    `idempotent`."""

    approval: ApprovalRule | None = None
    """Whether the user is asked before a call: `always`, `never`, or `policy` for what `[approvals]` says; not set:
    `always` for tools that write and `policy` for the others."""

    accept_confirmations: bool = False
    """Whether a question that the server asks the user in the middle of a call, and that only yes or no can answer, is
    answered with yes when the user has approved the call (`approval = "always"`). He has seen the call and not the
    question. Else he is asked it as an approval of its own where the server can wait (protocol of 2026-07-28). Other
    questions are declined."""

    pinned: bool = True
    """Whether a tool whose description or schema has changed is out of use until `parley-server mcp pin NAME`."""

    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] = 60.0
    """How long a call may take, in seconds."""

    connect_timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    """How long the server may take to start and to list its tools, in seconds."""

    max_tools: Annotated[int, Field(ge=1, le=1000)] = 128
    """How many tools are taken; a model is told of every one of them in every request."""

    max_clients: Annotated[int, Field(ge=1, le=10_000)] = 32
    """How many clients there are at once, and so programs or sessions; the longest unused one makes room."""

    idle_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """After how many seconds without a call a client is closed, and its program ended."""

    log_stderr: bool = False
    """Whether what the program writes to standard error goes to this server's log also after it has begun to serve; it
    may hold what users said."""

    @property
    def slots(self) -> tuple[str, ...]:
        """The credentials of the user that the server is given."""
        templates = [*self.user_env.values(), *self.user_headers.values()]
        return tuple(dict.fromkeys(slot for template in templates for slot in SLOT.findall(template)))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the keys together: each with the key, and what to do."""
        if bool(self.command) == bool(self.url):
            yield "url: set either command or url"
        elif self.url and not _URL.fullmatch(self.url):
            yield "url: write http:// or https://, and no password in it"
        for key in ("args", "env", "cwd", "user_env") if self.url else ("headers", "user_headers"):
            if getattr(self, key):
                yield f"{key}: does not go with {'url' if self.url else 'command'}; remove it"
        for key, templates in (("user_env", self.user_env), ("user_headers", self.user_headers)):
            if any(not SLOT.search(template) for template in templates.values()):
                yield f"{key}: names no slot of a credential; write its name in braces, {{github}}"
        if self.list_as and not self.slots:
            yield "list_as: there are no credentials of users; remove it"
        if self.shared and self.slots:
            yield "shared: a client of all users cannot have credentials of one; remove shared, or what names them"
