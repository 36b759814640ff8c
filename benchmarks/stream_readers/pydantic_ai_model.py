"""pydantic-ai's model of OpenAI's chat completions, and the response it puts together."""

import asyncio
import sys

from openai import AsyncOpenAI
from pydantic_ai.direct import model_request_stream  # type: ignore[import-not-found]  # installed in .venv-bench alone
from pydantic_ai.messages import (  # type: ignore[import-not-found]  # installed in .venv-bench alone
    ModelRequest,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models import ModelRequestParameters  # type: ignore[import-not-found]  # as above
from pydantic_ai.models.openai import OpenAIChatModel  # type: ignore[import-not-found]  # as above
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]  # as above
from pydantic_ai.tools import ToolDefinition  # type: ignore[import-not-found]  # as above
from stream_readers.telling import PARAMETERS, TOOLS, Call, Told, tell


async def main() -> None:
    """Read what is asked for."""
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="benchmark", max_retries=0)
    provider = OpenAIProvider(openai_client=client)
    tools = [
        ToolDefinition(name=name, description=told, parameters_json_schema=PARAMETERS) for name, told in TOOLS.items()
    ]
    parameters = ModelRequestParameters(function_tools=tools, allow_text_output=True)

    async def read(model: str) -> Told:
        asked = [ModelRequest.user_text_prompt("hi")]
        async with model_request_stream(
            OpenAIChatModel(model, provider=provider), asked, model_request_parameters=parameters
        ) as stream:
            async for _ in stream:
                pass
            parts = stream.get().parts
        text = "".join(part.content for part in parts if isinstance(part, TextPart))
        made = [part for part in parts if isinstance(part, ToolCallPart)]
        # As it came; without any it is the library that says what that means.
        calls = [Call.of(part.tool_call_id, part.tool_name, part.args or part.args_as_json_str()) for part in made]
        return Told(text, calls=tuple(calls))

    await tell(read)


if __name__ == "__main__":
    asyncio.run(main())
