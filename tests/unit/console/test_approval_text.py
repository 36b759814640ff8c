"""The question about a tool call: bounded, honest about what it leaves out, and whole on request."""

import json
from datetime import timedelta

import pytest
from parley.v1.approval_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_DENIED,
    APPROVAL_STATE_EXPIRED,
    Approval,
    ApprovalState,
)
from parley.v1.run_event_pb2 import ApprovalRequested, RunEvent
from parley.v1.tool_pb2 import TOOL_EFFECT_WRITE
from parley_console.approval_text import choices_of, choices_text, outcome_text, question_rows, time_text
from parley_console.unattended import WaitingNotices
from unit.console.fake_terminal import pipe

LEFT = timedelta(minutes=15)


def approval(**arguments: object) -> Approval:
    return Approval(
        tool_name="send_mail",
        tool_description="Send a mail.\x1b[2J\nAt once.",
        effect=TOOL_EFFECT_WRITE,
        arguments_json=json.dumps(arguments, ensure_ascii=False),
    )


def test_the_question_names_the_tool_its_effect_and_its_arguments() -> None:
    rows, is_cut = question_rows(approval(to="ann", body="\u202eevil"), LEFT)
    assert rows == [
        "? send_mail waits for your approval · it changes something each time",
        '    to: "ann"',
        r'    body: "\u202eevil"',
        "  15 min left",
    ]
    assert not is_cut
    assert list(choices_of(approval(), is_cut=False)) == ["1", "2", "3", "4"]


def test_what_the_tool_asks_looks_like_no_argument_and_its_answer_is_not_for_ever() -> None:
    asked = approval(**{"it asks": "Nothing?"})
    asked.question = "Remove all?\n\x1b[2J" + "?" * 300
    rows, is_cut = question_rows(asked, LEFT)
    assert rows[1].startswith(r"    it asks: Remove all?\n\x1b[2J???")
    assert rows[1].endswith("more characters")
    assert rows[2] == '    "it asks": "Nothing?"'
    assert is_cut
    assert list(choices_of(asked, is_cut=is_cut)) == ["1", "3", "4", "5"]
    assert question_rows(asked, whole=True)[0][1].endswith("?" * 300)


def test_where_nobody_can_be_asked_the_question_is_told() -> None:
    screen, stream = pipe()
    asked = ApprovalRequested(approval_id="apr_1", tool_name="remove", arguments_json="{}", question="Sure?\x1b")
    WaitingNotices(screen).show(RunEvent(approval_requested=asked))
    waits = r"parley: remove() waits for your approval; it asks: Sure?\x1b: parley approvals approve apr_1"
    assert stream.getvalue() == f"{waits}\n"


def test_a_call_without_arguments_says_so() -> None:
    assert question_rows(approval(), LEFT)[0][1] == "    no arguments"


def test_what_is_left_out_is_told_and_shown_on_request() -> None:
    asked = approval(command="ls" + " " * 1000 + "; rm -rf /")
    rows, is_cut = question_rows(asked, LEFT)
    assert is_cut
    assert rows[1].endswith("… 783 more characters")
    assert choices_text(choices_of(asked, is_cut=is_cut)).endswith(" · 3 no · 4 later · 5 show all")
    whole, still_cut = question_rows(asked, LEFT, whole=True)
    assert not still_cut
    assert whole[1].endswith('; rm -rf /"')
    assert whole[2:5] == ["    it says of itself:", r"      Send a mail.\x1b[2J", "      At once."]


def test_many_arguments_are_counted() -> None:
    rows, is_cut = question_rows(approval(**{f"a{number}": number for number in range(1000)}), LEFT)
    assert is_cut
    assert (len(rows), rows[-2]) == (15, "    … 988 more rows")


@pytest.mark.parametrize(
    ("left_s", "text"), [(900, "15 min left"), (119, "119 s left"), (0.2, "0 s left"), (-5, "0 s left")]
)
def test_the_time_that_is_left(left_s: float, text: str) -> None:
    assert time_text(timedelta(seconds=left_s)) == text


@pytest.mark.parametrize(
    ("state", "reason", "text"),
    [
        (APPROVAL_STATE_APPROVED, "", "approved"),
        (APPROVAL_STATE_DENIED, "too\ndear", r"denied: too\ndear"),
        (APPROVAL_STATE_EXPIRED, "", "not approved: nobody answered in time"),
    ],
)
def test_what_became_of_an_approval(state: ApprovalState.ValueType, reason: str, text: str) -> None:
    assert outcome_text(state, reason) == text
