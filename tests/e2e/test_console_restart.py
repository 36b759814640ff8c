"""The console when the server is killed in the middle of an answer: its user still sees the run finish."""

import json
import subprocess
import time
from pathlib import Path

import pexpect
from e2e.test_console import PARLEY, PROMPT, Terminal, chatting, environment
from server_process import ServerProcess

QUESTION = "Count to 50"
TAKEN_UP = "the run was taken up again; the answer begins anew"


def restart(server: ServerProcess) -> None:
    server.kill()
    time.sleep(0.2)
    server.start()


def test_a_chat_shows_the_answer_that_a_kill_cut(own_server: ServerProcess, tmp_path: Path) -> None:
    with chatting(own_server.address, tmp_path) as terminal:
        terminal.sees(PROMPT)
        terminal.asks(QUESTION)
        terminal.sees("3")
        restart(own_server)
        terminal.sees(TAKEN_UP)
        terminal.sees("50")
        terminal.sees(PROMPT)


def test_a_question_at_a_terminal_is_answered_over_a_kill(own_server: ServerProcess, tmp_path: Path) -> None:
    child = pexpect.spawn(
        PARLEY[0],
        [*PARLEY[1:], "ask", QUESTION],
        env=environment(own_server.address, tmp_path),
        encoding="utf-8",
        timeout=30,
        dimensions=(40, 200),
    )
    terminal = Terminal(child)
    terminal.sees("3")
    restart(own_server)
    terminal.sees(TAKEN_UP)
    terminal.sees("50")
    assert terminal.exit_code() == 0


def test_a_program_gets_the_whole_answer_and_nothing_of_what_was_discarded(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*PARLEY, "ask", "--stream-json", QUESTION],
        env=environment(own_server.address, tmp_path),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as asking:
        assert asking.stdout is not None
        events = []
        for line in asking.stdout:
            events.append(json.loads(line))
            if sum("textDelta" in event for event in events) == 3 and "textDelta" in events[-1]:
                restart(own_server)
    assert asking.returncode == 0
    [restarted] = [event["attemptRestarted"] for event in events if "attemptRestarted" in event]
    [whole] = [event["messageCompleted"]["text"] for event in events if "messageCompleted" in event]
    kept = [event for event in events if event.get("itemId") not in restarted["discardedItemIds"]]
    assert "".join(event["textDelta"]["text"] for event in kept if "textDelta" in event) == whole
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
