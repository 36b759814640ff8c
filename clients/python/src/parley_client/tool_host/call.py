"""What a tool is handed, and how it says that it cannot do it."""

import asyncio
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field

from parley.v1.request_context_pb2 import RequestContext

from parley_client.tool_host.delegation import Delegation


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom and under which identity a call runs; the only place a tool learns the user from.

    `request` is the user's context as the server sends it, `idempotency_key` the same whenever this very call is
    repeated; `deadline` is in seconds of the running loop's clock, and at it the tool is cancelled. `delegation_token`
    proves for whom the call is, and opens the Parley server as far as its operator lets this host: send it there as the
    bearer, and nowhere else. `delegation` is what it says, where the host was given the keys to verify it.
    """

    request: RequestContext
    request_id: str
    tool_name: str
    run_id: str
    call_id: str
    idempotency_key: str
    deadline: float
    report: Callable[[str, float | None], None]
    delegation_token: str = field(default="", repr=False)
    delegation: Delegation | None = None

    @property
    def user_id(self) -> str:
        """The user in whose name the agent works: proved by the server, and nothing a model can choose."""
        return self.request.user_id

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The user's time zone."""
        return zoneinfo.ZoneInfo(self.request.time_zone or "UTC")

    @property
    def time_left_s(self) -> float:
        """How many seconds the tool still has."""
        return max(self.deadline - asyncio.get_running_loop().time(), 0.0)

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tell the user how far the call is: a few words, and the part done from 0 to 1 where it is known.

        Returns at once and never fails; only the newest is sent. Call it in the event loop.
        """
        self.report(message, fraction)


class ToolError(Exception):
    """An error meant for the model, raised by a tool.

    `code` is stable and in snake_case, `message` a sentence, `hint` says what to do instead, `retryable` whether the
    same call may work later. All four reach the model and the user. Raise it with the code `unknown_outcome` where it
    cannot be known whether the tool has done its work.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
