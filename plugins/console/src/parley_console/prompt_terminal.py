"""The chat's terminal: prompt_toolkit keeps the prompt open while answers are written above it."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples

from parley_console.aside import Aside
from parley_console.frame_output import FrameOutput
from parley_console.history import open_history
from parley_console.interrupts import Sigint
from parley_console.key_bindings import chat_keys
from parley_console.reflow import added_rows, reflows
from parley_console.screen import Style, dressed, printable, wants_colours
from parley_console.slash_completion import SlashCompleter
from parley_console.word_wrap import last_rows

PROMPT: Final = "you> "
_QUEUED: Final = "ansibrightblack"
_CHOICES: Final = "bold"
_MAX_LIVE_ROWS: Final = 6
_ROWS_FOR_TYPING: Final = 3
_FRAME_S: Final = 0.03
_ESCAPE_S: Final = 0.3


class PromptTerminal:
    """A terminal with a prompt, open for the length of an `async with`; lines may be written before and after, too.

    What is above the live area is written once and never touched again, so the terminal's scrollback stays whole.
    """

    def __init__(self, sigint: Sigint) -> None:
        self._output = FrameOutput.on(sys.stdout)
        self._size = self._output.get_size()
        self._colours = wants_colours(os.environ)
        self._sent: asyncio.Queue[str | None] = asyncio.Queue()
        self._above: list[str] = []
        self._live = ""
        self._queued: list[str] = []
        self._prompt = PROMPT
        self._aside = Aside(self._redraw)
        self._session = self._new_session(sigint)
        self._running: asyncio.Task[str] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._session.prompt_async(handle_sigint=False, pre_run=self._when_running))
        self._running.add_done_callback(lambda _: self._sent.put_nowait(None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is None:
            return
        if self._app.is_running and not self._app.is_done:
            self._app.exit(exception=EOFError())
        try:
            await self._running
        except EOFError:
            return  # the user, or the lines above

    async def read(self) -> str | None:
        """Return the next text that was sent; None once the user has left."""
        text = await self._sent.get()
        return None if text is None else _utf8(text)

    async def ask(self, question: str) -> str:
        """Return what was typed at a prompt of its own; empty when the user has left."""
        self._prompt = question
        self._app.invalidate()
        try:
            answer = await self.read()
        finally:
            self._prompt = PROMPT
            self._app.invalidate()
        if answer is None:
            self._sent.put_nowait(None)  # for the reader of the lines, too
        return (answer or "").strip()

    async def choose(self, choices: str, keys: str) -> str:
        """Return which of the keys is pressed; what the user has typed by then stays his message."""
        return await self._aside.choose(choices, keys)

    async def ask_aside(self, question: str) -> str | None:
        """Return the next line, which goes to nobody else; None when Ctrl-C or Esc takes the answer back."""
        try:
            return await self._aside.ask(question)
        finally:
            self._session.default_buffer.reset()  # half an answer is no message

    def send(self, text: str) -> None:
        """Take a text that is ready."""
        if self._aside.question:
            self._aside.send(_utf8(text))
        else:
            self._sent.put_nowait(text)

    def warn_of_leaving(self) -> None:
        """Say what a second Ctrl-C would do."""
        self.line("Ctrl-C once more, or Ctrl-D, leaves", Style.DIM)

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """Write whole lines above the prompt."""
        shown = printable(text)
        self._write(dressed(shown, style) if self._colours else shown)

    def markdown(self, source: str) -> None:
        """Write a finished block above the prompt."""
        from parley_console.markdown_rendering import render_block  # noqa: PLC0415 - rich comes with the first answer

        self._write(render_block(source, self._output.get_size().columns, colours=self._colours))

    def show_live(self, text: str) -> None:
        """Show the end of `text` below the lines that stay."""
        self._live = text
        self._app.invalidate()

    def show_queued(self, texts: Sequence[str]) -> None:
        """Show a line for each text that waits."""
        self._queued = [" ".join(printable(text).split()) for text in texts]
        self._app.invalidate()

    @property
    def _app(self) -> Application[str]:
        return self._session.app

    def _redraw(self) -> None:
        self._app.invalidate()

    def _new_session(self, sigint: Sigint) -> PromptSession[str]:
        is_command = Condition(lambda: session.default_buffer.text.startswith("/"))
        session: PromptSession[str] = PromptSession(
            self._message,
            multiline=True,
            prompt_continuation=lambda width, _line, _wrap: "…".rjust(width - 1) + " ",
            history=open_history(),
            completer=SlashCompleter(),
            complete_while_typing=is_command,
            reserve_space_for_menu=6,
            key_bindings=chat_keys(self, sigint, self._aside),
            erase_when_done=True,
            output=self._output,
        )
        session.default_buffer.on_text_changed += lambda _: self._aside.touched()
        session.app.min_redraw_interval = _FRAME_S
        session.app.timeoutlen = _ESCAPE_S
        session.app.terminal_size_polling_interval = None  # SIGWINCH tells
        session.app.before_render += self._begin_frame
        session.app.after_render += lambda _: self._output.release()
        return session

    def _when_running(self) -> None:
        """Take SIGWINCH over, as soon as the application has taken it."""
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.add_signal_handler(signal.SIGWINCH, self._app.invalidate))

    def _write(self, text: str) -> None:
        self._above.append(text + "\n")
        if self._running is None or self._running.done():
            self._flush_above()
            self._output.flush()
        else:
            self._app.invalidate()

    def _begin_frame(self, _: Application[str]) -> None:
        """Begin a frame: erase the one before where it is in the way, and write what stays."""
        self._output.hold()
        size = self._output.get_size()
        if self._above or size != self._size:
            self._erase(size.columns)
            self._flush_above()
        self._size = size

    def _erase(self, columns: int) -> None:
        renderer = self._app.renderer
        drawn = renderer.last_rendered_screen
        if drawn is not None and columns < self._size.columns and reflows():
            cursor = drawn.get_cursor_position(self._app.layout.current_window)
            self._output.cursor_up(added_rows(drawn, cursor, columns))
        renderer.erase(leave_alternate_screen=False)

    def _flush_above(self) -> None:
        self._output.write_raw("".join(self._above).replace("\n", "\r\n"))
        self._above.clear()

    def _message(self) -> StyleAndTextTuples:
        """Return what stands before what is being typed: the live area, what waits, and the prompt."""
        rows, columns = self._output.get_size()
        queued = self._queued[: max(0, rows - _ROWS_FOR_TYPING)]
        aside = last_rows(self._aside.row(self._session.default_buffer.text), columns, _MAX_LIVE_ROWS)
        most = min(_MAX_LIVE_ROWS, rows - _ROWS_FOR_TYPING - len(queued) - len(aside))
        live = [("", row + "\n") for row in last_rows(printable(self._live), columns, most)]
        waiting = [(_QUEUED, f"queued: {text}"[:columns] + "\n") for text in queued]
        choices = [(_CHOICES, row + "\n") for row in aside]
        return [*live, *waiting, *choices, ("", self._aside.question or self._prompt)]


def _utf8(text: str) -> str:
    """Replace bytes that were no UTF-8, which cannot be sent."""
    return text.encode(errors="replace").decode()
