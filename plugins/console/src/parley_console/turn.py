"""One message of the user's and the run that answers it."""

import uuid
from dataclasses import dataclass, field

from parley_client import ParleyClient, RunStream

from parley_console.run_view import RunView
from parley_console.terminal import Terminal


@dataclass(slots=True)
class Turn:
    """A message from the moment it was typed; `run_id` is set when its run was there before.

    The request id makes it one run, however often the server is asked for it.
    """

    text: str
    agent: str = ""
    run_id: str = ""
    was_queued: bool = False
    is_announced: bool = False
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def announce(self, client: ParleyClient, conversation_id: str) -> None:
        """Let the server queue the run behind the one that is under way. Raises ParleyError."""
        if not self.run_id:
            await client.start(self.text, agent=self.agent, conversation_id=conversation_id, request_id=self.request_id)
        self.is_announced = True

    def stream(self, client: ParleyClient, conversation_id: str, view: RunView) -> RunStream:
        """Return the run's events from the first, whether the server knows of the run already or not."""
        if self.run_id:
            return client.watch(self.run_id, on_reconnect=view.reconnecting)
        return client.run(
            self.text,
            agent=self.agent,
            conversation_id=conversation_id,
            request_id=self.request_id,
            on_reconnect=view.reconnecting,
        )

    def echo(self, terminal: Terminal) -> None:
        """Write what was typed where its answer will follow."""
        first, *others = self.text.split("\n")
        terminal.line("\n".join([f"you> {first}", *(f"     {line}" for line in others)]))
