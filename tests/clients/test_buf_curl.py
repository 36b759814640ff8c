"""`buf curl`: a whole client from reflection alone, of a server that asks for credentials."""

import asyncio
import json

from clients.node_tools import BUF, require_node
from rpc.chassis import Chassis, running

SERVICE = "parley.v1.AgentService"


async def curl(chassis: Chassis, *arguments: str, path: str = "") -> tuple[int, str]:
    """Run it with the key that the server gives out; return its exit code and its output."""
    key = chassis.keys.issue("ann")
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    command += ["--header", f"authorization: Bearer {key}", "--reflect-header", "*"]
    process = await asyncio.create_subprocess_exec(
        *command, f"http://{chassis.address}{path}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return await process.wait(), output.decode()


async def test_services_are_listed_and_described_and_called() -> None:
    require_node("@bufbuild/buf")
    async with running(reflection=True, types=["api_key"]) as chassis:
        code, output = await curl(chassis, "--list-services")
        reflection = [f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha")]
        assert (code, output.split()) == (0, ["grpc.health.v1.Health", *reflection, SERVICE])
        code, output = await curl(chassis, "--list-methods")
        assert (code, f"{SERVICE}/WatchRun" in output.split()) == (0, True)
        code, output = await curl(chassis, "--data", '{"runId": "run"}', path=f"/{SERVICE}/GetRun")
        assert (code, json.loads(output)["run"]["agentId"]) == (0, "ann")
        code, output = await curl(chassis, "--data", '{"runId": "run"}', path=f"/{SERVICE}/WatchRun")
        assert (code, output.count('"seq"')) == (0, 3)


async def test_it_falls_back_to_no_other_version_where_there_is_no_reflection() -> None:
    require_node("@bufbuild/buf")
    async with running(types=["api_key"]) as chassis:
        code, output = await curl(chassis, "--list-services")
        assert (code != 0, "unimplemented" in output.lower()) == (True, True)
