"""Tools that ask, at the console: answered by a key, later, elsewhere, over a restart; and in scripts."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from e2e.asking_server import asking_server
from e2e.test_console import PARLEY, Terminal, ask, environment
from e2e.tmux_console import Tmux, console, needs_tmux
from server_process import ServerProcess

CHOICES = "1 yes, once · 2 yes, every send_mail of this conversation · 3 no · 4 later"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with asking_server(tmp_path_factory.mktemp("asking")) as running:
        yield running


@pytest.fixture(scope="module")
def tmux(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tmux]:
    """One console for the module's tests, which tell their mails apart by the names on them."""
    with console(server.address, tmp_path_factory.mktemp("home")) as at_terminal:
        yield at_terminal


def question(tmux: Tmux, name: str) -> None:
    """Have the model call the tool that asks, in a new conversation, and wait until a key counts."""
    tmux.asks("/new")
    tmux.asks(f"mail {name}")
    tmux.sees(f'    to: "{name}"')
    tmux.shows("1 yes, once")


@needs_tmux
def test_a_call_is_approved_by_a_key_and_its_arguments_are_harmless(tmux: Tmux) -> None:
    question(tmux, "ann")
    assert (
        "? send_mail waits for your approval · it changes something each time\n"
        '    to: "ann"\n'
        r'    body: "\u001b[2J\u202eevil"'
    ) in tmux.history()
    assert "waits for your approval\n" + CHOICES in tmux.screen()
    tmux.presses("1")
    tmux.sees("→ sent to ann")
    assert "send_mail approved" in tmux.history()


@needs_tmux
def test_a_call_is_denied_with_a_reason_that_may_be_thought_over(tmux: Tmux) -> None:
    question(tmux, "bob")
    tmux.presses("3")
    tmux.sees("why not?")
    tmux.presses("Escape")
    tmux.shows("1 yes, once")
    tmux.presses("3")
    tmux.sees("why not?")
    tmux.asks("too dear")
    tmux.sees("The user's reason: too dear")
    assert "you> too dear" not in tmux.history()


@needs_tmux
def test_an_answer_may_hold_for_the_conversation(tmux: Tmux) -> None:
    question(tmux, "cat")
    tmux.presses("2")
    tmux.sees("→ sent to cat")
    tmux.asks("mail dan")
    tmux.sees("→ sent to dan")
    assert 'to: "dan"\n' not in tmux.history()


@needs_tmux
def test_a_question_may_wait_and_is_answered_from_the_list(tmux: Tmux) -> None:
    question(tmux, "eve")
    tmux.presses("4")
    tmux.sees("the run waits; /approvals answers it")
    tmux.asks("/approvals")
    tmux.sees('send_mail(to="eve"')
    tmux.asks("/approvals show 1")
    tmux.sees("it says of itself:")
    tmux.asks("/approvals deny 7")
    tmux.sees("there is no approval 7")
    tmux.asks("/approvals approve 1")
    tmux.sees("→ sent to eve")


@needs_tmux
def test_what_was_answered_elsewhere_is_asked_no_more(tmux: Tmux, server: ServerProcess, tmp_path: Path) -> None:
    question(tmux, "fay")
    tmux.types("half a line")
    tmux.shows("clear it first")
    [listed] = re.findall(r"apr_\w+", ask(server.address, tmp_path, "approvals").stdout)
    denied = ask(server.address, tmp_path, "approvals", "deny", listed, "--reason", "not now")
    assert (denied.returncode, denied.stderr) == (0, "")
    tmux.sees("The user's reason: not now")
    tmux.shows("you> half a line")
    assert "clear it first" not in tmux.screen()
    tmux.presses("C-c")
    refused = ask(server.address, tmp_path, "approvals", "approve", listed)
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "APPROVAL_DECIDED" in refused.stderr


@needs_tmux
def test_ctrl_c_stops_the_run_that_asks(tmux: Tmux) -> None:
    question(tmux, "gus")
    tmux.presses("C-c")
    tmux.sees("\nstopped")
    assert "1 yes, once" not in tmux.screen()


@needs_tmux
def test_progress_is_live_and_leaves_nothing(tmux: Tmux, server: ServerProcess) -> None:
    tmux.asks("stars")
    tmux.shows("⚙ count_stars() … 50% half of the sky")
    (server.data_dir / "enough").touch()
    tmux.sees("⚙ count_stars() → many")
    assert "half of the sky" not in tmux.history()


@needs_tmux
def test_a_question_outlives_a_restart_and_a_call_that_may_have_happened_is_settled(
    tmux: Tmux, server: ServerProcess, tmp_path: Path
) -> None:
    question(tmux, "hal")
    events = [*PARLEY, "ask", "--stream-json", "launch"]
    with subprocess.Popen(
        events, env=environment(server.address, tmp_path), stdout=subprocess.PIPE, encoding="utf-8"
    ) as launching:
        assert launching.stdout is not None
        assert any("toolCallStarted" in line for line in launching.stdout)
        server.kill()
        tmux.presses("1")  # it is delivered once somebody is there to take it
        server.start()
        tmux.sees("→ sent to hal")
        assert any("TOOL_CALL_STATUS_UNKNOWN_OUTCOME" in line for line in launching.stdout)
    tmux.asks("/tools")
    tmux.sees("it is not known whether these calls happened; /tools settle NUMBER happened|not tells it")
    assert re.search(r"send_mail +write +server +asks +Send a mail\.\n", tmux.history())
    tmux.asks("/tools settle 1 not it stands there")
    tmux.sees("settled: launch() did not happen")
    tmux.asks("/tools settle 1 happened")
    tmux.sees("✗ TOOL_CALL_RESOLVED")


def test_a_question_at_a_plain_terminal_is_answered_by_a_key(server: ServerProcess, tmp_path: Path) -> None:
    child = pexpect.spawn(
        PARLEY[0],
        [*PARLEY[1:], "ask", "mail ivy"],
        env=environment(server.address, tmp_path),
        encoding="utf-8",
        timeout=30,
        dimensions=(40, 200),
    )
    terminal = Terminal(child)
    terminal.types("1")  # before the question: no answer to it
    terminal.sees('to: "ivy"')
    terminal.sees(CHOICES)
    terminal.types("3")
    terminal.sees("why not?")
    terminal.asks("too late")
    terminal.sees("send_mail denied: too late")
    terminal.sees("That was all.")
    assert terminal.exit_code() == 0


def test_a_script_chooses_what_an_approval_means(server: ServerProcess, tmp_path: Path) -> None:
    wishes = {"fail": (), "deny": ("--approvals", "deny"), "wait": ("--approvals", "wait", "--stream-json")}
    asked = {
        wish: subprocess.Popen(
            [*PARLEY, "ask", "mail joe", *options],
            env=environment(server.address, tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for wish, options in wishes.items()
    }
    notice = asked["wait"].stderr.readline() if asked["wait"].stderr else ""
    approved = ask(server.address, tmp_path, "approvals", "approve", notice.split()[-1])
    assert approved.stdout == 'send_mail(to="joe", body="\\u001b[2J\\u202eevil") approved\n'
    said = {wish: (*process.communicate(timeout=30), process.returncode) for wish, process in asked.items()}
    assert said["deny"] == ("That was all.\n", "", 0)
    out, err, code = said["fail"]
    assert (out, code) == ("", 1)
    assert "APPROVAL_NEEDED" in err
    assert "--approvals wait" in err
    events, _, code = said["wait"]
    kinds = {key for line in events.splitlines() for key in json.loads(line)}
    assert {"approvalRequested", "runWaiting", "approvalResolved", "runResumed"} <= kinds
    assert code == 0


def test_tools_are_listed_and_results_read_in_scripts(server: ServerProcess, tmp_path: Path) -> None:
    events = ask(server.address, tmp_path, "ask", "--stream-json", "recite").stdout
    [finished] = [json.loads(line)["toolCallFinished"] for line in events.splitlines() if "toolCallFinished" in line]
    whole = ask(server.address, tmp_path, "tools", "result", finished["resultId"])
    assert json.loads(whole.stdout) == {"word": "größer " * 200_000}
    refused = ask(server.address, tmp_path, "tools", "settle", "call_nowhere", "happened")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "no call call_nowhere is in doubt" in refused.stderr
