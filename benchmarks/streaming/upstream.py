"""An upstream that costs little: OpenAI's chat completions, streamed, as the model's name says (script.py).

python -m streaming.upstream        prints its port and serves until it is ended
"""

import asyncio
import json
import re
from typing import cast

import uvloop
from streaming.script import Script, stamp

CHUNKS_PER_WRITE = 32
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_MARK = "MARK"


def _framed(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """Encode one chunk with all the fields that OpenAI sends."""
    chunk = {
        "id": "chatcmpl-0123456789abcdefghijklmnop",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "fake",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        "usage": None,
        "obfuscation": "aBcDeFgH",
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


_ROLE = _framed(_event({"role": "assistant", "content": ""}))
_BEFORE, _AFTER = _event({"content": _MARK}).split(_MARK.encode())
_TAIL = _framed(_event({}, "stop")) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _chunk() -> bytes:
    return _framed(_BEFORE + stamp().encode() + _AFTER)


class _Exchange(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._answer is not None:
            self._answer.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or length is None or len(body) < int(length[1]):
            return
        self._received = body[int(length[1]) :]
        model = _MODEL.search(body)
        assert model is not None
        transport = self._transport
        assert transport is not None
        transport.write(_HEAD + _ROLE)
        answer = self._paced if (script := Script.parse(model[1].decode())).gap_ms else self._burst
        self._answer = asyncio.create_task(answer(transport, script))
        if b"connection: close" in head.lower():
            self._answer.add_done_callback(lambda _: transport.close())

    async def _paced(self, transport: asyncio.Transport, script: Script) -> None:
        """Write each chunk at its own moment, however late the one before was."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(script.chunks):
            await asyncio.sleep(began + number * script.gap_ms / 1000 - loop.time())
            transport.write(_chunk())
        await self._end(transport, script)

    async def _burst(self, transport: asyncio.Transport, script: Script) -> None:
        for written in range(0, script.chunks, CHUNKS_PER_WRITE):
            await self._may_write.wait()
            group = [_chunk() for _ in range(min(CHUNKS_PER_WRITE, script.chunks - written))]
            transport.write(b"".join(group))
        await self._end(transport, script)

    async def _end(self, transport: asyncio.Transport, script: Script) -> None:
        if script.hold_ms:
            await asyncio.sleep(script.hold_ms / 1000)
        transport.write(_TAIL)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(_Exchange, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
