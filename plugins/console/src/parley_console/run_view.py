"""Shows a run while it goes on."""

from collections.abc import Callable
from typing import Final

from parley.v1.run_event_pb2 import MessageCompleted, RunEvent, ToolCallFinished, ToolCallStarted
from parley.v1.tool_pb2 import TOOL_CALL_STATUS_OK
from parley_client import ParleyError

from parley_console.screen import Screen, Style
from parley_console.tool_line import call_text, result_text


class RunView:
    """Writes the answer to one screen, what happens beside it to another, and what is amiss to a third.

    They may be the same terminal; lines never run into each other there.
    """

    def __init__(self, answer: Screen, progress: Screen, errors: Screen) -> None:
        self._answer = answer
        self._progress = progress
        self._errors = errors
        self._item_id = ""
        self._written: dict[str, int] = {}
        self._calls: dict[str, ToolCallStarted] = {}
        self._open_call_id = ""
        self._reconnecting = False
        self._stopping = False
        self._show_kind: Final[dict[str, Callable[[RunEvent], None]]] = {
            "run_accepted": self._accepted,
            "text_delta": lambda event: self._text(event.item_id, event.text_delta.text),
            "message_completed": lambda event: self._completed(event.item_id, event.message_completed),
            "tool_call_started": lambda event: self._call_started(event.tool_call_started),
            "tool_call_finished": lambda event: self._call_finished(event.tool_call_finished),
            "approval_requested": self._approval_requested,
            "attempt_restarted": self._restarted,
            "warning": lambda event: self._note(f"{event.warning.reason}: {event.warning.message}", Style.YELLOW),
            "run_finished": lambda _: self.settle(),
        }

    def show(self, event: RunEvent) -> None:
        """Show the run's next event; kinds that mean nothing to a reader are passed by."""
        self._reconnecting = False
        kind = event.WhichOneof("event")
        if kind in self._show_kind:
            self._show_kind[kind](event)

    def reconnecting(self, error: ParleyError, delay_s: float) -> None:  # noqa: ARG002 - the client's listener
        """Say once per break that the connection is lost."""
        if not self._reconnecting:
            self._reconnecting = True
            self._note("reconnecting…")

    def interrupted(self) -> None:
        """Say that Ctrl-C was heard."""
        self._close_call()
        (self._answer if self._answer.is_terminal else self._progress).disturb()
        if not self._stopping:
            self._stopping = True
            self._note("stopping…")

    def could_not_cancel(self, error: ParleyError) -> None:
        """Say that the wish to stop did not reach the server."""
        self._amiss(f"the run could not be cancelled: {error}")

    def settle(self) -> None:
        """End the line that is open on either screen."""
        self._close_call()
        self._answer.end_line()

    def _accepted(self, event: RunEvent) -> None:
        if event.run_accepted.queue_position:
            self._note(f"waiting for {event.run_accepted.queue_position} earlier run(s) of this conversation")

    def _text(self, item_id: str, text: str) -> None:
        self._close_call()
        if item_id != self._item_id:
            self._answer.end_line()
            self._item_id = item_id
        self._answer.write(text)
        self._written[item_id] = self._written.get(item_id, 0) + len(text)

    def _completed(self, item_id: str, message: MessageCompleted) -> None:
        # Deltas that were folded away before we attached are in the whole text alone.
        missing = message.text[self._written.get(item_id, 0) :]
        if missing:
            self._text(item_id, missing)
        if message.refusal:
            self._amiss(f"the model refused: {message.refusal}")

    def _call_started(self, call: ToolCallStarted) -> None:
        self._calls[call.call_id] = call
        self._make_room()
        self._progress.write(f"⚙ {call_text(call.name, call.arguments_json)}", Style.DIM)
        self._open_call_id = call.call_id

    def _call_finished(self, finished: ToolCallFinished) -> None:
        call = self._calls.get(finished.call_id, ToolCallStarted(name=finished.name, arguments_json="{}"))
        if self._open_call_id != finished.call_id:
            self._make_room()
            self._progress.write(f"⚙ {call_text(call.name, call.arguments_json)}", Style.DIM)
        worked = finished.status == TOOL_CALL_STATUS_OK
        self._progress.write(" → " if worked else " ✗ ", Style.DIM)
        self._progress.write(result_text(finished, call.arguments_json), Style.DIM if worked else Style.RED)
        self._progress.write("\n")
        self._open_call_id = ""

    def _approval_requested(self, event: RunEvent) -> None:
        asked = event.approval_requested
        self._note(f"{call_text(asked.tool_name, asked.arguments_json)} waits for your approval", Style.YELLOW)

    def _restarted(self, event: RunEvent) -> None:
        discarded = set(event.attempt_restarted.discarded_item_ids)
        begun = discarded & self._written.keys()
        for item_id in discarded:
            self._written.pop(item_id, None)
        if self._item_id in discarded:
            self._item_id = ""  # under the same id or another, what comes is a new text
        self._note("the run was taken up again" + ("; the answer begins anew" if begun else ""))

    def _note(self, text: str, style: Style = Style.DIM) -> None:
        self._make_room()
        self._progress.line(" ".join(text.split()), style)

    def _amiss(self, text: str) -> None:
        self._make_room()
        self._errors.line(" ".join(text.split()), Style.RED)

    def _make_room(self) -> None:
        """Go to a fresh line before something is written beside the answer; a pipe has no beside."""
        self._close_call()
        if self._answer.is_terminal:
            self._answer.end_line()

    def _close_call(self) -> None:
        """Leave a call that is still under way on a line of its own."""
        if self._open_call_id:
            self._progress.write(" …\n", Style.DIM)
        self._open_call_id = ""
