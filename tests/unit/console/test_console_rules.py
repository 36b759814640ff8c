"""The console's small rules."""

from pathlib import Path

import click
import grpc
import pytest
from parley.v1.admin_service_pb2 import GetServerInfoResponse
from parley.v1.run_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_EXPIRED,
    RUN_STATE_FAILED,
    RUN_STATE_SUCCEEDED,
    RunState,
)
from parley_client import InvalidRequestError, UnavailableError, Violation
from parley_console.account_commands import quiet_hours_of
from parley_console.durations import duration_s
from parley_console.exit_codes import ExitCode
from parley_console.failure_text import call_failure
from parley_console.greeting import greet
from parley_console.history import history_path, open_history
from parley_console.interrupts import IdleAction, IdleInterrupts
from parley_console.outcome import exit_code_of_run, exit_code_of_status
from parley_console.slash_commands import SUMMARIES, Invocation, SlashCommand, help_text, slash_command
from parley_console.slash_completion import SlashCompleter
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from unit.console.recording_terminal import RecordingTerminal


def test_ctrl_c_clears_then_warns_then_quits() -> None:
    interrupts = IdleInterrupts()
    assert interrupts.press("half a line", 0.0) is IdleAction.CLEAR
    assert interrupts.press("", 0.1) is IdleAction.HINT
    assert interrupts.press("", 2.1) is IdleAction.QUIT


def test_a_late_second_ctrl_c_only_warns_again() -> None:
    interrupts = IdleInterrupts()
    assert interrupts.press("", 0.0) is IdleAction.HINT
    assert interrupts.press("", 2.5) is IdleAction.HINT
    assert interrupts.press("", 3.0) is IdleAction.QUIT


def test_text_between_two_presses_makes_the_second_a_first() -> None:
    interrupts = IdleInterrupts()
    assert interrupts.press("", 0.0) is IdleAction.HINT
    assert interrupts.press("text", 0.5) is IdleAction.CLEAR
    assert interrupts.press("", 1.0) is IdleAction.HINT


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/help", SlashCommand.HELP),
        (" /new ", SlashCommand.NEW),
        ("/quit", SlashCommand.QUIT),
        ("/unknown", SlashCommand.UNKNOWN),
        ("/nothing", SlashCommand.UNKNOWN),
        ("/etc/hosts", None),
        ("/help me", None),
        ("/2", None),
        ("hello", None),
        ("", None),
    ],
)
def test_slash_commands_are_whole_lines(line: str, command: SlashCommand | None) -> None:
    invocation = slash_command(line)
    assert (invocation and invocation.command) is command


def test_commands_with_verbs_take_the_rest_of_the_line() -> None:
    assert slash_command("/approvals") == Invocation(SlashCommand.APPROVALS, "", "/approvals")
    assert slash_command("/approvals deny 1 too  dear ") == Invocation(
        SlashCommand.APPROVALS, "deny 1 too  dear", "/approvals"
    )
    assert slash_command("/tools settle 1 not") == Invocation(SlashCommand.TOOLS, "settle 1 not", "/tools")


def test_other_slash_commands_have_at_most_one_argument() -> None:
    assert slash_command("/resume 3") == Invocation(SlashCommand.RESUME, "3", "/resume")
    assert slash_command("/agent") == Invocation(SlashCommand.AGENT, "", "/agent")
    assert slash_command("/resume 3 4") is None
    assert slash_command("/new\n/quit") is None
    assert slash_command("/resume\n3") is None


def test_every_command_is_in_the_help_and_is_completed() -> None:
    for command in SUMMARIES:
        assert command.value in help_text()
    typed = Document("/")
    assert [found.text for found in SlashCompleter().get_completions(typed, CompleteEvent())] == [
        command.value for command in SUMMARIES
    ]
    assert not list(SlashCompleter().get_completions(Document("what is /"), CompleteEvent()))


def test_verbs_are_completed_behind_their_command() -> None:
    verbs = SlashCompleter().get_completions(Document("/approvals a"), CompleteEvent())
    assert [found.text for found in verbs] == ["/approvals approve", "/approvals always"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("0.25", 0.25)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1d", "1 m", "soon", "inf", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration_s(text)


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [
        (["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"], 64),
        (["UNAVAILABLE"], 69),
        (["INTERNAL", "UNKNOWN", "DATA_LOSS"], 70),
        (["RESOURCE_EXHAUSTED"], 75),
        (["UNAUTHENTICATED", "PERMISSION_DENIED"], 77),
        (["DEADLINE_EXCEEDED"], 124),
        (["CANCELLED"], 130),
    ],
)
def test_statuses_have_their_exit_codes(codes: list[str], exit_code: int) -> None:
    assert {exit_code_of_status(grpc.StatusCode[code]) for code in codes} == {exit_code}


@pytest.mark.parametrize(
    ("state", "exit_code"),
    [(RUN_STATE_SUCCEEDED, 0), (RUN_STATE_FAILED, 1), (RUN_STATE_EXPIRED, 124), (RUN_STATE_CANCELLED, 130)],
)
def test_runs_have_their_exit_codes(state: RunState.ValueType, exit_code: int) -> None:
    assert exit_code_of_run(state) == exit_code
    assert isinstance(exit_code_of_run(state), ExitCode)


def test_the_greeting_says_that_a_script_is_no_model() -> None:
    terminal = RecordingTerminal()
    greet(GetServerInfoResponse(version="0.1.0", offline_model=True), "assistant", terminal)
    assert "Parley 0.1.0 · agent assistant · offline model" in terminal.lines
    assert "a script answers here and no AI. Set OPENAI_API_KEY" in "\n".join(terminal.lines)


def test_the_greeting_names_the_model() -> None:
    terminal = RecordingTerminal()
    greet(GetServerInfoResponse(version="0.1.0", default_model="big"), "assistant", terminal)
    assert "Parley 0.1.0 · agent assistant · model big" in terminal.lines
    assert "OPENAI" not in "\n".join(terminal.lines)


def test_failures_are_one_line_with_all_that_helps() -> None:
    gone = UnavailableError(grpc.StatusCode.UNAVAILABLE, "connection\nrefused")
    assert call_failure(gone, "127.0.0.1:1") == (
        "no server answers at 127.0.0.1:1: is parley-server running? (connection refused)"
    )
    bad = InvalidRequestError(
        grpc.StatusCode.INVALID_ARGUMENT, "bad", reason="INVALID_REQUEST", violations=[Violation("run.input", "empty")]
    )
    assert call_failure(bad, "") == "INVALID_REQUEST: bad; run.input: empty"
    told = InvalidRequestError(grpc.StatusCode.INVALID_ARGUMENT, "run.input: empty", violations=bad.violations)
    assert call_failure(told, "") == "INVALID_ARGUMENT: run.input: empty"


def test_the_history_is_for_its_user_alone(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    assert isinstance(open_history(environment), FileHistory)
    assert history_path(environment).stat().st_mode & 0o777 == 0o600
    assert history_path(environment).parent.stat().st_mode & 0o777 == 0o700


def test_without_a_place_for_a_file_the_history_dies_with_us(tmp_path: Path) -> None:
    (tmp_path / "parley").write_text("in the way")
    assert isinstance(open_history({"XDG_STATE_HOME": str(tmp_path)}), InMemoryHistory)


def test_a_relative_state_home_is_ignored() -> None:
    assert history_path({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/parley/console_history"


@pytest.mark.parametrize(("text", "minutes"), [("22:00-7:05", (1320, 425)), (" 0:00-23:59 ", (0, 1439))])
def test_quiet_hours_are_read(text: str, minutes: tuple[int, int]) -> None:
    hours = quiet_hours_of(text)
    assert (hours.start_minute, hours.end_minute) == minutes


@pytest.mark.parametrize("text", ["", "22:00", "24:00-1:00", "1:60-2:00", "22-7", "1:00-2:00-3:00"])
def test_what_are_no_quiet_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-7:00"):
        quiet_hours_of(text)
