"""The splitter: the same events however the bytes are cut, and bounded work for any bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.llm.sse import MAX_FRAME_BYTES, MAX_RESPONSE_BYTES, SseEvent, SseSplitter


def split(*reads: bytes) -> list[SseEvent]:
    splitter = SseSplitter()
    events = [event for read in reads for event in splitter.feed(read)]
    return events + splitter.finish()


def payloads(*reads: bytes) -> list[bytes]:
    return [event.payload for event in split(*reads)]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[place : place + 1] for place in range(len(stream))]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\r\n\r\n", [b"a"]),
        (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
        (b": PROCESSING\n\ndata: a\n: comment\n\n", [b"a"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"data: a\ndata: b\ndata\n\n", [b"a\nb\n"]),
        (b"id: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data: a\n\ndata: b\n", [b"a", b"b"]),
        ("data: grün\n\n".encode(), ["grün".encode()]),
        (b'data: a\n\n{"error": 1}\n\n', [b"a", b'{"error": 1}']),
        (b'{"a":\n\n 1}\n', [b'{"a":\n\n 1}']),
        (b'{"a": 1}\n\ndata: [DONE]\n\n', [b'{"a": 1}']),
        (b'data: {"a": 1}\ndata: {"a": 2}\ndata: [DONE]\n\n', [b'{"a": 1}', b'{"a": 2}', b"[DONE]"]),
        (b'data: {"a":\ndata: {"b": 2}}\n\n', [b'{"a":\n{"b": 2}}']),
        (b"", []),
        (b": only comments\n\n", []),
    ],
)
def test_events_are_found_whatever_the_line_ends(stream: bytes, expected: list[bytes]) -> None:
    assert payloads(stream) == expected
    assert payloads(*bytewise(stream)) == expected


def test_the_type_of_an_event_is_kept() -> None:
    assert split(b"event: error\ndata: x\n\n") == [SseEvent(b"x", b"error")]


def test_what_the_end_of_the_stream_cuts_is_marked() -> None:
    assert split(b'data: {"a": 1}\n\ndata: {"a"')[1] == SseEvent(b'{"a"', is_cut=True)
    assert split(b"data: x\n") == [SseEvent(b"x")]
    assert split(b'{"a": ') == [SseEvent(b'{"a":', is_cut=True)]
    assert split(b"dat") == []


def test_errors_outside_of_data_are_events() -> None:
    assert split(b"error: boom\n\n") == [SseEvent(b"boom", b"error")]
    assert split(b"event: error\n\n") == [SseEvent(b"", b"error")]


def problems(*reads: bytes) -> list[str]:
    return [event.problem for event in split(*reads) if event.problem]


@pytest.mark.parametrize("body", [b"<html><body>busy</body></html>\n", b"no healthy upstream", b'[{"error": {}}]'])
def test_a_body_that_is_neither_stream_nor_json_is_refused(body: bytes) -> None:
    assert problems(body) == problems(*bytewise(body)) == ["it is neither an event stream nor JSON"]


@pytest.mark.parametrize("head", [b"data: ", b"{", b""])
def test_an_endless_event_is_refused(head: bytes) -> None:
    splitter = SseSplitter()
    splitter.feed(head)
    events = [event for _ in range(2 * MAX_FRAME_BYTES // 65536) for event in splitter.feed(b"x" * 65536)]
    assert [*events, *splitter.finish()] == [SseEvent(b"", problem="one event is too long")]


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("size", [MAX_FRAME_BYTES + 100, 65536])
def test_the_limit_on_an_event_does_not_depend_on_the_cut(size: int, over: int) -> None:
    stream = b"data: a\n\n\ndata: " + b"x" * (MAX_FRAME_BYTES - 6 + over) + b"\n\ndata: b\n\n"
    events = split(*[stream[start : start + size] for start in range(0, len(stream), size)])
    assert events[0] == SseEvent(b"a")
    assert [event.problem for event in events[1:]] == (["one event is too long"] if over else ["", ""])


def test_an_endless_stream_of_comments_is_refused() -> None:
    comment = b":" + b"x" * 65533 + b"\n\n"
    assert problems(*[comment] * (MAX_RESPONSE_BYTES // 65536 + 2)) == ["it is too long"]


@pytest.mark.parametrize(("filler", "size"), [(b"x", 1024 * 1024), (b" ", 65536), (b"\n", 65536)])
def test_reads_of_one_byte(filler: bytes, size: int) -> None:
    """Were each read as much work as all before it, the time limit of a test would be passed."""
    splitter = SseSplitter()
    splitter.feed(b"data: a\n\n" + (b"data: " if filler == b"x" else b""))
    assert not [event for _ in range(size) for event in splitter.feed(filler)]
    assert [event.payload for event in splitter.finish()] == ([b"x" * size] if filler == b"x" else [])


LINES = st.lists(
    st.one_of(
        st.binary(max_size=12).map(lambda text: b"data: " + text.translate(None, b"\r\n")),
        st.sampled_from([b"", b"", b": comment", b"event: error", b"data", b"id: 7", b'{"error": 1}', b"junk"]),
    ),
    max_size=30,
)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@settings(deadline=None)
@given(st.data(), LINES, LINE_ENDS, st.booleans())
def test_any_cut_gives_the_same_events(data: st.DataObject, lines: list[bytes], end: bytes, bom: bool) -> None:
    stream = b"\xef\xbb\xbf" * bom + b"data: first" + end + end + end.join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reads = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(*reads) == split(stream)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_arbitrary_bytes_raise_nothing_and_nothing_follows_a_problem(reads: list[bytes]) -> None:
    assert not any(event.problem for event in split(*reads)[:-1])
