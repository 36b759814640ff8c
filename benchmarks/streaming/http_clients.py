"""Clients over HTTP, a connection a stream: `sse` asks as clients of OpenAI's do, `langgraph` as those of its server.

They find the stamps, whatever is around them. HTTP_API_KEY is sent where it is set.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator

from streaming.asked import Asked, Stream
from streaming.load import main
from streaming.script import STAMPS


async def sse_streams(asked: Asked) -> Stream:
    """Return what asks for a chat completion."""
    return _posted(asked, {"model": asked.model, "stream": True, "messages": _messages(asked, "hi")})


async def langgraph_streams(asked: Asked) -> Stream:
    """Return what asks for a run without a thread; the last message names the model."""
    messages = _messages(asked, asked.model)
    # A mode in which every message comes as the model sends it.
    return _posted(asked, {"assistant_id": "agent", "input": {"messages": messages}, "stream_mode": ["messages-tuple"]})


def _messages(asked: Asked, last: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate([*asked.texts(), last])]


def _posted(asked: Asked, content: dict[str, object]) -> Stream:
    host, slash, path = asked.address.partition("/")
    body = json.dumps(content)
    key = os.environ.get("HTTP_API_KEY")
    head = [
        f"POST {slash}{path} HTTP/1.1",
        f"host: {host}",
        "content-type: application/json",
        "connection: close",
        f"content-length: {len(body)}",
        *([f"authorization: Bearer {key}"] if key else []),
    ]
    request = ("\r\n".join(head) + "\r\n\r\n" + body).encode()
    return lambda: _texts(host, request)


async def _texts(address: str, request: bytes) -> AsyncIterator[str]:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    try:
        writer.write(request)
        left = ""
        while block := await reader.read(1 << 16):
            # An event may be cut by the read; what follows the last stamp is looked at again.
            read = left + block.decode()
            end = max((match.end() for match in STAMPS.finditer(read)), default=0)
            left = read[max(end, len(read) - 24) :]
            if text := "".join(STAMPS.findall(read)):
                yield text
    finally:
        writer.close()


if __name__ == "__main__":
    main({"sse": sse_streams, "langgraph": langgraph_streams})
