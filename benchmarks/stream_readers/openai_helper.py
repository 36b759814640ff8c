"""The openai SDK's own helper: chat.completions.stream() and the completion it puts together."""

import asyncio
import sys

import openai
from stream_readers.openai_tools import OPENAI_TOOLS
from stream_readers.telling import Call, Told, said, tell


async def main() -> None:
    """Read what is asked for."""
    client = openai.AsyncOpenAI(base_url=sys.argv[1], api_key="benchmark", max_retries=0)

    async def read(model: str) -> Told:
        async with client.chat.completions.stream(
            model=model, messages=[{"role": "user", "content": "hi"}], tools=OPENAI_TOOLS
        ) as stream:
            completion = await stream.get_final_completion()
        message = completion.choices[0].message
        calls = [Call.of(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
        return Told(said(message.content), said(message.refusal), tuple(calls))

    await tell(read)


if __name__ == "__main__":
    asyncio.run(main())
