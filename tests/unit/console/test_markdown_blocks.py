"""Markdown that streams is cut into the same blocks, however it comes in pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from parley_console.live_display import LiveDisplay
from parley_console.markdown_blocks import MarkdownBlocks, block_parser
from unit.console.recording_terminal import RecordingTerminal

LINES = st.sampled_from(
    [
        *(
            "",
            "   ",
            "text",
            "  more",
            "    code",
            "\t- tab",
            "\\",
            "<div>",
            "[a]: http://x",
            "# head",
            "===",
            "---",
            "--",
        ),
        *("- item", "  - sub", "-", "+", "* star", "***", "1. one", "2. two", "10) x", "> quote", "> - a"),
        *("```", "``` py", "~~~", "| a | b |", "|---|---|", "|"),
    ]
)
MARKDOWN = st.one_of(
    st.lists(LINES).map("\n".join),
    st.text(alphabet="-*#`~>|1. \n\t\rab=[]:<"),
    st.text(),
)


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def blocks_of(*pieces: str) -> list[str]:
    blocks = MarkdownBlocks()
    return [*(block for piece in pieces for block in blocks.add(piece)), *blocks.finish()]


@given(MARKDOWN, st.data())
def test_any_pieces_of_a_text_give_its_blocks_each_once(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    blocks = blocks_of(*in_pieces(text, cuts))
    assert blocks == blocks_of(text)
    assert "".join(blocks) == text


@given(MARKDOWN)
def test_what_is_given_out_and_what_is_left_is_always_the_text(text: str) -> None:
    blocks = MarkdownBlocks()
    given_out = ""
    for place, character in enumerate(text, start=1):
        given_out += "".join(blocks.add(character))
        assert given_out + blocks.rest == text[:place]


@given(st.lists(LINES).map("\n".join))
def test_the_cuts_are_where_the_parser_sees_top_level_blocks(text: str) -> None:
    whole = [token.type for token in block_parser().parse(text) if token.level == 0 and token.nesting >= 0]
    assert len(blocks_of(*text)) == max(len(whole), 1 if text else 0)


@given(MARKDOWN, st.data())
def test_the_screen_shows_every_block_once_and_ends_with_nothing_live(text: str, data: st.DataObject) -> None:
    shown = []
    for pieces in ([text], in_pieces(text, data.draw(st.lists(st.integers(0, len(text)))))):
        terminal = RecordingTerminal()
        display = LiveDisplay(terminal)
        for piece in pieces:
            display.text(piece)
        display.end_text()
        assert terminal.live[-1] == ""
        shown.append(terminal.lines)
    assert shown[0] == shown[1]


def test_a_block_is_finished_when_the_next_one_begins() -> None:
    blocks = MarkdownBlocks()
    assert blocks.add("1. one\n\n2") == []
    assert blocks.add(". two\n\n") == []
    assert blocks.add("text\n") == ["1. one\n\n2. two\n\n"]
    assert blocks.rest == "text\n"
    assert blocks.add("===\n```\n# no heading\n\n") == ["text\n===\n"]
    assert blocks.finish() == ["```\n# no heading\n\n"]
    assert blocks.finish() == []


def test_a_long_listing_is_one_block_and_what_follows_is_cut_off_it() -> None:
    listing = "```\n" + "".join(f"line {n}\n" for n in range(3000)) + "```\n"
    assert blocks_of(*f"{listing}after\n\nlast\n") == [listing, "after\n\n", "last\n"]
