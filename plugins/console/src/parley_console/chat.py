"""`parley`: the conversation at the terminal."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from parley_client import Conversation, ParleyClient, ParleyError

from parley_console.account_commands import AccountCommands
from parley_console.approval_commands import ApprovalCommands
from parley_console.dialogue import Dialogue
from parley_console.exit_codes import ExitCode
from parley_console.failure_text import call_failure
from parley_console.interrupts import Sigint
from parley_console.outcome import exit_code_of_status
from parley_console.past import show_past
from parley_console.recent import last_conversation_id, list_conversations, recent_conversations
from parley_console.screen import Style
from parley_console.slash_commands import Invocation, SlashCommand, help_text, slash_command
from parley_console.terminal import Terminal
from parley_console.tool_commands import ToolCommands
from parley_console.usage_commands import show_usage


@dataclass(frozen=True, slots=True)
class Opening:
    """How a chat begins: in a new conversation, in the last one, in a given one, or in one that the user picks."""

    agent: str = ""
    continue_last: bool = False
    pick: bool = False
    conversation_id: str = ""


class Chat:
    """One sitting at the terminal: texts from it, answers to it, one conversation at a time."""

    def __init__(self, client: ParleyClient, terminal: Terminal, sigint: Sigint, opening: Opening) -> None:
        self._client = client
        self._terminal = terminal
        self._opening = opening
        self._dialogue = Dialogue(client, terminal, sigint, opening.agent)
        self._approvals = ApprovalCommands(client, terminal)
        self._tool_commands = ToolCommands(client, terminal, how="/tools settle NUMBER happened|not tells it")
        self._listed: list[Conversation] = []
        self._perform: Final[dict[SlashCommand, Callable[[str], Awaitable[None]]]] = {
            SlashCommand.HELP: self._help,
            SlashCommand.NEW: self._new,
            SlashCommand.CONVERSATIONS: self._conversations,
            SlashCommand.RESUME: self._resume,
            SlashCommand.AGENT: self._agent,
            SlashCommand.TOOLS: self._tools,
            SlashCommand.APPROVALS: self._approvals.obey,
            SlashCommand.ACCOUNT: AccountCommands(client, terminal).obey,
            SlashCommand.USAGE: self._usage,
        }

    async def run(self) -> ExitCode:
        """Talk until the user leaves."""
        try:
            await self._open()
        except ParleyError as error:
            self._complain(error)
            return exit_code_of_status(error.code)
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(self._dialogue.perform()), tasks.create_task(self._dialogue.announce())]
            await self._read_to_the_end()
            for worker in workers:
                worker.cancel()
        return ExitCode.OK

    def farewell(self) -> None:
        """Say what goes on and how to come back; for after the terminal is closed."""
        if self._dialogue.unannounced:
            self._terminal.line(f"{self._dialogue.unannounced} message(s) were not sent", Style.YELLOW)
        if self._dialogue.conversation_id:
            self._terminal.line(f"go on with: parley -r {self._dialogue.conversation_id}", Style.DIM)

    async def _read_to_the_end(self) -> None:
        while (text := await self._terminal.read()) is not None:
            invocation = slash_command(text)
            if invocation is None:
                if text.strip():
                    self._dialogue.send(text.rstrip())
            elif invocation.command is SlashCommand.QUIT:
                return
            else:
                await self._obey(invocation)

    async def _obey(self, invocation: Invocation) -> None:
        if invocation.command is SlashCommand.UNKNOWN:
            self._note(f"there is no {invocation.word}; /help lists the commands")
            return
        try:
            await self._perform[invocation.command](invocation.argument)
        except ParleyError as error:
            self._complain(error)

    async def _open(self) -> None:
        opening = self._opening
        conversation_id = opening.conversation_id
        if opening.pick:
            conversation_id = await self._picked()
        elif opening.continue_last:
            conversation_id = await last_conversation_id(self._client)
        if conversation_id:
            await self._go_on_with(conversation_id)
        elif opening.pick or opening.continue_last:
            self._note("a new conversation")

    async def _help(self, _argument: str) -> None:
        self._terminal.line(help_text())

    async def _new(self, _argument: str) -> None:
        if self._is_free():
            self._dialogue.move_to("")
            self._note("a new conversation")

    async def _conversations(self, _argument: str) -> None:
        self._listed = await recent_conversations(self._client)
        list_conversations(self._listed, self._terminal, datetime.now(UTC))

    async def _resume(self, chosen: str) -> None:
        if not self._is_free():
            return
        conversation_id = self._named(chosen) if chosen else await self._picked()
        if conversation_id and self._is_free():
            await self._go_on_with(conversation_id)

    async def _picked(self) -> str:
        """Let the user pick one of the latest conversations; empty when he picks none."""
        await self._conversations("")
        if not self._listed:
            return ""
        return self._named(await self._terminal.ask("number or id, empty for none> "))

    def _named(self, chosen: str) -> str:
        """Return the id of a conversation that was chosen by its number in the last list, or by its id."""
        listed = chosen.isascii() and chosen.isdigit() and 1 <= int(chosen) <= len(self._listed)
        return self._listed[int(chosen) - 1].conversation_id if listed else chosen

    async def _go_on_with(self, conversation_id: str) -> None:
        title = (await self._client.conversations.get(conversation_id)).title
        self._note(f"going on with {conversation_id}  {title}")
        under_way = await show_past(self._client, conversation_id, self._terminal)
        self._dialogue.move_to(conversation_id)
        self._dialogue.take(under_way)

    async def _agent(self, agent_id: str) -> None:
        agents = await self._client.agents()
        if agent_id:
            if agent_id in {agent.agent_id for agent in agents}:
                self._dialogue.agent = agent_id
                self._note(f"talking to {agent_id} from the next message on")
            else:
                self._note(f"there is no agent {agent_id}; /agent lists them")
            return
        for agent in agents:
            mark = "*" if agent.agent_id == self._dialogue.agent else " "
            self._terminal.line(f"{mark} {agent.agent_id:<20} {agent.description or agent.display_name}")

    async def _usage(self, _argument: str) -> None:
        await show_usage(self._client, self._terminal)

    async def _tools(self, argument: str) -> None:
        await self._tool_commands.obey(argument, self._dialogue.agent)

    def _is_free(self) -> bool:
        if self._dialogue.is_busy:
            self._note("an answer is under way: wait for it, or stop it with Ctrl-C")
        return not self._dialogue.is_busy

    def _note(self, text: str) -> None:
        self._terminal.line(text, Style.DIM)

    def _complain(self, error: ParleyError) -> None:
        self._terminal.line(f"✗ {call_failure(error, self._client.target)}", Style.RED)
