"""The openai SDK's plain stream, put together by hand as its guide to function calling shows: calls by their index."""

import asyncio
import sys

import openai
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall
from stream_readers.openai_tools import OPENAI_TOOLS
from stream_readers.telling import Call, Told, tell


def add(call: ChoiceDeltaToolCall, piece: ChoiceDeltaToolCall) -> None:
    """Add the next piece of its arguments to a call."""
    if call.function and piece.function:
        call.function.arguments = (call.function.arguments or "") + (piece.function.arguments or "")


async def main() -> None:
    """Read what is asked for."""
    client = openai.AsyncOpenAI(base_url=sys.argv[1], api_key="benchmark", max_retries=0)

    async def read(model: str) -> Told:
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], tools=OPENAI_TOOLS, stream=True
        )
        text, refusal = "", ""
        calls: dict[int, ChoiceDeltaToolCall] = {}
        async for chunk in stream:
            if not chunk.choices:
                continue
            delta = chunk.choices[0].delta
            text += delta.content or ""
            refusal += delta.refusal or ""
            for call in delta.tool_calls or []:
                if call.index not in calls:
                    calls[call.index] = call
                else:
                    add(calls[call.index], call)
        made = [(call.id, call.function) for call in calls.values()]
        told = tuple(
            Call.of(call_id, function and function.name, function and function.arguments) for call_id, function in made
        )
        return Told(text, refusal, told)

    await tell(read)


if __name__ == "__main__":
    asyncio.run(main())
