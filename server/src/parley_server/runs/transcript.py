"""What a run has said so far, folded from its events: what is open, what is finished, what was consumed."""

import json
from collections import defaultdict
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class _OpenItem:
    """An item whose `message_completed` has not come yet."""

    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    reasoning_text: str = ""

    def closing_events(self) -> list[EventBody]:
        """Return what ends the item as it stands: cut."""
        completed = MessageCompleted("".join(self.texts), incomplete=True)
        if self.reasonings and not self.reasoning_text:
            return [ReasoningCompleted("".join(self.reasonings)), completed]
        return [completed]


class RunTranscript:
    """Fold events with `observe`, in order; the same whether they are being written or read back after a crash."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._open: defaultdict[str, _OpenItem] = defaultdict(_OpenItem)
        self._calls: dict[str, tuple[str, ToolCallStarted]] = {}
        # In the order the items were opened, which is the order the next turn's model reads them in.
        self._items: dict[str, FinishedItem | None] = {}
        self._output = FinishedItem("", AssistantItem(""))

    def observe(self, body: EventBody, item_id: str) -> None:
        """Take in one event."""
        if item_id:
            self._items.setdefault(item_id, None)
        match body:
            case TextDelta(text):
                self._open[item_id].texts.append(text)
            case ReasoningDelta(text):
                self._open[item_id].reasonings.append(text)
            case ReasoningCompleted(text):
                self._open[item_id].reasoning_text = text
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
        """Return the events that close everything that is open: cut items, and calls without a result."""
        items = [(body, item_id) for item_id, item in self._open.items() for body in item.closing_events()]
        calls = [(_unanswered(started), item_id) for item_id, started in self._calls.values()]
        return [*items, *calls]

    def conclusion(self, end: RunEnd) -> RunConclusion:
        """Return what the run's last transaction writes."""
        output = self._output.item
        return RunConclusion(
            end=end,
            usage=self._usage,
            items=tuple(item for item in self._items.values() if item is not None),
            output_item_id=self._output.message_id,
            output_text=output.text if isinstance(output, AssistantItem) else "",
        )

    def _complete_message(self, body: MessageCompleted, item_id: str) -> None:
        reasoning_text = self._open.pop(item_id, _OpenItem()).reasoning_text
        item = AssistantItem(body.text, refusal=body.refusal, reasoning_text=reasoning_text)
        self._output = FinishedItem(item_id, item, body.incomplete)
        self._items[item_id] = self._output

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
        self._items[item_id] = FinishedItem(item_id, item)


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
