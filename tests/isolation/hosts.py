"""The tool hosts on stage: real ones, in the suite's process, that tell all they are handed, and say it again."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

from isolation.canary import canary
from parley_client.tool_host import Arguments, ToolContext, ToolError, ToolHost
from pydantic import BaseModel

# What each may do for users at the server.
DELEGATED = {"desk": frozenset({"runs:read", "runs:write", "conversations:read"}), "mute": frozenset[str]()}
_BEARER = "of-the-hosts-on-stage"
_LINGER_S = 0.3
_TIMEOUT_S = 30.0
_SHORT_TIMEOUT_S = 2.0


class Words(Arguments):
    """What the user said."""

    words: str


class Told(BaseModel):
    """What a host answers."""

    words: str


@dataclass(frozen=True, slots=True)
class HostCall:
    """One call of a host's tool: all that it was handed, when (seconds since 1970), and how long it may take."""

    host: str
    context: ToolContext
    words: str
    time: float
    timeout_s: float


Seen = Callable[[HostCall], None]


class Holds:
    """Keeps calls waiting until they are let go, by their words."""

    def __init__(self) -> None:
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def wait(self, words: str) -> None:
        """Return when the call with these words is let go, or was."""
        await self._gates[words].wait()

    def let_go(self, words: str) -> None:
        """Let it go."""
        self._gates[words].set()


@asynccontextmanager
async def serving_hosts(seen: Seen, holds: Holds) -> AsyncIterator[dict[str, str]]:
    """Serve the hosts for a block; yield the settings by which a server has them."""
    environment: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for name, scopes in DELEGATED.items():
            serving = _host(name, seen, holds).serving("127.0.0.1:0", token=_BEARER, grace_s=0)
            prefix = f"PARLEY_TOOL_HOSTS__{name.upper()}__"
            environment[f"{prefix}TARGET"] = await stack.enter_async_context(serving)
            environment[f"{prefix}TOKEN"] = _BEARER
            environment[f"{prefix}DELEGATE_SCOPES"] = ",".join(sorted(scopes))
        yield environment


def _host(name: str, seen: Seen, holds: Holds) -> ToolHost:
    host = ToolHost()
    random = Random(name)

    def tell(context: ToolContext, arguments: Words, timeout_s: float = _TIMEOUT_S) -> str:
        seen(HostCall(name, context, arguments.words, time.time(), timeout_s))
        # What the model and the user must never see of it.
        return f"{arguments.words} {context.delegation_token}"

    @host.tool(effect="read", timeout_s=_TIMEOUT_S)
    async def fetch(context: ToolContext, arguments: Words) -> Told:
        """Say it again."""
        told = tell(context, arguments)
        context.progress(told)
        return Told(words=told)

    @host.tool(effect="read", timeout_s=_TIMEOUT_S)
    async def whose(context: ToolContext, arguments: Words) -> Told:
        """Say something else to everybody, whatever he says."""
        tell(context, arguments)
        return Told(words=canary(context.user_id, random))

    @host.tool(effect="write", timeout_s=_TIMEOUT_S)
    async def protest(context: ToolContext, arguments: Words) -> Told:
        """Fail, and say of what."""
        raise ToolError("refused", f"That cannot be done: {tell(context, arguments)}")

    @host.tool(effect="read", timeout_s=_SHORT_TIMEOUT_S)
    async def linger(context: ToolContext, arguments: Words) -> Told:
        """Take some time, in which the call may be given up or its server killed."""
        context.progress(tell(context, arguments, _SHORT_TIMEOUT_S))
        await asyncio.sleep(_LINGER_S)
        return Told(words=arguments.words)

    @host.tool(effect="read", timeout_s=_TIMEOUT_S)
    async def hold(context: ToolContext, arguments: Words) -> Told:
        """Answer when it is let go."""
        tell(context, arguments)
        await holds.wait(arguments.words)
        return Told(words=arguments.words)

    return host
