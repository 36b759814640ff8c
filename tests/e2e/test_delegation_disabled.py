"""A server whose operator has named its providers, and not the one for delegation tokens."""

from pathlib import Path

import grpc
from e2e.conftest import RPC_DEADLINE_S
from parley.v1 import delegation_service_pb2 as pb
from parley.v1 import delegation_service_pb2_grpc as pb_grpc
from rpc.chassis import bearer, failed
from server_process import running_server


async def test_a_server_that_takes_no_tokens_makes_none_for_itself(tmp_path: Path) -> None:
    environment = {"PARLEY_AUTH__PROVIDERS": "api_key,local"}
    with running_server(tmp_path / "data", environment=environment) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: pb_grpc.DelegationServiceAsyncStub = pb_grpc.DelegationServiceStub(channel)
            for audience in ("", "parley"):
                request = pb.IssueDelegationTokenRequest(audience=audience)
                failure = await failed(stub.IssueDelegationToken(request, timeout=RPC_DEADLINE_S))
                assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DELEGATION_DISABLED")
            request = pb.IssueDelegationTokenRequest(audience="billing")
            token = (await stub.IssueDelegationToken(request, timeout=RPC_DEADLINE_S)).token
            listing = stub.ListDelegationKeys(
                pb.ListDelegationKeysRequest(), metadata=bearer(token), timeout=RPC_DEADLINE_S
            )
            assert (await failed(listing)).reason == "CREDENTIALS_INVALID"
