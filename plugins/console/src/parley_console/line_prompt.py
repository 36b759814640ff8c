"""The prompt: line editing, history, and Ctrl-C that does not quit by accident."""

import time
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from parley_console.history import open_history
from parley_console.interrupts import IdleAction, IdleInterrupts
from parley_console.screen import Screen, Style

PROMPT: Final = "you> "


class LinePrompt:
    """Reads the user's lines from the terminal; hints go to `screen`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._interrupts = IdleInterrupts()
        bindings = KeyBindings()
        bindings.add("c-c")(self._on_ctrl_c)
        self._session: PromptSession[str] = PromptSession(PROMPT, history=open_history(), key_bindings=bindings)

    async def read(self) -> str | None:
        """Return the next line; None when the user leaves."""
        try:
            # SIGINT is ours in every state; the terminal itself sends Ctrl-C as a key while the prompt is open.
            line = await self._session.prompt_async(handle_sigint=False)
        except EOFError:
            return None
        return line.encode(errors="replace").decode()  # bytes that were no UTF-8 cannot be sent

    async def _on_ctrl_c(self, event: KeyPressEvent) -> None:
        match self._interrupts.press(event.current_buffer.text, time.monotonic()):
            case IdleAction.CLEAR:
                event.current_buffer.reset()
            case IdleAction.HINT:
                await run_in_terminal(self._hint)
            case IdleAction.QUIT:
                event.app.exit(exception=EOFError())

    def _hint(self) -> None:
        self._screen.line("Ctrl-C once more, or Ctrl-D, leaves", Style.DIM)
