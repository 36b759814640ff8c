"""The chat on a real screen: every finished block once, and typing while an answer comes."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.offline_model import offline_model
from e2e.tmux_console import Tmux, console, needs_tmux
from server_process import ServerProcess, running_server

pytestmark = needs_tmux

SCRIPT = r"""
rules:
  - when: 'everything'
    chunk_delay_ms: 40
    text: |-
      ## Alpha heading

      First paragraph with **bold** words and `code`, long enough that it has to be wrapped in every window that is no wider than this one.

      - item one
      - item two

      ```python
      def gamma():
          return "delta"
      ```

      | one | two |
      |---|---|
      | 1 | 2 |

      Last paragraph of the answer.
  - when: 'slowly'
    chunk_delay_ms: 300
    text: "one two three four five six seven eight nine ten eleven twelve"
  - when: '(?P<word>\w+) please'
    text: "here is {word}"
  - when: '(?s)(?P<all>.*)'
    text: "You sent <<{all}>>"
"""  # noqa: E501 - one line of Markdown

# How the blocks look once they are finished; while they were live they had their marks.
FINISHED = """\
you> everything
Alpha heading

First paragraph with bold words and code, long enough that it has to be wrapped in every window that
is no wider than this one.

 • item one
 • item two

def gamma():
    return "delta"

 one  two
 ────────
 1    2

Last paragraph of the answer.
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("scripted")
    with offline_model(folder, SCRIPT) as base_url:
        environment = {"PARLEY_MODEL__BASE_URL": base_url, "PARLEY_MODEL__NAME": "scripted"}
        with running_server(folder / "data", environment=environment) as running:
            yield running


@pytest.fixture
def tmux(server: ServerProcess, tmp_path: Path) -> Iterator[Tmux]:
    with console(server.address, tmp_path / "home") as at_terminal:
        yield at_terminal


def test_every_finished_block_stands_in_the_scrollback_exactly_once(tmux: Tmux) -> None:
    tmux.asks("everything")
    tmux.sees("tokens in")
    tmux.asks("everything")
    tmux.sees("tokens in", times=2)
    assert tmux.history().count(FINISHED) == 2
    assert "**" not in tmux.history()


def test_an_answer_streams_into_the_live_area(tmux: Tmux) -> None:
    tmux.asks("slowly")
    tmux.sees("one two three")
    assert "twelve" not in tmux.history()
    tmux.sees("tokens in")
    assert tmux.history().count("one two three four five six seven eight nine ten eleven twelve\n") == 1


def test_the_window_may_grow_while_an_answer_comes(tmux: Tmux) -> None:
    tmux.asks("everything")
    for columns in (104, 108, 112, 116):
        time.sleep(0.4)
        tmux.resizes(columns)
    tmux.sees("tokens in")
    history = tmux.history()
    finished = (
        "Alpha heading",
        "with bold words and code",
        " • item one\n",
        "def gamma",
        " one  two\n",
        "Last paragraph",
    )
    assert [history.count(text) for text in finished] == [1] * len(finished)


def test_a_window_that_shrinks_repeats_nothing_that_is_finished(tmux: Tmux) -> None:
    for number in range(30):
        tmux.asks(f"/nothing{'x' * number}")
    tmux.asks("everything")
    for columns in (90, 75, 60):
        time.sleep(0.5)
        tmux.resizes(columns)
    tmux.sees("tokens in")
    history = tmux.history()
    assert [
        history.count(text) for text in ("bold words and code", " • item one\n", " one  two\n", "the answer.\n")
    ] == [1] * 4


def test_what_is_sent_while_an_answer_comes_waits_and_keeps_its_order(tmux: Tmux) -> None:
    tmux.asks("slowly")
    tmux.sees("one two")
    tmux.asks("apples please")
    tmux.sees("queued: apples please")
    tmux.asks("pears please")
    tmux.sees("queued: pears please")
    tmux.types("half a line")
    tmux.sees("here is pears")
    history = tmux.history()
    assert "queued:" not in history
    places = [
        history.index(text) for text in ("twelve", "you> apples", "here is apples", "you> pears", "here is pears")
    ]
    assert places == sorted(places)
    assert "half a line" in tmux.screen()


def test_more_than_the_server_queues_is_kept_and_sent_in_its_turn(tmux: Tmux) -> None:
    tmux.asks("slowly")
    tmux.sees("one two")
    for number in range(7):
        tmux.asks(f"number{number} please")
    tmux.sees("here is number6")
    assert re.findall(r"^here is number(\d)", tmux.history(), re.MULTILINE) == list("0123456")
    assert "✗" not in tmux.history()


def test_ctrl_c_stops_and_is_not_echoed_and_what_is_typed_stays(tmux: Tmux) -> None:
    tmux.asks("slowly")
    tmux.sees("one two")
    tmux.types("half a line")
    tmux.presses("C-c")
    tmux.sees("stopped")
    tmux.sees("you> half a line")
    assert "^C" not in tmux.history()
    assert "twelve" not in tmux.history()


def test_esc_stops_too(tmux: Tmux) -> None:
    tmux.asks("slowly")
    tmux.sees("one two")
    tmux.presses("Escape")
    tmux.sees("stopped")


def test_an_answer_goes_on_where_it_is_resumed(server: ServerProcess, tmp_path: Path) -> None:
    with console(server.address, tmp_path / "home") as first:
        first.asks("before please")
        first.sees("here is before")
        first.asks("slowly")
        first.sees("one two")
        first.presses("C-d")
        assert first.ends() == 0
        way_back = re.search(r"parley -r (\S+)", first.history())
        assert way_back is not None
    with console(server.address, tmp_path / "home", "-r", way_back[1]) as second:
        second.sees("you> before please\nhere is before")
        second.sees("ten eleven twelve\n")
        second.asks("after please")
        second.sees("here is after")
    with console(server.address, tmp_path / "home", "-c") as third:
        third.sees("you> after please\nhere is after")
        assert third.history().count("eleven twelve") == 1


def test_conversations_are_listed_and_picked_by_number(server: ServerProcess, tmp_path: Path) -> None:
    with console(server.address, tmp_path / "home") as tmux:
        for fruit in ("plums", "figs"):
            tmux.asks(f"{fruit} please")
            tmux.sees(f"here is {fruit}")
            tmux.asks("/new")
        tmux.asks("/resume")
        tmux.sees("plums please\n")
        tmux.sees("empty for none>")
        tmux.asks("2")
        tmux.sees("here is plums", times=2)
        tmux.asks("/resume nowhere")
        tmux.sees("✗ RESOURCE_NOT_FOUND")
    with console(server.address, tmp_path / "home", "-r") as tmux:
        tmux.sees("empty for none>")
        tmux.asks("1")
        tmux.sees("going on with")


def test_many_lines_are_one_message(tmux: Tmux) -> None:
    tmux.types("first")
    tmux.presses("M-Enter")
    tmux.asks("second")
    tmux.sees("you> first\n     second\n")
    tmux.sees("tokens in")
    tmux.pastes("pasted one\npasted two\n/quit\nend")
    tmux.sees("end")
    tmux.presses("Enter")
    tmux.sees("you> pasted one\n     pasted two\n     /quit\n     end\n")
    tmux.sees("tokens in", times=2)


def test_commands_are_completed_and_history_is_searched(tmux: Tmux) -> None:
    tmux.asks("cherries please")
    tmux.sees("here is cherries")
    tmux.types("/conv")
    tmux.sees("list the latest conversations")
    tmux.presses("Tab", "Enter")
    tmux.sees("conv_")
    tmux.sees("you>", times=2)
    tmux.presses("C-r")
    tmux.types("cherr")
    tmux.presses("Enter", "Enter")
    tmux.sees("here is cherries", times=2)


def test_no_color_means_none(server: ServerProcess, tmp_path: Path) -> None:
    with console(server.address, tmp_path / "home", NO_COLOR="1") as tmux:
        tmux.asks("everything")
        tmux.sees("tokens in")
        assert not re.search(r"\x1b\[[\d;]*3[0-7]m", tmux.history(escapes=True))
        assert FINISHED in tmux.history()


def test_the_terminal_is_whole_after_the_end(tmux: Tmux) -> None:
    tmux.asks("/quit")
    assert tmux.ends() == 0
    tmux.asks("the terminal echoes again")
    tmux.sees("exit code 0\nthe terminal echoes again\nthe terminal echoes again\n")
