"""Tells a display what the events of a run mean to its reader."""

from collections.abc import Callable
from typing import Final

from parley.v1.run_event_pb2 import (
    ApprovalRequested,
    ApprovalResolved,
    MessageCompleted,
    RunEvent,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
)
from parley.v1.tool_pb2 import TOOL_CALL_STATUS_OK
from parley_client import ParleyError

from parley_console.approval_text import outcome_text
from parley_console.run_display import RunDisplay
from parley_console.screen import Style
from parley_console.tool_line import call_text, progress_text, result_text
from parley_console.visible_text import visible


class RunView:
    """Follows one run's events; with `was_queued` its reader knows already that it had to wait."""

    def __init__(self, display: RunDisplay, *, was_queued: bool = False) -> None:
        self._display = display
        self._was_queued = was_queued
        self._item_id = ""
        self._written: dict[str, int] = {}
        self._calls: dict[str, ToolCallStarted] = {}
        self._reconnecting = False
        self._stopping = False
        self._show_kind: Final[dict[str, Callable[[RunEvent], None]]] = {
            "run_accepted": self._accepted,
            "text_delta": lambda event: self._text(event.item_id, event.text_delta.text),
            "message_completed": lambda event: self._completed(event.item_id, event.message_completed),
            "tool_call_started": lambda event: self._call_started(event.tool_call_started),
            "tool_call_progress": lambda event: self._call_progress(event.tool_call_progress),
            "tool_call_finished": lambda event: self._call_finished(event.tool_call_finished),
            "approval_requested": lambda event: self._approval_requested(event.approval_requested),
            "approval_resolved": lambda event: self._approval_resolved(event.approval_resolved),
            "attempt_restarted": self._restarted,
            "history_compacted": lambda _event: self._note("earlier messages were summarized"),
            "warning": lambda event: self._note(f"{event.warning.reason}: {event.warning.message}", Style.YELLOW),
            "run_finished": self._finished,
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
        self._display.interrupted()
        if not self._stopping:
            self._stopping = True
            self._note("stopping…")

    def could_not_cancel(self, error: ParleyError) -> None:
        """Say that the wish to stop did not reach the server."""
        self._display.amiss(_one_line(f"the run could not be cancelled: {error}"))

    def settle(self) -> None:
        """Leave nothing half shown."""
        self._display.settle()

    def _accepted(self, event: RunEvent) -> None:
        if event.run_accepted.queue_position and not self._was_queued:
            self._note(f"waiting for {event.run_accepted.queue_position} earlier run(s) of this conversation")

    def _text(self, item_id: str, text: str) -> None:
        if item_id != self._item_id:
            self._display.end_text()
            self._item_id = item_id
        self._display.text(text)
        self._written[item_id] = self._written.get(item_id, 0) + len(text)

    def _completed(self, item_id: str, message: MessageCompleted) -> None:
        # Deltas that were folded away before we attached are in the whole text alone.
        missing = message.text[self._written.get(item_id, 0) :]
        if missing:
            self._text(item_id, missing)
        self._display.end_text()
        if message.refusal:
            self._display.amiss(_one_line(f"the model refused: {message.refusal}"))

    def _call_started(self, call: ToolCallStarted) -> None:
        self._calls[call.call_id] = call
        self._display.call_started(call.call_id, call_text(call.name, call.arguments_json))

    def _call_progress(self, progress: ToolCallProgress) -> None:
        if progress.call_id in self._calls:
            self._display.call_progress(progress.call_id, progress_text(progress))

    def _call_finished(self, finished: ToolCallFinished) -> None:
        call = self._calls.get(finished.call_id, ToolCallStarted(name=finished.name, arguments_json="{}"))
        self._display.call_finished(
            finished.call_id,
            call_text(call.name, call.arguments_json),
            result_text(finished, call.arguments_json),
            worked=finished.status == TOOL_CALL_STATUS_OK,
        )

    def _approval_requested(self, asked: ApprovalRequested) -> None:
        self._display.call_progress(asked.call_id, "waits for your approval")

    def _approval_resolved(self, resolved: ApprovalResolved) -> None:
        self._display.call_progress(resolved.call_id, "")
        name = self._calls.get(resolved.call_id, ToolCallStarted()).name
        self._note(f"{visible(name)} {outcome_text(resolved.state, resolved.reason)}".lstrip())

    def _restarted(self, event: RunEvent) -> None:
        discarded = set(event.attempt_restarted.discarded_item_ids)
        begun = discarded & self._written.keys()
        for item_id in discarded:
            self._written.pop(item_id, None)
        if self._item_id in discarded:
            self._item_id = ""  # under the same id or another, what comes is a new text
            self._display.end_text()
        self._note("the run was taken up again" + ("; the answer begins anew" if begun else ""))

    def _finished(self, event: RunEvent) -> None:
        self._display.settle()
        self._display.used(event.run_finished.usage)

    def _note(self, text: str, style: Style = Style.DIM) -> None:
        self._display.note(_one_line(text), style)


def _one_line(text: str) -> str:
    return " ".join(text.split())
