"""Reading on in a large result: every piece is a piece of it, and together they are all of it."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.tools.builtin.read_result import MAX_LENGTH, MAX_MATCHES, SEARCHED_AT_ONCE, Reading, Request, read
from parley_server.tools.errors import ToolError
from parley_server.tools.json_value import dump_lines
from parley_server.tools.results import answer
from pydantic import ValidationError

TABLE = dump_lines([{"name": f"row {n}", "text": f'first of {n}\nsecond \\ "{n}"'} for n in range(2000)])


def ask(whole: str, **wishes: object) -> Reading:
    return read(whole, Request.model_validate({"result_id": "result_1", **wishes}))


@settings(max_examples=60)
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.integers(1, 3000),
    st.integers(1, MAX_LENGTH),
)
def test_pieces_one_after_the_other_are_the_whole_and_none_is_too_large(text: str, times: int, length: int) -> None:
    whole = dump_lines([text] * min(times, 200_000 // (len(text) + 1)))
    read_so_far, offset = "", 0
    while True:
        piece = ask(whole, offset=offset, length=length)
        assert not answer(piece.model_dump(mode="json")).truncated
        assert piece.text is not None
        read_so_far += piece.text
        if piece.next_offset is None:
            break
        assert piece.next_offset > offset
        offset = piece.next_offset
        if len(read_so_far) > 30 * length:
            return
    assert read_so_far == whole


@pytest.mark.parametrize("char", ['"', "\\", "😀", "\x01", "a"])
def test_a_piece_is_cut_where_it_would_be_too_large(char: str) -> None:
    whole = dump_lines([char * 100_000])
    piece = ask(whole, length=MAX_LENGTH)
    assert not answer(piece.model_dump(mode="json")).truncated
    assert piece.text
    assert whole.startswith(piece.text)
    found = ask(whole, search=char * 50)
    assert len(found.matches or ()) == MAX_MATCHES
    assert not answer(found.model_dump(mode="json")).truncated


def lines_of(whole: str) -> list[str]:
    """Split as the tool says that lines end: where the JSON breaks, and where a text inside of it does."""
    lines, line, escaped = [], "", False
    for char in whole:
        line += char
        if char == "\n" or (escaped and char == "n"):
            lines.append(line)
            line = ""
        escaped = char == "\\" and not escaped
    return [*lines, line]


@pytest.mark.parametrize(("first", "count"), [(1, 1), (1, 7), (2, 1), (5, 20), (3999, 100), (9_990, 1000)])
def test_lines_are_those_of_the_json_and_of_the_texts_in_it(first: int, count: int) -> None:
    expected = "".join(lines_of(TABLE)[first - 1 : first - 1 + count])
    piece = ask(TABLE, first_line=first, lines=count)
    assert piece.text == expected
    assert TABLE.startswith(expected, (piece.next_offset or len(TABLE)) - len(expected))


def test_a_text_is_found_with_its_place_in_any_case() -> None:
    matches, offset = [], 0
    while True:
        found = ask(TABLE, search='SECOND \\ "19', offset=offset)
        matches += found.matches or []
        if found.next_offset is None:
            break
        offset = found.next_offset
    assert len(matches) == 111
    lines = lines_of(TABLE)
    for match in matches[:25]:
        assert TABLE[match.offset :].startswith('second \\\\ \\"19')
        assert 'second \\\\ \\"19' in lines[match.line - 1]
        assert match.text in TABLE
    assert ask(TABLE, search="not in it").matches == []


@pytest.mark.parametrize(
    "wishes", [{"offset": 10**30}, {"first_line": 10**30}, {"lines": 0}, {"length": 10**30}, {"offset": -1}]
)
def test_no_number_is_too_large_to_be_refused(wishes: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ask(TABLE, **wishes)


@pytest.mark.parametrize("wishes", [{"offset": len(TABLE) + 1}, {"first_line": 4_000_000}])
def test_what_begins_beyond_the_end_is_refused(wishes: dict[str, int]) -> None:
    with pytest.raises(ToolError) as beyond:
        ask(TABLE, **wishes)
    assert beyond.value.code == "beyond_the_end"
    assert ask(TABLE, offset=len(TABLE)) == Reading(total_chars=len(TABLE), next_offset=None, text="")
    assert ask(TABLE, search="row", offset=4_000_000).matches == []


@pytest.mark.parametrize("place", range(SEARCHED_AT_ONCE - 4, SEARCHED_AT_ONCE + 2))
def test_a_text_is_found_wherever_it_stands(place: int) -> None:
    whole = f"{'-' * place}Here{'-' * 100}here"
    found = ask(whole, search="here").matches or []
    assert [match.offset for match in found] == [place, place + 104]
    assert [match.offset for match in ask(whole, search="HERE", offset=place + 1).matches or []] == [place + 104]


async def test_nobody_waits_for_a_search_that_nearly_matches_everywhere() -> None:
    searching = asyncio.create_task(asyncio.to_thread(ask, "a" * 2_000_000, search="a" * 99 + "b"))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 8
    assert (await searching).matches == []
