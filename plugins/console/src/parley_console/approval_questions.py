"""Asks the user what the run that he follows waits for."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from parley.v1.approval_pb2 import APPROVAL_REMEMBER_CONVERSATION, APPROVAL_STATE_PENDING, Approval
from parley.v1.run_event_pb2 import RunEvent
from parley_client import ParleyClient, ParleyError, UnavailableError

from parley_console.approval_text import choices_of, choices_text, question_rows, time_left
from parley_console.failure_text import call_failure
from parley_console.screen import Style

T = TypeVar("T")

MAX_REASON: Final = 1024
_RETRY_S: Final = 1.0
_WHY: Final = "why not? (Esc: back)> "


class Asker(Protocol):
    """Puts questions to the user, one at a time, while other things go on. Cancelling one takes it off the screen."""

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """Write one or more whole lines that stay."""

    async def choose(self, choices: str, keys: str) -> str:
        """Return which of the keys, a character each, the user presses; `choices` says what they mean.

        Empty when nobody is there any more.
        """

    async def ask_aside(self, question: str) -> str | None:
        """Return a line that the user types to a question; None when he takes back that he wanted to."""


class ApprovalQuestions:
    """Asks one question after the other, and takes off the screen what somebody else has answered.

    It is told all events of the run, after they were shown. `later_hint` says where an answer can still be given.
    """

    def __init__(self, client: ParleyClient, asker: Asker, later_hint: str) -> None:
        self._client = client
        self._asker = asker
        self._later_hint = later_hint
        self._waiting: deque[str] = deque()
        self._asked_id = ""
        self._is_answered = False
        self._asking: asyncio.Task[None] | None = None

    def show(self, event: RunEvent) -> None:
        """Take the run's next event."""
        match event.WhichOneof("event"):
            case "approval_requested":
                self._waiting.append(event.approval_requested.approval_id)
                self._ask_next()
            case "approval_resolved":
                self._settle(event.approval_resolved.approval_id)
            case "run_finished":
                self.close()

    def close(self) -> None:
        """Ask nothing any more."""
        self._waiting.clear()
        if self._asking is not None:
            self._asking.cancel()

    def _settle(self, approval_id: str) -> None:
        if approval_id in self._waiting:
            self._waiting.remove(approval_id)
        # An answer of ours that is under way is told what became of it.
        if approval_id == self._asked_id and self._asking is not None and not self._is_answered:
            self._asking.cancel()

    def _ask_next(self) -> None:
        if self._asking is None and self._waiting:
            self._asked_id, self._is_answered = self._waiting.popleft(), False
            self._asking = asyncio.create_task(self._ask(self._asked_id))
            self._asking.add_done_callback(self._asked)

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        self._ask_next()
        if not asking.cancelled():
            asking.result()

    async def _ask(self, approval_id: str) -> None:
        try:
            approval = await _patiently(lambda: self._client.approvals.get(approval_id))
            # A run that is shown from its beginning tells of questions of long ago.
            if approval.state == APPROVAL_STATE_PENDING:
                await self._put(approval)
        except ParleyError as error:
            self._asker.line(f"✗ {call_failure(error, self._client.target)}", Style.RED)

    async def _put(self, approval: Approval) -> None:
        left = await _patiently(lambda: time_left(self._client, approval))
        rows, is_cut = question_rows(approval, left)
        self._asker.line("\n".join(rows), Style.YELLOW)
        choices = choices_of(approval, is_cut=is_cut)
        while True:
            match await self._asker.choose(choices_text(choices), "".join(choices)):
                case "1":
                    return await self._approve(approval)
                case "2":
                    return await self._approve_always(approval)
                case "3":
                    if (reason := await self._asker.ask_aside(_WHY)) is not None:
                        return await self._deny(approval, reason.strip()[:MAX_REASON])
                case "4" | "":
                    return self._asker.line(self._later_hint, Style.DIM)
                case _:
                    self._asker.line("\n".join(question_rows(approval, whole=True)[0]), Style.YELLOW)

    async def _approve(self, approval: Approval) -> None:
        await self._answer(lambda: self._client.approvals.approve(approval.approval_id))

    async def _approve_always(self, approval: Approval) -> None:
        remember = APPROVAL_REMEMBER_CONVERSATION
        await self._answer(lambda: self._client.approvals.approve(approval.approval_id, remember=remember))

    async def _deny(self, approval: Approval, reason: str) -> None:
        await self._answer(lambda: self._client.approvals.deny(approval.approval_id, reason=reason))

    async def _answer(self, call: Callable[[], Awaitable[Approval]]) -> None:
        self._is_answered = True
        await _patiently(call)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call that may be repeated until a server is there to take it; whoever follows the run gives up in time."""
    while True:
        try:
            return await call()
        except UnavailableError:
            await asyncio.sleep(_RETRY_S)
