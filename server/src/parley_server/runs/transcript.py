"""What a run has said so far, folded from its events: what is open, what is finished, what was consumed."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from parley_server.domain.approval import ApprovalState
from parley_server.domain.message import AssistantItem, Message, SummaryItem, ToolCallItem, UserItem
from parley_server.domain.run import Run, RunEnd
from parley_server.domain.run_event import (
    OUTPUT_INVALID,
    ApprovalRequested,
    ApprovalResolved,
    AttemptRestarted,
    EventBody,
    HistoryCompacted,
    ItemEvent,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    RunStarted,
    SteerApplied,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageUpdated,
    Warned,
)
from parley_server.domain.tool import CallRecord, CallState, ToolCall, ToolEffect, UnansweredCall
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import FinishedItem, RunConclusion
from parley_server.tools.errors import CallCancelledError, ToolError, UnknownOutcomeError
from parley_server.tools.results import failed_result, finished_event


@dataclass(slots=True)
class _OpenItem:
    """An item whose `message_completed` has not come yet."""

    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    reasoning_text: str = ""

    def reason(self, body: ReasoningDelta | ReasoningCompleted) -> None:
        """Take in reasoning, piece by piece or whole."""
        if isinstance(body, ReasoningCompleted):
            self.reasoning_text = body.text
        else:
            self.reasonings.append(body.text)

    def closing_events(self) -> list[EventBody]:
        """Return what ends the item as it stands: cut."""
        completed = MessageCompleted("".join(self.texts), incomplete=True)
        if self.reasonings and not self.reasoning_text:
            return [ReasoningCompleted("".join(self.reasonings)), completed]
        return [completed]


def dispatched_of(calls: Iterable[CallRecord]) -> list[str]:
    """Return the ids of the calls that may have taken effect."""
    return [record.call_id for record in calls if record.state is CallState.DISPATCHED]


class RunTranscript:
    """Fold events with `observe`, in order; the same whether they are being written or read back after a crash."""

    def __init__(self) -> None:
        self.usage = Usage()
        # How many attempts have begun since an item was completed; 0 before the first.
        self.fruitless_attempts = 0
        self.is_begun = False
        # The reasons of all warnings.
        self.warned: set[str] = set()
        self._open: defaultdict[str, _OpenItem] = defaultdict(_OpenItem)
        self._calls: dict[str, tuple[str, ToolCallStarted]] = {}
        # What was called since the user's last words, by the answer of the model that called it.
        self._turns: defaultdict[int, list[ToolCall]] = defaultdict(list)
        self._dispatched: set[str] = set()
        # The approvals nobody has answered, with the items of their calls.
        self._approvals: dict[str, tuple[str, ApprovalRequested]] = {}
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
            case ReasoningDelta() | ReasoningCompleted():
                self._open[item_id].reason(body)
            case MessageCompleted():
                self._complete_message(body, item_id)
            case ToolCallStarted(call_id):
                self._calls[call_id] = (item_id, body)
                self._turns[self.usage.model_calls].append(ToolCall(call_id, body.name, body.arguments_json))
            case ToolCallFinished():
                self._finish_call(body)
            case ApprovalRequested() | ApprovalResolved():
                self._observe_approval(body, item_id)
            case SteerApplied() | HistoryCompacted():
                self._add(body, item_id)
            case Warned():
                self._warn(body, item_id)
            case _:
                self._observe_run(body)

    def observe_all(self, events: Iterable[ItemEvent]) -> None:
        """Take in events, in order."""
        for body, item_id in events:
            self.observe(body, item_id)

    def observe_dispatch(self, call_ids: Iterable[str]) -> None:
        """Learn which calls may have taken effect."""
        self._dispatched.update(call_ids)

    def observe_withdrawal(self, call_ids: Iterable[str]) -> None:
        """Learn which calls have taken no effect."""
        self._dispatched.difference_update(call_ids)

    @property
    def open_item_ids(self) -> tuple[str, ...]:
        """The items of text that are not complete."""
        return tuple(self._open)

    @property
    def open_approvals(self) -> dict[str, tuple[str, ApprovalRequested]]:
        """The approvals of which the log does not tell what became of them, by id, each with its call's item."""
        return dict(self._approvals)

    @property
    def turns(self) -> tuple[tuple[ToolCall, ...], ...]:
        """What the model has called since the user last said something, turn by turn."""
        return tuple(tuple(calls) for calls in self._turns.values())

    def unanswered(self, records: Iterable[CallRecord]) -> tuple[UnansweredCall, ...]:
        """Return the calls without a result, with what the journal of effects knows of them."""
        recorded = {record.call_id: record for record in records}
        return tuple(
            UnansweredCall(ToolCall(call_id, started.name, started.arguments_json), recorded[call_id])
            for call_id, (_, started) in self._calls.items()
            if call_id in recorded
        )

    def messages(self, run: Run) -> tuple[Message, ...]:
        """Return the run's own finished items, as its conversation will hold them."""
        return tuple(
            Message(
                item.message_id, run.conversation_id, run.run_id, run.create_time, item.item, incomplete=item.incomplete
            )
            for item in self._finished_items()
        )

    def closing_events(self) -> list[ItemEvent]:
        """Return the events that close everything that is open: cut items, approvals, and calls without a result."""
        approvals: list[ItemEvent] = [
            (ApprovalResolved(asked.approval_id, asked.call_id, ApprovalState.CANCELLED), item_id)
            for item_id, asked in self._approvals.values()
        ]
        items = [(body, item_id) for item_id, item in self._open.items() for body in item.closing_events()]
        calls = [(self._unfinished(started), item_id) for item_id, started in self._calls.values()]
        return [*items, *approvals, *calls]

    def conclusion(self, end: RunEnd) -> RunConclusion:
        """Return what the run's last transaction writes."""
        output = self._output.item
        return RunConclusion(
            end=end,
            usage=self.usage,
            items=self._finished_items(),
            output_item_id=self._output.message_id,
            output_text=output.text if isinstance(output, AssistantItem) else "",
            output_json=output.output_json if isinstance(output, AssistantItem) else "",
        )

    def _finished_items(self) -> tuple[FinishedItem, ...]:
        return tuple(item for item in self._items.values() if item is not None)

    def _observe_run(self, body: EventBody) -> None:
        if isinstance(body, UsageUpdated):
            self.usage = body.usage
        elif isinstance(body, RunStarted | AttemptRestarted):
            self.is_begun = True
            self.fruitless_attempts += 1
            discarded = body.discarded_item_ids if isinstance(body, AttemptRestarted) else ()
            for item_id in discarded:
                self._open.pop(item_id, None)

    def _observe_approval(self, body: ApprovalRequested | ApprovalResolved, item_id: str) -> None:
        if isinstance(body, ApprovalRequested):
            self._approvals[body.approval_id] = (item_id, body)
        else:
            self._approvals.pop(body.approval_id, None)

    def _add(self, body: SteerApplied | HistoryCompacted, item_id: str) -> None:
        """Take in an item that comes whole."""
        if isinstance(body, SteerApplied):
            # Whatever is called again now is what the user wants, and no circle.
            self._turns.clear()
            self._items[body.message_id] = FinishedItem(body.message_id, UserItem(body.input))
            return
        item = SummaryItem(body.first_message_id, body.last_message_id, body.summary_text)
        self._items[item_id] = FinishedItem(item_id, item)
        self.fruitless_attempts = 0

    def _complete_message(self, body: MessageCompleted, item_id: str) -> None:
        reasoning_text = self._open.pop(item_id, _OpenItem()).reasoning_text
        item = AssistantItem(
            body.text, refusal=body.refusal, output_json=body.output_json, reasoning_text=reasoning_text
        )
        self._output = FinishedItem(item_id, item, body.incomplete)
        self._items[item_id] = self._output
        self.fruitless_attempts = 0

    def _warn(self, body: Warned, item_id: str) -> None:
        self.warned.add(body.reason)
        finished = self._items.get(item_id)
        if body.reason == OUTPUT_INVALID and finished is not None and isinstance(finished.item, AssistantItem):
            self._items[item_id] = replace(finished, item=replace(finished.item, objection=body.message))

    def _finish_call(self, body: ToolCallFinished) -> None:
        item_id, started = self._calls.pop(body.call_id)
        self.fruitless_attempts = 0
        item = ToolCallItem(
            call_id=body.call_id,
            name=started.name,
            arguments_json=started.arguments_json,
            effect=started.effect,
            status=body.status,
            result_json=body.result_json,
            truncated=body.truncated,
            result_id=body.result_id,
        )
        self._items[item_id] = FinishedItem(item_id, item)

    def _unfinished(self, started: ToolCallStarted) -> ToolCallFinished:
        """Say what is known of a call that never reported: a WRITE that was dispatched may have happened."""
        in_doubt = started.effect is ToolEffect.WRITE and started.call_id in self._dispatched
        error: ToolError = UnknownOutcomeError() if in_doubt else CallCancelledError()
        return finished_event(failed_result(ToolCall(started.call_id, started.name, started.arguments_json), error))
