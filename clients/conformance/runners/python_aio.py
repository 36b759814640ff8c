"""Runs the scenario's calls with the generated asyncio stubs."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from parley.v1 import agent_service_pb2, agent_service_pb2_grpc


async def main(target: str) -> None:
    """Make the calls that are ordered on standard input."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await outcome(stub, json.loads(line))), flush=True)


async def outcome(stub: object, order: dict[str, Any]) -> dict[str, Any]:
    """Make one call and say what came of it."""
    request = getattr(agent_service_pb2, order["rpc"] + "Request")()
    json_format.ParseDict(order["request"], request)
    metadata = [("authorization", f"Bearer {order['api_key']}")] if "api_key" in order else []
    call = getattr(stub, order["rpc"])(request, metadata=metadata, timeout=30)
    messages: list[dict[str, Any]] = []
    try:
        async for message in responses(call):
            messages.append(json_format.MessageToDict(message))
            if len(messages) == order.get("cut_after"):
                call.cancel()
                return {"code": "CUT", "messages": messages}
    except grpc.aio.AioRpcError as error:
        return {"code": error.code().name, "reason": reason(error), "messages": messages}
    return {"code": "OK", "messages": messages}


async def responses(call: object) -> AsyncIterator[Message]:
    """Yield what a call answers, be it one message or a stream of them."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        yield await call
    elif isinstance(call, grpc.aio.UnaryStreamCall):
        async for message in call:
            yield message


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in an error's ErrorInfo."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    return str(info.reason)


asyncio.run(main(sys.argv[1]))
