"""What a run has said so far, folded from its events: what is open, what is finished, what was consumed."""

import json

from parley_server.domain.message import AssistantItem, ToolCallItem
from parley_server.domain.run import RunEnd
from parley_server.domain.run_event import (
    EventBody,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageUpdated,
)
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import FinishedItem, RunConclusion


class RunTranscript:
    """Fold events with `observe`, in order; the same whether they are being written or read back after a crash."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._texts: dict[str, list[str]] = {}
        self._reasonings: dict[str, list[str]] = {}
        self._reasoning = ""
        self._calls: dict[str, tuple[str, ToolCallStarted]] = {}
        self._finished: list[FinishedItem] = []
        self._output = FinishedItem("", AssistantItem(""))

    def observe(self, body: EventBody, item_id: str) -> None:
        """Take in one event."""
        match body:
            case TextDelta(text):
                self._texts.setdefault(item_id, []).append(text)
            case ReasoningDelta(text):
                self._reasonings.setdefault(item_id, []).append(text)
            case ReasoningCompleted(text):
                self._reasonings.pop(item_id, None)
                self._reasoning = text
            case MessageCompleted():
                self._complete_message(body, item_id)
            case ToolCallStarted(call_id):
                self._calls[call_id] = (item_id, body)
            case ToolCallFinished():
                self._finish_call(body)
            case UsageUpdated(usage):
                self._usage = usage
            case _:
                pass

    def closing_events(self) -> list[tuple[EventBody, str]]:
        """Return the events that close everything that is open: cut texts, and calls without a result."""
        reasonings = [(ReasoningCompleted("".join(parts)), item_id) for item_id, parts in self._reasonings.items()]
        texts = [(MessageCompleted("".join(parts), incomplete=True), item_id) for item_id, parts in self._texts.items()]
        calls = [(_unanswered(started), item_id) for item_id, started in self._calls.values()]
        return [*reasonings, *texts, *calls]

    def conclusion(self, end: RunEnd) -> RunConclusion:
        """Return what the run's last transaction writes."""
        output = self._output.item
        return RunConclusion(
            end=end,
            usage=self._usage,
            items=tuple(self._finished),
            output_item_id=self._output.message_id,
            output_text=output.text if isinstance(output, AssistantItem) else "",
        )

    def _complete_message(self, body: MessageCompleted, item_id: str) -> None:
        self._texts.pop(item_id, None)
        item = AssistantItem(body.text, refusal=body.refusal, reasoning_text=self._reasoning)
        self._reasoning = ""
        self._output = FinishedItem(item_id, item, body.incomplete)
        self._finished.append(self._output)

    def _finish_call(self, body: ToolCallFinished) -> None:
        item_id, started = self._calls.pop(body.call_id)
        item = ToolCallItem(
            call_id=body.call_id,
            name=started.name,
            arguments_json=started.arguments_json,
            effect=started.effect,
            status=body.status,
            result_json=body.result_json,
            truncated=body.truncated,
        )
        self._finished.append(FinishedItem(item_id, item))


def _unanswered(started: ToolCallStarted) -> ToolCallFinished:
    """Say what is known of a call that never reported: a WRITE may have happened, others count as cancelled."""
    if started.effect is ToolEffect.WRITE:
        status, code = ToolCallStatus.UNKNOWN_OUTCOME, "unknown_outcome"
        message = "the run was cut while the tool was at work; it may or may not have taken effect"
    else:
        status, code, message = ToolCallStatus.CANCELLED, "cancelled", "the run was cut before the tool answered"
    error = {"code": code, "message": message, "retryable": False}
    return ToolCallFinished(
        call_id=started.call_id,
        name=started.name,
        status=status,
        result_json=json.dumps({"ok": False, "error": error}, separators=(",", ":")),
        error_code=code,
        error_message=message,
    )
