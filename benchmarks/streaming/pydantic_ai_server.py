"""A pydantic-ai agent behind FastAPI, server-sent events out, nothing kept and nobody asked.

It runs in a virtual environment of its own: `uvicorn streaming.pydantic_ai_server:app`, with UPSTREAM in the
environment. The messages before the last one are the agent's history.
"""

import json
import os
from collections.abc import AsyncIterator
from functools import cache

from fastapi import FastAPI, Request  # type: ignore[import-not-found]  # installed in .venv-bench alone
from fastapi.responses import StreamingResponse  # type: ignore[import-not-found]  # installed in .venv-bench alone
from pydantic_ai import Agent  # type: ignore[import-not-found]  # installed in .venv-bench alone
from pydantic_ai.messages import (  # type: ignore[import-not-found]  # installed in .venv-bench alone
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIChatModel  # type: ignore[import-not-found]  # for the same reason
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]  # for the same reason

app = FastAPI()
provider = OpenAIProvider(base_url=os.environ["UPSTREAM"], api_key="benchmark")


@cache
def agent_of(model: str) -> Agent:
    """Return the agent that asks a model."""
    return Agent(OpenAIChatModel(model, provider=provider))


def message_of(said: dict[str, str]) -> ModelRequest | ModelResponse:
    """Map a message of a chat to the library's."""
    if said["role"] == "user":
        return ModelRequest(parts=[UserPromptPart(content=said["content"])])
    return ModelResponse(parts=[TextPart(content=said["content"])])


@app.post("/chat")  # type: ignore[untyped-decorator]  # for the same reason
async def chat(request: Request) -> StreamingResponse:
    """Run the agent and pass its text on, every piece as it comes."""
    asked = await request.json()
    *before, last = asked["messages"]
    history = [message_of(said) for said in before]

    async def events() -> AsyncIterator[str]:
        async with agent_of(asked["model"]).run_stream(last["content"], message_history=history) as answer:
            async for text in answer.stream_text(delta=True, debounce_by=None):
                yield f"data: {json.dumps({'text': text})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
