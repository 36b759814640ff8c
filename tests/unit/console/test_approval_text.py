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
from parley.v1.tool_pb2 import TOOL_EFFECT_WRITE
from parley_console.approval_text import choices_text, outcome_text, question_rows, time_text

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
    assert "5" not in choices_text(approval(), is_cut=False)


def test_a_call_without_arguments_says_so() -> None:
    assert question_rows(approval(), LEFT)[0][1] == "    no arguments"


def test_what_is_left_out_is_told_and_shown_on_request() -> None:
    asked = approval(command="ls" + " " * 1000 + "; rm -rf /")
    rows, is_cut = question_rows(asked, LEFT)
    assert is_cut
    assert rows[1].endswith("… 783 more characters")
    assert "5 show all" in choices_text(asked, is_cut=is_cut)
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
