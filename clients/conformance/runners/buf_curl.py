"""Runs the scenario's calls with `buf curl`, which learns the contract by reflection: `buf_curl.py BUF TARGET`."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

from google.rpc import error_details_pb2

SERVICE = "parley.v1.AgentService"


def main(buf: str, target: str) -> None:
    """Make the calls that are ordered on standard input."""
    for line in sys.stdin:
        print(json.dumps(outcome(buf, target, json.loads(line))), flush=True)


def outcome(buf: str, target: str, order: dict[str, Any]) -> dict[str, Any]:
    """Make one call and say what came of it."""
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", json.dumps(order["request"])]
    if "api_key" in order:
        command += ["--header", f"authorization: Bearer {order['api_key']}"]
    command.append(f"http://{target}/{SERVICE}/{order['rpc']}")
    messages: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        assert curl.stderr is not None
        for message in objects(curl.stdout):
            messages.append(message)
            if len(messages) == order.get("cut_after"):
                curl.kill()
                return {"code": "CUT", "messages": messages}
        complaint = curl.stderr.read()
    if curl.returncode == 0:
        return {"code": "OK", "messages": messages}
    return {**failure(complaint), "messages": messages}


def objects(stream: IO[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream as they arrive; each ends with a line of its own."""
    text = ""
    for line in stream:
        text += line
        if line.rstrip() in {"}", "{}"}:
            yield json.loads(text)
            text = ""


def failure(complaint: str) -> dict[str, Any]:
    """Return the code and the reason of the error that buf describes."""
    error = json.loads(complaint)
    details = {detail["type"]: detail["value"] for detail in error.get("details", ())}
    # Base64 without its padding.
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(details["google.rpc.ErrorInfo"] + "=="))
    return {"code": error["code"].upper(), "reason": info.reason}


main(*sys.argv[1:])
