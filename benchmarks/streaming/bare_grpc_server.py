"""The floor: a bare grpc.aio server that streams the contract's events without a model, a user or a store behind them.

python -m streaming.bare_grpc_server        prints its port and serves until it is ended
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp
from parley.v1.agent_service_pb2 import RunAgentRequest, RunAgentResponse
from parley.v1.run_event_pb2 import RunEvent, TextDelta
from streaming.script import Script, stamp

# As long as the server's own.
_RUN_ID = "run_01K0000000000000000000000"
_CONVERSATION_ID = "conv_01K0000000000000000000000"
_ITEM_ID = "item_01K0000000000000000000000"


def _message(seq: int) -> RunAgentResponse:
    now = Timestamp()
    now.GetCurrentTime()
    event = RunEvent(
        run_id=_RUN_ID,
        conversation_id=_CONVERSATION_ID,
        seq=seq,
        emit_time=now,
        attempt=1,
        item_id=_ITEM_ID,
        text_delta=TextDelta(text=stamp()),
    )
    return RunAgentResponse(event=event)


async def _run_agent(request: RunAgentRequest, _: object) -> AsyncIterator[RunAgentResponse]:
    script = Script.parse(request.run.model_options.model)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(script.chunks):
        if script.gap_ms:
            await asyncio.sleep(began + number * script.gap_ms / 1000 - loop.time())
        yield _message(number + 1)
    if script.hold_ms:
        await asyncio.sleep(script.hold_ms / 1000)


async def main() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        _run_agent, RunAgentRequest.FromString, RunAgentResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("parley.v1.AgentService", {"RunAgent": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
