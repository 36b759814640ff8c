"""Clients of an a2a-sdk server over gRPC; they run in its virtual environment.

What comes back is searched for stamps and not taken apart otherwise. The parts of the request's message are the
conversation so far, and the last one names the model.
"""

from collections.abc import AsyncIterable, AsyncIterator
from uuid import uuid4

import grpc
from a2a.types.a2a_pb2 import (  # type: ignore[import-not-found]  # installed in .venv-bench alone
    ROLE_USER,
    Message,
    Part,
    SendMessageRequest,
)
from streaming.asked import Asked, Stream
from streaming.load import main
from streaming.script import STAMPS

METHOD = "/lf.a2a.v1.A2AService/SendStreamingMessage"
_METADATA = (("a2a-version", "1.0"),)


async def a2a_streams(asked: Asked) -> Stream:
    """Return what sends a message, over one connection."""
    channel = grpc.aio.insecure_channel(asked.address)
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(METHOD)
    parts = [Part(text=text) for text in (*asked.texts(), asked.model)]

    def stream() -> AsyncIterator[str]:
        message = Message(message_id=uuid4().hex, role=ROLE_USER, parts=parts)
        return _texts(call(SendMessageRequest(message=message).SerializeToString(), metadata=_METADATA))

    return stream


async def _texts(call: AsyncIterable[bytes]) -> AsyncIterator[str]:
    async for message in call:
        if text := "".join(STAMPS.findall(message.decode(errors="replace"))):
            yield text


if __name__ == "__main__":
    main({"a2a": a2a_streams})
