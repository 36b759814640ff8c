"""Runs the scenario's calls with Parley's own client, the blocking one."""

import json
import sys
from collections.abc import Generator
from contextlib import closing
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from parley.v1 import agent_service_pb2 as pb
from parley.v1.run_pb2 import RunSpec
from parley_client import ParleyError
from parley_client.sync import ParleyClient


def main(target: str) -> None:
    """Make the calls that are ordered on standard input."""
    with ParleyClient(target, api_key="") as usual:
        for line in sys.stdin:
            order = json.loads(line)
            if "api_key" in order:
                with ParleyClient(target, order["api_key"]) as other:
                    print(json.dumps(outcome(other, order)), flush=True)
            else:
                print(json.dumps(outcome(usual, order)), flush=True)


def outcome(client: ParleyClient, order: dict[str, Any]) -> dict[str, Any]:
    """Make one call and say what came of it."""
    messages: list[dict[str, Any]] = []
    try:
        with closing(responses(client, order["rpc"], order["request"])) as answers:
            for message in answers:
                messages.append(json_format.MessageToDict(message))
                if len(messages) == order.get("cut_after"):
                    return {"code": "CUT", "messages": messages}
    except ParleyError as error:
        return {"code": error.code.name, "reason": error.reason, "messages": messages}
    return {"code": "OK", "messages": messages}


def responses(client: ParleyClient, rpc: str, request: dict[str, Any]) -> Generator[Message]:
    """Yield what the client's method for an rpc returns, as the rpc's own responses."""
    match rpc:
        case "ListAgents":
            yield pb.ListAgentsResponse(agents=client.agents())
        case "StartRun":
            spec = json_format.ParseDict(request["run"], RunSpec())
            yield pb.StartRunResponse(run=client.start(spec, request_id=request.get("requestId", "")))
        case "GetRun":
            yield pb.GetRunResponse(run=client.get_run(request["runId"]))
        case "CancelRun":
            yield pb.CancelRunResponse(run=client.cancel_run(request["runId"], request.get("reason", "")))
        case "WatchRun":
            with client.watch(request["runId"], int(request.get("afterSeq", 0))) as events:
                for event in events:
                    yield pb.WatchRunResponse(event=event)
        case _:
            raise ValueError(rpc)


main(sys.argv[1])
