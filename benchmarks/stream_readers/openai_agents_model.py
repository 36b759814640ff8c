"""openai-agents' model of chat completions, and the response it puts together."""

import asyncio
import sys

from agents import (  # type: ignore[import-not-found]  # installed in .venv-bench alone
    FunctionTool,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
)
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage
from stream_readers.telling import PARAMETERS, TOOLS, Call, Told, tell


async def run_tool(_context: object, _arguments: str) -> str:
    """Never called: the calls are read, not run."""
    raise NotImplementedError


async def main() -> None:
    """Read what is asked for."""
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="benchmark", max_retries=0)
    tools = [
        FunctionTool(name, told, PARAMETERS, on_invoke_tool=run_tool, strict_json_schema=False)
        for name, told in TOOLS.items()
    ]

    async def read(model: str) -> Told:
        response: Response | None = None
        async for event in OpenAIChatCompletionsModel(model, client).stream_response(
            None, "hi", ModelSettings(), tools, None, [], ModelTracing.DISABLED
        ):
            if event.type == "response.completed":
                response = event.response
        assert response is not None
        return told_of(response)

    await tell(read)


def told_of(response: Response) -> Told:
    """Return what a response holds."""
    messages = [item for item in response.output if isinstance(item, ResponseOutputMessage)]
    parts = [part for message in messages for part in message.content]
    calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
    return Told(
        "".join(part.text for part in parts if part.type == "output_text"),
        "".join(part.refusal for part in parts if part.type == "refusal"),
        tuple(Call.of(call.call_id, call.name, call.arguments) for call in calls),
    )


if __name__ == "__main__":
    asyncio.run(main())
