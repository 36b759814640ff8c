"""Shows a run as a stream of plain text: what pipes and `parley ask` get."""

from parley.v1.usage_pb2 import Usage

from parley_console.screen import Screen, Style


class PlainDisplay:
    """Writes the answer to one screen, what happens beside it to another, and what is amiss to a third.

    They may be the same terminal; lines never run into each other there.
    """

    def __init__(self, answer: Screen, progress: Screen, errors: Screen) -> None:
        self._answer = answer
        self._progress = progress
        self._errors = errors
        self._open_call_id = ""
        self._open_call = ""
        self._told_progress = False

    def text(self, text: str) -> None:
        """Write it at once."""
        self._close_call()
        self._answer.write(text)

    def end_text(self) -> None:
        """End the answer's line."""
        self._answer.end_line()

    def call_started(self, call_id: str, call: str) -> None:
        """Begin a line that the result will end."""
        self._make_room()
        self._open_call_id, self._open_call = call_id, f"⚙ {call}"
        self._progress.write(self._open_call, Style.DIM)

    def call_progress(self, call_id: str, progress: str) -> None:
        """Write the call's line anew where a terminal has it open; elsewhere what was written cannot be changed."""
        if self._open_call_id == call_id and self._progress.can_rewrite(self._open_call):
            self._progress.rewrite(f"{self._open_call} … {progress}".rstrip(), Style.DIM)
            self._told_progress = True

    def call_finished(self, call_id: str, call: str, result: str, *, worked: bool) -> None:
        """End the call's line, or write one when others came between."""
        if self._open_call_id != call_id:
            self.call_started(call_id, call)
        self._forget_progress()
        self._progress.write(" → " if worked else " ✗ ", Style.DIM)
        self._progress.write(result, Style.DIM if worked else Style.RED)
        self._progress.write("\n")
        self._open_call_id = ""

    def note(self, text: str, style: Style = Style.DIM) -> None:
        """Write the line beside the answer."""
        self._make_room()
        self._progress.line(text, style)

    def amiss(self, text: str) -> None:
        """Write the line to the errors."""
        self._make_room()
        self._errors.line(text, Style.RED)

    def interrupted(self) -> None:
        """Go below the `^C` that the terminal wrote."""
        self._close_call()
        (self._answer if self._answer.is_terminal else self._progress).disturb()

    def settle(self) -> None:
        """End the line that is open on either screen."""
        self._close_call()
        self._answer.end_line()

    def used(self, usage: Usage) -> None:
        """Say nothing: --json tells it."""

    def _make_room(self) -> None:
        """Go to a fresh line before something is written beside the answer; a pipe has no beside."""
        self._close_call()
        if self._answer.is_terminal:
            self._answer.end_line()

    def _close_call(self) -> None:
        """Leave a call that is still under way on a line of its own."""
        if self._open_call_id:
            self._forget_progress()
            self._progress.write(" …\n", Style.DIM)
        self._open_call_id = ""

    def _forget_progress(self) -> None:
        if self._told_progress:
            self._progress.rewrite(self._open_call, Style.DIM)
            self._told_progress = False
