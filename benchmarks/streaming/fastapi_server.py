"""The usual way without Parley: FastAPI and the openai SDK, server-sent events out, nothing kept and nobody asked.

It runs in the virtual environment that stream.py makes: `uvicorn streaming.fastapi_server:app`, with UPSTREAM in the
environment.
"""

import os
from collections.abc import AsyncIterator

import openai
from fastapi import FastAPI, Request  # type: ignore[import-not-found]  # installed in .venv-bench alone
from fastapi.responses import StreamingResponse  # type: ignore[import-not-found]  # installed in .venv-bench alone

app = FastAPI()
client = openai.AsyncOpenAI(api_key="benchmark", base_url=os.environ["UPSTREAM"], max_retries=0)


@app.post("/chat")  # type: ignore[untyped-decorator]  # for the same reason
async def chat(request: Request) -> StreamingResponse:
    """Pass a chat's chunks on."""
    asked = await request.json()
    stream = await client.chat.completions.create(model=asked["model"], messages=asked["messages"], stream=True)

    async def events() -> AsyncIterator[str]:
        async for chunk in stream:
            yield f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
