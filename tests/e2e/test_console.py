"""The console at a real terminal, against a real server with the offline model."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from server_process import ServerProcess

PARLEY = [sys.executable, "-m", "parley_console"]
PROMPT = "you>"  # without the blank: escape codes come before it
CTRL_C = "\x03"
CTRL_D = "\x04"


def environment(server_address: str, home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return {
        **inherited,
        "PARLEY_TARGET": server_address,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "TERM": "xterm",
        "NO_COLOR": "1",
        # pexpect is no terminal that answers where its cursor is.
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }


class Terminal:
    """A person at the keyboard."""

    def __init__(self, child: "pexpect.spawn[str]") -> None:
        self._child = child

    def sees(self, text: str) -> str:
        """Wait for a text; returns what came before it, without escape codes."""
        self._child.expect_exact(text)
        before = self._child.before
        assert isinstance(before, str)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", before).replace("\r", "")

    def types(self, keys: str) -> None:
        self._child.send(keys)

    def asks(self, line: str) -> None:
        self.types(line + "\r")

    def exit_code(self) -> int | None:
        self._child.expect(pexpect.EOF)
        self._child.close()
        return self._child.exitstatus


@contextmanager
def chatting(address: str, home: Path) -> Iterator[Terminal]:
    child = pexpect.spawn(
        PARLEY[0], PARLEY[1:], env=environment(address, home), encoding="utf-8", timeout=20, dimensions=(40, 200)
    )
    try:
        terminal = Terminal(child)
        yield terminal
    finally:
        child.close(force=True)


@pytest.fixture
def terminal(server: ServerProcess, tmp_path: Path) -> Iterator[Terminal]:
    """A chat that has shown its prompt."""
    with chatting(server.address, tmp_path) as at_terminal:
        at_terminal.sees("Ctrl-D leaves")
        at_terminal.sees(PROMPT)
        yield at_terminal


def ask(address: str, home: Path, *arguments: str, stdin: str = "", **extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PARLEY, *arguments],
        input=stdin,
        env={**environment(address, home), **extra},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_the_greeting_says_that_a_script_answers(server: ServerProcess, tmp_path: Path) -> None:
    with chatting(server.address, tmp_path) as terminal:
        greeting = terminal.sees(PROMPT)
    assert re.search(r"Parley \S+ · agent assistant · offline model", greeting)
    assert "a script answers here and no AI. Set OPENAI_API_KEY" in greeting


def test_a_question_a_tool_and_an_answer(terminal: Terminal) -> None:
    terminal.asks("What is 17 * 23?")
    terminal.sees('⚙ calculator(expression="17 * 23") → 391')
    terminal.sees("17 * 23 = 391")
    terminal.sees(PROMPT)
    terminal.types(CTRL_D)
    assert terminal.exit_code() == 0


def test_ctrl_c_stops_the_answer_and_the_prompt_still_works(terminal: Terminal) -> None:
    terminal.asks("Tell me a story")
    terminal.sees("notebook")
    terminal.types(CTRL_C)
    rest = terminal.sees("stopped")
    assert "the same way" not in rest
    terminal.sees(PROMPT)
    terminal.asks("What is 2 + 2?")
    terminal.sees("2 + 2 = 4")
    terminal.sees(PROMPT)


def test_ctrl_c_at_the_prompt_clears_then_warns_then_leaves(terminal: Terminal) -> None:
    terminal.types("What is 1 + 1?")
    terminal.sees("1 + 1?")
    terminal.types(CTRL_C)
    terminal.asks("What is 3 + 3?")
    terminal.sees("3 + 3 = 6")
    terminal.sees(PROMPT)
    terminal.types(CTRL_C)
    terminal.sees("Ctrl-C once more, or Ctrl-D, leaves")
    terminal.types(CTRL_C)
    assert terminal.exit_code() == 0


def test_slash_commands(terminal: Terminal) -> None:
    terminal.asks("/help")
    terminal.sees("begin a new conversation")
    terminal.asks("/new")
    terminal.sees("a new conversation")
    terminal.asks("/quit")
    assert terminal.exit_code() == 0


def test_what_was_typed_is_remembered(server: ServerProcess, tmp_path: Path) -> None:
    with chatting(server.address, tmp_path) as terminal:
        terminal.sees(PROMPT)
        terminal.asks("What is 8 * 8?")
        terminal.sees("8 * 8 = 64")
        terminal.sees(PROMPT)
        terminal.types(CTRL_D)
        assert terminal.exit_code() == 0
    with chatting(server.address, tmp_path) as terminal:
        terminal.sees(PROMPT)
        terminal.types("\x1b[A\r")
        terminal.sees("8 * 8 = 64")


def test_a_server_that_crashes_in_the_middle_is_waited_for(own_server: ServerProcess, tmp_path: Path) -> None:
    with chatting(own_server.address, tmp_path) as terminal:
        terminal.sees(PROMPT)
        terminal.asks("Tell me a story")
        terminal.sees("notebook")
        own_server.kill()
        terminal.sees("reconnecting…")
        own_server.start()
        terminal.sees(PROMPT)
        terminal.asks("What is 2 + 2?")
        terminal.sees("2 + 2 = 4")


def test_ask_prints_the_answer_alone(server: ServerProcess, tmp_path: Path) -> None:
    asked = ask(server.address, tmp_path, "ask", "What is 17 * 23?")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "17 * 23 = 391\n", "")


def test_ask_reads_a_pipe(server: ServerProcess, tmp_path: Path) -> None:
    asked = ask(server.address, tmp_path, stdin="What is 17 * 23?\n")
    assert (asked.returncode, asked.stdout) == (0, "17 * 23 = 391\n")


def test_ask_json_and_continue(server: ServerProcess, tmp_path: Path) -> None:
    first = json.loads(ask(server.address, tmp_path, "ask", "--json", "What is 17 * 23?").stdout)
    assert (first["state"], first["stop_reason"]) == ("RUN_STATE_SUCCEEDED", "STOP_REASON_ANSWERED")
    assert first["output_text"] == "17 * 23 = 391"
    assert (first["usage"]["model_calls"], first["usage"]["tool_calls"], first["error"]) == (2, 1, None)
    again = json.loads(ask(server.address, tmp_path, "ask", "-c", "--json", "And 2 + 2?").stdout)
    assert again["conversation_id"] == first["conversation_id"]
    apart = json.loads(ask(server.address, tmp_path, "ask", "--json", "And 2 + 2?").stdout)
    assert apart["conversation_id"] != first["conversation_id"]


def test_ask_goes_on_with_a_conversation_by_its_id(server: ServerProcess, tmp_path: Path) -> None:
    first = json.loads(ask(server.address, tmp_path, "ask", "--json", "What is 17 * 23?").stdout)
    ask(server.address, tmp_path, "ask", "in between")
    for arguments in (("ask", "--json", "-r", first["conversation_id"], "And?"), ("-r", first["conversation_id"])):
        again = ask(server.address, tmp_path, *arguments, stdin="And?")
        assert again.returncode == 0
    assert (
        json.loads(ask(server.address, tmp_path, "ask", "-c", "--json", "Hm?").stdout)["conversation_id"]
        == (first["conversation_id"])
    )
    assert ask(server.address, tmp_path, "ask", "-r", "nowhere", "And?").returncode == 64


def test_a_chat_that_cannot_begin_has_its_exit_code(server: ServerProcess, tmp_path: Path) -> None:
    for arguments, exit_code in (
        (("--target", "127.0.0.1:1"), 69),
        (("--api-key", "not-a-key"), 77),
        (("-r", "nowhere"), 64),
    ):
        child = pexpect.spawn(
            PARLEY[0],
            [*PARLEY[1:], *arguments],
            env=environment(server.address, tmp_path),
            encoding="utf-8",
            timeout=20,
        )
        assert Terminal(child).exit_code() == exit_code


def test_a_second_ctrl_c_leaves_the_run_to_itself(own_server: ServerProcess, tmp_path: Path) -> None:
    with chatting(own_server.address, tmp_path) as terminal:
        terminal.sees(PROMPT)
        terminal.asks("Tell me a story")
        terminal.sees("notebook")
        own_server.signal(signal.SIGSTOP)  # so that it cannot end the run
        terminal.types(CTRL_C)
        terminal.sees("stopping")
        terminal.types(CTRL_C)
        terminal.sees("left alone; the run goes on, and this shows it: parley -r conv_")
        own_server.signal(signal.SIGCONT)


def test_ask_stream_json(server: ServerProcess, tmp_path: Path) -> None:
    asked = ask(server.address, tmp_path, "ask", "--stream-json", "What is 17 * 23?")
    events = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert "runAccepted" in events[0]
    assert events[-1]["runFinished"]["state"] == "RUN_STATE_SUCCEEDED"


def test_ctrl_c_ends_ask_with_130(server: ServerProcess, tmp_path: Path) -> None:
    child = pexpect.spawn(
        PARLEY[0],
        [*PARLEY[1:], "ask", "Tell me a story"],
        env=environment(server.address, tmp_path),
        encoding="utf-8",
        timeout=20,
    )
    terminal = Terminal(child)
    terminal.sees("notebook")
    terminal.types(CTRL_C)
    assert terminal.exit_code() == 130
    listed = ask(server.address, tmp_path, "ask", "--json", "-c", "Hello")
    assert json.loads(listed.stdout)["state"] == "RUN_STATE_SUCCEEDED"


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("ask",), 64),
        (("ask", "hi", "--agent", "nobody"), 64),
        (("ask", "hi", "--api-key", "not-a-key"), 77),
        (("ask", "hi", "--target", "127.0.0.1:1"), 69),
        (("ask", "Tell me a story", "--deadline", "1s"), 124),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], exit_code: int, server: ServerProcess, tmp_path: Path) -> None:
    asked = ask(server.address, tmp_path, *arguments)
    assert asked.returncode == exit_code, asked.stderr
    assert asked.stderr
    assert "Traceback" not in asked.stderr
