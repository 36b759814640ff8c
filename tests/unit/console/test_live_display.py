"""A run in a chat: what is finished stays, the rest is live."""

from parley.v1.usage_pb2 import Usage
from parley_console.live_display import LiveDisplay
from unit.console.recording_terminal import RecordingTerminal


def test_finished_blocks_stay_and_the_open_one_is_live() -> None:
    terminal = RecordingTerminal()
    display = LiveDisplay(terminal)
    display.text("First.\n\nSec")
    assert (terminal.lines, terminal.live[-1]) == ([], "First.\n\nSec")
    display.text("ond.\n")
    assert (terminal.lines, terminal.live[-1]) == (["First."], "\nSecond.")
    display.end_text()
    assert (terminal.lines, terminal.live[-1]) == (["First.", "", "Second."], "")


def test_calls_are_live_until_they_have_a_result_and_written_once() -> None:
    terminal = RecordingTerminal()
    display = LiveDisplay(terminal)
    display.call_started("1", "one()")
    display.call_started("2", "two()")
    assert (terminal.lines, terminal.live[-1]) == ([], "⚙ one() …\n⚙ two() …")
    display.call_finished("2", "two()", "2", worked=True)
    display.call_finished("1", "one()", "no", worked=False)
    assert (terminal.lines, terminal.live[-1]) == (["⚙ two() → 2", "⚙ one() ✗ no"], "")


def test_a_call_under_way_shows_how_far_it_is_until_it_ends() -> None:
    terminal = RecordingTerminal()
    display = LiveDisplay(terminal)
    display.call_started("1", "one()")
    display.call_progress("1", "20% page 1")
    display.call_progress("1", "40% page 2")
    assert (terminal.lines, terminal.live[-1]) == ([], "⚙ one() … 40% page 2")
    display.call_finished("1", "one()", "1", worked=True)
    display.call_started("1", "again()")
    assert (terminal.lines, terminal.live[-1]) == (["⚙ one() → 1"], "⚙ again() …")


def test_nothing_is_lost_when_a_run_ends_in_the_middle() -> None:
    terminal = RecordingTerminal()
    display = LiveDisplay(terminal)
    display.text("half a sen")
    display.call_started("1", "one()")
    display.settle()
    display.settle()
    assert (terminal.lines, terminal.live[-1]) == (["half a sen", "⚙ one() …"], "")


def test_control_characters_do_not_reach_the_terminal() -> None:
    terminal = RecordingTerminal()
    display = LiveDisplay(terminal)
    display.text("a\x1b[31mb\r\x00c\n\nnext\n")
    assert terminal.lines == ["a[31mbc"]


def test_the_footer_tells_tokens_calls_and_cost() -> None:
    terminal = RecordingTerminal()
    display = LiveDisplay(terminal)
    display.used(Usage())
    display.used(Usage(input_tokens=1234, output_tokens=5))
    display.used(Usage(input_tokens=1, output_tokens=1, tool_calls=2, cost_micros=1234, currency_code="USD"))
    assert terminal.lines == ["1,234 tokens in · 5 out", "1 tokens in · 1 out · 2 tool calls · 0.0012 USD"]
