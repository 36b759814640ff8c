"""OpenAIService's limits of time, what may be asked again after a failure, and servers nobody vouches for."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import certificates
import pytest
from model_server import DONE, ModelServer, RawAnswer, delta_frame, finish_frame, frame, text_frame
from parley_server.domain.errors import Reason
from parley_server.llm.model_errors import UnverifiedServerError
from parley_server.llm.model_service import FinishChunk, ModelError, ModelService, Remedy
from structlog.testing import capture_logs
from unit.llm.service_calls import CONTEXT, HELLO, WHOLE, ask, failure, service_at

# Events that say nothing, in every form that servers keep connections alive with.
SILENT_EVENTS = (b"data:\n\n", b"data: \n\n", b": ping\n\n", b"\n\n", b"event: ping\n\n", b"data:\r\n\r\n", b"\n")


@pytest.mark.parametrize("before", [(), (text_frame("Hi"),)])
async def test_only_events_that_say_something_keep_an_answer_alive(
    upstream: ModelServer, before: tuple[bytes, ...]
) -> None:
    # Each form comes several times before the time is out.
    upstream.enqueue(RawAnswer([*before, *SILENT_EVENTS * 100], pause_s=0.01))
    error = await failure(upstream, first_event_timeout_s=30 if before else 0.4, gap_timeout_s=0.4)
    assert error.reason == Reason.MODEL_TIMEOUT
    assert error.remedy is (Remedy.NONE if before else Remedy.ASK_ANOTHER)


async def test_an_event_that_never_ends_is_none(upstream: ModelServer) -> None:
    event = text_frame("a long one")
    upstream.enqueue(RawAnswer([text_frame("Hi"), *[event[n : n + 1] for n in range(len(event))]], pause_s=0.05))
    assert (await failure(upstream, gap_timeout_s=0.3)).reason == Reason.MODEL_TIMEOUT


async def test_an_answer_that_goes_on_and_on_is_cut_at_its_total_time(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("x")] * 1000, pause_s=0.02))
    error = await failure(upstream, total_timeout_s=0.4, gap_timeout_s=0.2)
    assert (error.reason, error.remedy) == (Reason.MODEL_TIMEOUT, Remedy.NONE)


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (RawAnswer([], then="reset"), Remedy.ASK_AGAIN),
        (RawAnswer([b": busy\n\n"], then="reset"), Remedy.ASK_AGAIN),
        (RawAnswer([frame({"choices": []})], then="reset"), Remedy.NONE),
        (RawAnswer([delta_frame(tool_calls=[{"index": 0, "id": "1"}])], then="reset"), Remedy.NONE),
        (RawAnswer([DONE]), Remedy.NONE),
    ],
)
async def test_whether_it_may_be_asked_again_is_decided_by_the_first_event(
    upstream: ModelServer, answer: RawAnswer, remedy: Remedy
) -> None:
    upstream.enqueue(answer)
    error = await failure(upstream)
    assert (error.reason, error.remedy) == (Reason.MODEL_STREAM_INCOMPLETE, remedy)


def whole_until(cut: int) -> bytes:
    pieces = b"".join(text_frame(f"word {number} ") for number in range(24))
    return (pieces + finish_frame() + DONE)[:cut]


LENGTH = len(whole_until(1_000_000))
FINISHED = LENGTH - len(DONE)


async def check_cuts(upstream: ModelServer, cuts: range) -> None:
    for cut in cuts:
        upstream.enqueue(RawAnswer([whole_until(cut)], then="reset" if cut % 2 else "end"))
    async with service_at(upstream) as service:
        for cut in cuts:
            whole = await is_whole(service)
            # At the body's end the last event needs no blank line behind it.
            assert cut >= FINISHED - 2 if whole else cut < FINISHED, cut


async def is_whole(service: ModelService) -> bool:
    """Ask; tell whether the answer was whole, and fail on any other error than that it was not."""
    async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
        try:
            answer = [chunk async for chunk in chunks]
        except ModelError as error:
            # Of an event that was cut within its JSON it is told that it is broken.
            if error.reason not in {Reason.MODEL_STREAM_INCOMPLETE, Reason.MODEL_RESPONSE_INVALID}:
                raise
            return False
    return isinstance(answer[-1], FinishChunk)


async def test_an_answer_that_is_cut_is_never_a_whole_one(upstream: ModelServer) -> None:
    await check_cuts(upstream, range(0, LENGTH, 101))
    await check_cuts(upstream, range(FINISHED - 4, LENGTH))


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_an_answer_cut_at_every_byte_is_never_a_whole_one(upstream: ModelServer) -> None:
    assert LENGTH >= 2048
    await check_cuts(upstream, range(LENGTH))


@asynccontextmanager
async def tls_server(pair: certificates.Pair, folder: Path) -> AsyncIterator[str]:
    """Answer every request with WHOLE over TLS; yield the base URL."""
    files = pair.write(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.private_key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + WHOLE)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def unverified(upstream: ModelServer, base_url: str) -> tuple[UnverifiedServerError, str]:
    """Ask in vain; return the error and the hint in the log."""
    with capture_logs() as logs:
        error = await failure(upstream, base_url=base_url)
    (line,) = (line for line in logs if line["event"] == "model_call_failed")
    assert line["log_level"] == "error"
    assert isinstance(error, UnverifiedServerError)
    assert (error.reason, error.remedy) == (Reason.MODEL_UNAVAILABLE, Remedy.ASK_ANOTHER)
    return error, str(line["hint"])


async def test_a_certificate_of_an_unknown_ca_is_refused_with_the_remedy_in_the_log(
    upstream: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = certificates.authority()
    async with tls_server(certificates.issued_by(ca), tmp_path / "server") as base_url:
        error, hint = await unverified(upstream, base_url)
        assert error.message == "no secure connection to the model's server could be made"
        assert "unable to get local issuer certificate" in hint
        assert "ca-certificates" in hint
        (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert isinstance((await ask(upstream, HELLO, base_url=base_url))[-1], FinishChunk)


async def test_a_certificate_for_another_host_is_refused(
    upstream: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = certificates.authority()
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    other = certificates.issued_by(ca, hosts=["model.example"])
    async with tls_server(other, tmp_path / "server") as base_url:
        _, hint = await unverified(upstream, base_url)
        assert "mismatch" in hint


async def test_a_ca_store_that_is_not_there_is_told_by_the_first_call(
    upstream: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    _, hint = await unverified(upstream, upstream.base_url)
    assert "SSL_CERT_FILE" in hint


async def test_https_to_a_port_that_speaks_http_is_told(upstream: ModelServer) -> None:
    _, hint = await unverified(upstream, upstream.base_url.replace("http:", "https:"))
    assert "TLS" in hint


async def test_a_host_without_an_address_may_be_asked_again(upstream: ModelServer) -> None:
    error = await failure(upstream, base_url="http://nobody.invalid/v1")
    assert (error.reason, error.remedy) == (Reason.MODEL_UNAVAILABLE, Remedy.ASK_AGAIN)
