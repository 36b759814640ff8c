"""What `parley ask` does when a tool call needs an approval."""

from enum import Enum
from typing import Final, Protocol

from parley.v1.run_event_pb2 import RunEvent
from parley.v1.run_pb2 import (
    UNATTENDED_POLICY_DENY,
    UNATTENDED_POLICY_FAIL,
    UNATTENDED_POLICY_WAIT,
    UnattendedPolicy,
)

from parley_console.approval_text import asked_rows
from parley_console.screen import Screen
from parley_console.tool_line import call_text


class OnApproval(Enum):
    """What is done; the value is the option's."""

    WAIT = "wait"
    DENY = "deny"
    FAIL = "fail"


POLICIES: Final[dict[OnApproval, UnattendedPolicy.ValueType]] = {
    OnApproval.WAIT: UNATTENDED_POLICY_WAIT,
    OnApproval.DENY: UNATTENDED_POLICY_DENY,
    OnApproval.FAIL: UNATTENDED_POLICY_FAIL,
}


class EventListener(Protocol):
    """Takes the events of a run for as long as it is followed."""

    def show(self, event: RunEvent) -> None:
        """Take the run's next event."""

    def close(self) -> None:
        """Take the news that there will be none."""


class WaitingNotices:
    """Says on standard error what the run waits for, and how it can be answered, where nobody can be asked."""

    def __init__(self, errors: Screen) -> None:
        self._errors = errors

    def show(self, event: RunEvent) -> None:
        """Say it of an event that asks."""
        if event.HasField("approval_requested"):
            asked = event.approval_requested
            call = call_text(asked.tool_name, asked.arguments_json)
            waits = "; ".join([f"{call} waits for your approval", *asked_rows(asked.question)])
            self._errors.line(f"parley: {waits}: parley approvals approve {asked.approval_id}")

    def close(self) -> None:
        """Do nothing."""
