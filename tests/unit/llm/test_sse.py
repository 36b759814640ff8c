"""The splitter: the same events however the bytes are cut, and bounded work for any bytes."""

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.domain.errors import Reason
from parley_server.llm.model_service import ModelError
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
        (b'{"a":\n\n 1}\n', [b'{"a":\n\n 1}\n']),
        (b"", []),
        (b": only comments\n\n", []),
    ],
)
def test_events_are_found_whatever_the_line_ends(stream: bytes, expected: list[bytes]) -> None:
    assert payloads(stream) == expected
    assert payloads(*bytewise(stream)) == expected


def test_the_type_of_an_event_is_kept() -> None:
    assert split(b"event: error\ndata: x\n\n") == [SseEvent(b"x", b"error")]


def test_a_body_that_is_neither_stream_nor_json_is_refused() -> None:
    with pytest.raises(ModelError, match="neither") as raised:
        split(b"<html><body>busy</body></html>\n")
    assert raised.value.reason == Reason.MODEL_RESPONSE_INVALID


@pytest.mark.parametrize("head", [b"data: ", b"{", b""])
def test_an_endless_event_is_refused(head: bytes) -> None:
    with pytest.raises(ModelError, match="too long"):
        split(head, *[b"x" * 65536] * (MAX_FRAME_BYTES // 65536 + 1))


def test_an_endless_stream_of_comments_is_refused() -> None:
    comment = b":" + b"x" * 65533 + b"\n\n"
    with pytest.raises(ModelError, match="too long"):
        split(*[comment] * (MAX_RESPONSE_BYTES // 65536 + 1))


@pytest.mark.parametrize("filler", [b"x", b" ", b"\n"])
def test_work_is_linear_when_fed_byte_by_byte(filler: bytes) -> None:
    def seconds(size: int) -> float:
        splitter = SseSplitter()
        splitter.feed(b"data: " if filler == b"x" else b"")
        started = time.process_time()
        for _ in range(size):
            splitter.feed(filler)
        return time.process_time() - started

    seconds(1000)
    assert seconds(200_000) < 40 * seconds(20_000)


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
def test_arbitrary_bytes_raise_only_model_errors(reads: list[bytes]) -> None:
    with suppress(ModelError):
        split(*reads)
