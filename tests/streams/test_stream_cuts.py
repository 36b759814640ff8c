"""The corpus through the splitter and the builder: the same outcome however the bytes are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams.corpus import Case, cases
from streams.outcomes import in_parleys_terms, read
from streams.verdict import differences

# What HTTP itself does to an answer is no matter of the splitter: it is tested over a socket.
BODIES = [
    case
    for case in cases()
    if case.response.status == 200 and case.response.end == "close" and not case.response.headers
]
SMALL = [case for case in BODIES if len(case.body) <= 4096]


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def sizes(case: Case) -> list[int]:
    """1 byte takes a second for a mebibyte, and shows nothing more there."""
    return [1, 7, 4096, len(case.body) + 1] if len(case.body) < 65536 else [4096, 65535, len(case.body)]


def test_the_corpus_is_whole() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) >= 66
    assert all(case.title and case.sources for case in cases())
    for case in cases():
        assert (case.expected.finish is None) == (case.expected.outcome == "error") == bool(case.expected.error)


@pytest.mark.parametrize("case", BODIES, ids=lambda case: case.name)
def test_every_case_comes_out_as_expected(case: Case) -> None:
    for size in sizes(case):
        assert not differences(in_parleys_terms(case.expected), read(in_pieces(case.body, size))), size


@settings(max_examples=200)
@given(st.sampled_from(SMALL), st.data())
def test_no_cut_changes_the_outcome(case: Case, data: st.DataObject) -> None:
    places = st.integers(0, len(case.body))
    cuts = sorted(data.draw(st.lists(places, max_size=20)))
    reads = [case.body[start:end] for start, end in zip([0, *cuts], [*cuts, len(case.body)], strict=True)]
    assert not differences(in_parleys_terms(case.expected), read(reads))


@pytest.mark.parametrize("name", ["reply-of-two-kibibytes", "reply-with-a-call"])
def test_a_reply_that_ends_at_any_byte_is_whole_or_incomplete(name: str) -> None:
    case = next(case for case in BODIES if case.name == name)
    whole = case.expected
    # The finish is there as soon as its JSON is.
    end_of_finish = case.body.index(b"\n", case.body.index(b'"finish_reason":"'))
    for place in range(len(case.body)):
        came = read([case.body[:place]])
        if place < end_of_finish:
            assert (came.outcome, came.error, came.tool_calls) == ("error", "incomplete", ()), place
            assert whole.text.startswith(came.text), place
        else:
            assert (came.outcome, came.text, came.finish) == ("complete", whole.text, whole.finish), place
            assert len(came.tool_calls) == len(whole.tool_calls)
