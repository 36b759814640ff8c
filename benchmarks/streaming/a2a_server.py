"""An a2a-sdk server over gRPC, with the smallest executor that streams what the openai SDK gives it.

python -m streaming.a2a_server        prints its port and serves until it is ended; UPSTREAM is in the environment

It runs in a virtual environment of its own. The parts of a message are the conversation so far; the last names the
model.
"""

import os
from uuid import uuid4

import grpc
import openai
import uvloop
from a2a.helpers.proto_helpers import (  # type: ignore[import-not-found]  # installed in .venv-bench alone
    new_task_from_user_message,
    new_text_part,
)
from a2a.server.agent_execution import (  # type: ignore[import-not-found]  # installed in .venv-bench alone
    AgentExecutor,
    RequestContext,
)
from a2a.server.events import EventQueue  # type: ignore[import-not-found]  # installed in .venv-bench alone
from a2a.server.request_handlers.default_request_handler_v2 import (  # type: ignore[import-not-found]  # as above
    DefaultRequestHandlerV2,
)
from a2a.server.request_handlers.grpc_handler import GrpcHandler  # type: ignore[import-not-found]  # as above
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater  # type: ignore[import-not-found]  # as above
from a2a.types.a2a_pb2 import (  # type: ignore[import-not-found]  # as above
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
)
from a2a.types.a2a_pb2_grpc import (  # type: ignore[import-not-found]  # as above
    add_A2AServiceServicer_to_server,
)
from openai.types.chat import ChatCompletionMessageParam


def message_of(number: int, text: str) -> ChatCompletionMessageParam:
    """Map a part to a chat's message; user and assistant take turns."""
    if number % 2:
        return {"role": "assistant", "content": text}
    return {"role": "user", "content": text}


class Executor(AgentExecutor):  # type: ignore[misc]  # its base is installed in .venv-bench alone
    """Answers a message by asking the model, an artifact's piece per chunk."""

    def __init__(self) -> None:
        self._client = openai.AsyncOpenAI(api_key="benchmark", base_url=os.environ["UPSTREAM"], max_retries=0)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run one task."""
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        texts = [part.text for part in context.message.parts]
        messages = [message_of(number, text) for number, text in enumerate([*texts[:-1], "hi"])]
        artifact_id, is_first = uuid4().hex, True
        async for chunk in await self._client.chat.completions.create(model=texts[-1], messages=messages, stream=True):
            if chunk.choices and (text := chunk.choices[0].delta.content):
                await updater.add_artifact([new_text_part(text)], artifact_id=artifact_id, append=not is_first)
                is_first = False
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Refuse: nobody cancels here."""
        raise NotImplementedError


async def main() -> None:
    """Serve until the process is ended."""
    card = AgentCard(
        name="benchmark",
        description="Streams what a model says.",
        version="1",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[AgentInterface(url="127.0.0.1", protocol_binding="GRPC", protocol_version="1.0")],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="stream", name="stream", description="Streams.", tags=["stream"])],
    )
    handler = DefaultRequestHandlerV2(agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=card)
    server = grpc.aio.server()
    add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
