"""A client that makes one call and waits, to be killed: `python one_call.py ADDRESS METHOD`."""

import sys

import grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    method: "grpc.UnaryStreamMultiCallable[bytes, bytes]" = channel.unary_stream(
        f"/parley.v1.AgentService/{sys.argv[2]}"
    )
    for _ in method(b"\n\x03run", timeout=60):
        pass
