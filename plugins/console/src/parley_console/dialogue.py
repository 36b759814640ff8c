"""One conversation at the terminal: messages are answered one after the other, in the order they were sent."""

import asyncio
from collections import deque
from typing import Final

from parley_client import ParleyClient, ParleyError, RunEvent, RunStream

from parley_console.approval_questions import ApprovalQuestions
from parley_console.failure_text import call_failure, run_failure, shortfall
from parley_console.following import Ending, follow
from parley_console.interrupts import Sigint
from parley_console.live_display import LiveDisplay
from parley_console.run_view import RunView
from parley_console.screen import Style
from parley_console.terminal import Terminal
from parley_console.turn import Turn

_LATER: Final = "the run waits; /approvals answers it"


class Dialogue:
    """Takes messages at any time; what comes while a run is under way is queued by the server.

    `perform` and `announce` run for as long as the dialogue lasts, as tasks of their own. A new conversation has no id
    until its first run is accepted.
    """

    def __init__(self, client: ParleyClient, terminal: Terminal, sigint: Sigint, agent: str = "") -> None:
        self._client = client
        self._terminal = terminal
        self._sigint = sigint
        self._view = RunView(LiveDisplay(terminal))
        self._questions = ApprovalQuestions(client, terminal, _LATER)
        self._turn: Turn | None = None
        self._waiting: deque[Turn] = deque()
        self._sent = asyncio.Event()
        self._may_announce = asyncio.Event()
        self.agent = agent
        self.conversation_id = ""

    @property
    def is_busy(self) -> bool:
        """Whether a message is being answered or waits for that."""
        return self._turn is not None or bool(self._waiting)

    @property
    def unannounced(self) -> int:
        """How many messages the server does not know of."""
        return sum(not turn.is_announced and not turn.run_id for turn in self._waiting)

    def send(self, text: str) -> None:
        """Take the next message."""
        self.take([Turn(text, self.agent, was_queued=self.is_busy)])

    def take(self, turns: list[Turn]) -> None:
        """Take turns, of which some may be under way already."""
        self._waiting.extend(turns)
        self._sent.set()
        self._may_announce.set()
        if self._turn is not None:
            self._show_queue()

    def move_to(self, conversation_id: str) -> None:
        """Go on with another conversation, empty for a new one; only while nothing is under way."""
        if self.is_busy:
            raise RuntimeError("a run of the conversation is under way")
        self.conversation_id = conversation_id

    async def perform(self) -> None:
        """Answer the messages, for ever."""
        while True:
            while not self._waiting:
                self._sent.clear()
                await self._sent.wait()
            self._turn = self._waiting.popleft()
            try:
                await self._answer(self._turn)
            finally:
                self._turn = None

    async def announce(self) -> None:
        """Tell the server of messages that wait, for ever."""
        while True:
            await self._may_announce.wait()
            self._may_announce.clear()
            if self._turn is not None and self.conversation_id:
                await self._announce_waiting()

    async def _announce_waiting(self) -> None:
        """Hand over what waits, in its order and as far as the server takes it."""
        for turn in [turn for turn in self._waiting if not turn.is_announced]:
            try:
                await turn.announce(self._client, self.conversation_id)
            except ParleyError:
                return  # it is asked for again in its turn, and told then if that fails, too

    async def _answer(self, turn: Turn) -> None:
        self._show_queue()
        if turn.text:
            turn.echo(self._terminal)
        self._view = RunView(LiveDisplay(self._terminal), was_queued=turn.was_queued)
        stream = turn.stream(self._client, self.conversation_id, self._view)
        try:
            ending = await self._follow(stream)
        except ParleyError as error:
            self._complain(call_failure(error, self._client.target, stream))
            return
        if ending is Ending.DETACHED:
            self._terminal.line(f"left alone; the run goes on, and this shows it: {self._way_back()}", Style.DIM)
        elif ending is Ending.STOPPED:
            self._terminal.line("stopped", Style.DIM)
        elif trouble := run_failure(stream) or shortfall(stream):
            self._complain(trouble)

    async def _follow(self, stream: RunStream) -> Ending:
        try:
            return await follow(stream, self, self._sigint)
        finally:
            self._questions.close()
            self._view.settle()

    def _way_back(self) -> str:
        return f"parley -r {self.conversation_id}" if self.conversation_id else "parley -c"

    def _complain(self, text: str) -> None:
        self._terminal.line(f"✗ {text}", Style.RED)

    def show(self, event: RunEvent) -> None:
        """Take the next event of the run that is followed."""
        if event.HasField("run_accepted"):
            self.conversation_id = event.conversation_id
            self._may_announce.set()
        self._view.show(event)
        self._questions.show(event)

    def interrupted(self) -> None:
        """Take the news that Ctrl-C was pressed."""
        self._view.interrupted()

    def could_not_cancel(self, error: ParleyError) -> None:
        """Take the news that the wish to stop did not reach the server."""
        self._view.could_not_cancel(error)

    def _show_queue(self) -> None:
        self._terminal.show_queued([turn.text for turn in self._waiting])
