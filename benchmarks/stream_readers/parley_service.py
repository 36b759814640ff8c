"""Parley's OpenAIService, as its server uses it."""

import asyncio
import sys
from contextlib import aclosing

from model_stream import CONTEXT
from parley_server.domain.content import TextPart
from parley_server.llm.model_service import FinishChunk, ModelRequest, RefusalChunk, TextChunk, UserMessage
from parley_server.llm.model_settings import ModelSettings
from parley_server.llm.openai_service import OpenAIService
from stream_readers.telling import Call, Told, tell


async def main() -> None:
    """Read what is asked for."""
    settings = ModelSettings.model_validate({"base_url": sys.argv[1], "name": "m", "api_key": "benchmark"})
    service = OpenAIService(settings)

    async def read(model: str) -> Told:
        request = ModelRequest(model, (UserMessage((TextPart("hi"),)),))
        text, refusal = "", ""
        calls: tuple[Call, ...] = ()
        async with aclosing(service.stream(CONTEXT, request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextChunk):
                    text += chunk.text
                elif isinstance(chunk, RefusalChunk):
                    refusal += chunk.text
                elif isinstance(chunk, FinishChunk):
                    calls = tuple(Call(call.call_id, call.name, call.arguments_json) for call in chunk.tool_calls)
        return Told(text, refusal, calls)

    await tell(read)


if __name__ == "__main__":
    asyncio.run(main())
