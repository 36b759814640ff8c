"""`parley`: the conversation at the terminal."""

from typing import Protocol

from parley_client import ParleyClient, ParleyError

from parley_console.exit_codes import ExitCode
from parley_console.failure_text import call_failure, run_failure, shortfall
from parley_console.following import Ending, follow
from parley_console.greeting import greet
from parley_console.interrupts import Sigint, cancelling_this_task
from parley_console.outcome import exit_code_of_status
from parley_console.run_view import RunView
from parley_console.screen import Screen, Style
from parley_console.slash_commands import HELP, SlashCommand, slash_command


class Prompt(Protocol):
    """Where the user's lines come from."""

    async def read(self) -> str | None:
        """Return the next line; None when the user leaves."""


class Chat:
    """One sitting at the terminal: lines from `prompt`, answers to `screen`, one conversation until /new."""

    def __init__(self, client: ParleyClient, prompt: Prompt, screen: Screen) -> None:
        self._client = client
        self._prompt = prompt
        self._screen = screen
        self._sigint = Sigint()
        self._conversation_id = ""

    async def run(self) -> ExitCode:
        """Talk until the user leaves.

        Raises asyncio.CancelledError when Ctrl-C comes before the greeting.
        """
        with self._sigint.installed():
            try:
                with self._sigint.heard_by(cancelling_this_task()):
                    greet(await self._client.server_info(), self._screen)
            except ParleyError as error:
                self._complain(call_failure(error, self._client.target))
                return exit_code_of_status(error.code)
            while (line := await self._prompt.read()) is not None:
                if slash_command(line) is SlashCommand.QUIT:
                    break
                await self._answer(line)
            return ExitCode.OK

    async def _answer(self, line: str) -> None:
        match slash_command(line):
            case None if line.strip():
                await self._ask(line)
            case SlashCommand.HELP:
                self._screen.line(HELP)
            case SlashCommand.NEW:
                self._conversation_id = ""
                self._screen.line("a new conversation", Style.DIM)
            case SlashCommand.UNKNOWN:
                self._screen.line(f"there is no {line.strip()}; /help lists the commands", Style.DIM)
            case _:
                pass

    async def _ask(self, text: str) -> None:
        view = RunView(self._screen, self._screen, self._screen)
        stream = self._client.run(text, conversation_id=self._conversation_id, on_reconnect=view.reconnecting)
        try:
            ending = await follow(stream, view, self._sigint)
        except ParleyError as error:
            view.settle()
            self._complain(call_failure(error, self._client.target, stream))
            return
        finally:
            self._conversation_id = stream.conversation_id or self._conversation_id
        view.settle()
        if ending is Ending.DETACHED:
            self._screen.line(f"left alone; the run goes on: {stream.run_id or 'not accepted yet'}", Style.DIM)
        elif ending is Ending.STOPPED:
            self._screen.line("stopped", Style.DIM)
        elif trouble := run_failure(stream) or shortfall(stream):
            self._complain(trouble)

    def _complain(self, text: str) -> None:
        self._screen.line(f"✗ {text}", Style.RED)
