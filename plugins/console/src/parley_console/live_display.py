"""Shows a run in a chat: what is finished stays, what is not is drawn anew."""

from parley.v1.usage_pb2 import Usage

from parley_console.markdown_blocks import MarkdownBlocks
from parley_console.screen import Style, printable
from parley_console.terminal import Terminal
from parley_console.usage_line import usage_text


class LiveDisplay:
    """Writes every finished block of an answer and every finished tool call once; the rest is live."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._blocks = MarkdownBlocks()
        self._has_block = False
        self._open_calls: dict[str, str] = {}
        self._progress: dict[str, str] = {}

    def text(self, text: str) -> None:
        """Write the blocks that the text finishes; show the end of the one that is open."""
        self._write(self._blocks.add(printable(text)))
        self._refresh()

    def end_text(self) -> None:
        """Write the blocks that are left."""
        self._write(self._blocks.finish())
        self._has_block = False
        self._refresh()

    def call_started(self, call_id: str, call: str) -> None:
        """Show that the call is under way."""
        self._open_calls[call_id] = call
        self._refresh()

    def call_progress(self, call_id: str, progress: str) -> None:
        """Show how far the call is until it tells more or ends."""
        self._progress[call_id] = progress
        self._refresh()

    def call_finished(self, call_id: str, call: str, result: str, *, worked: bool) -> None:
        """Write the call and its result."""
        self._open_calls.pop(call_id, None)
        self._progress.pop(call_id, None)
        self._terminal.line(f"⚙ {call} {'→' if worked else '✗'} {result}", Style.DIM if worked else Style.RED)
        self._refresh()

    def note(self, text: str, style: Style = Style.DIM) -> None:
        """Write the line."""
        self._terminal.line(text, style)

    def amiss(self, text: str) -> None:
        """Write the line."""
        self._terminal.line(text, Style.RED)

    def interrupted(self) -> None:
        """Do nothing: a terminal in raw mode writes no `^C`."""

    def settle(self) -> None:
        """Write what is left of the text; leave the calls that never ended on lines of their own."""
        self.end_text()
        for call in self._open_calls.values():
            self._terminal.line(f"⚙ {call} …", Style.DIM)
        self._open_calls.clear()
        self._progress.clear()
        self._refresh()

    def used(self, usage: Usage) -> None:
        """Write what the run has used."""
        if text := usage_text(usage):
            self._terminal.line(text, Style.DIM)

    def _write(self, blocks: list[str]) -> None:
        for source in blocks:
            if not source.strip():
                continue
            if self._has_block:
                self._terminal.line()
            self._terminal.markdown(source)
            self._has_block = True

    def _refresh(self) -> None:
        calls = [f"⚙ {call} … {self._progress.get(call_id, '')}".rstrip() for call_id, call in self._open_calls.items()]
        rest = self._blocks.rest.rstrip()
        gap = "\n" if rest and self._has_block else ""  # where it will stand once it is finished
        self._terminal.show_live(gap + "\n".join([rest] * bool(rest) + calls))
