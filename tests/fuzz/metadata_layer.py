"""Metadata with anything in it, on calls that are in order otherwise."""

import base64
from random import Random

from fuzz.bytes_at_random import mutated
from fuzz.layer import HANG_S, Layer
from parley.v1 import agent_service_pb2, conversation_service_pb2, request_context_pb2
from siege.connection import FrameConnection
from siege.frames import DATA, END_HEADERS, END_STREAM, HEADERS, MAX_FRAME_BYTES, frame, header_block, message

Pair = tuple[bytes, bytes]

_CALLS = 8
_GOOD = (
    ("/parley.v1.AgentService/GetRun", agent_service_pb2.GetRunRequest(run_id="run")),
    ("/parley.v1.AgentService/WatchRun", agent_service_pb2.WatchRunRequest(run_id="run")),
    ("/parley.v1.ConversationService/ListConversations", conversation_service_pb2.ListConversationsRequest()),
    ("/grpc.health.v1.Health/Check", conversation_service_pb2.ListConversationsRequest()),
)
_CONTEXT = request_context_pb2.RequestContext(time_zone="Asia/Tokyo", locale="ja-JP", metadata={"a": "b"})


class MetadataLayer(Layer):
    """Calls whose metadata is not in order."""

    name = "metadata"

    async def round(self, random: Random) -> None:
        """Make some calls at once on one connection."""
        async with FrameConnection(self._ground.address) as connection:
            cases = []
            for stream in range(1, 2 * _CALLS, 2):
                method, body = random.choice(_GOOD)
                block = header_block(method, self._metadata(random))
                cases.append((stream, f"{method} headers {block.hex()}"))
                opening = frame(HEADERS, END_HEADERS, stream, block[:MAX_FRAME_BYTES])
                await connection.send(opening + frame(DATA, END_STREAM, stream, message(body.SerializeToString())))
            if not await connection.answered(len(cases), HANG_S):
                self._verdicts.bug(self.name, "never answered", "\n    ".join(case for _, case in cases))
            if connection.closed.is_set():
                self._verdicts.note(self.name, "closed")
            for stream, case in cases:
                if (answer := connection.answers.get(stream)) is not None and answer.ended:
                    self._verdicts.judge(self.name, answer, case, is_broken=True)

    def _metadata(self, random: Random) -> list[Pair]:
        pairs = [pair for pair in self._usual(random) if random.random() < 0.4]
        for _ in range(random.randint(0, 3)):
            pairs = _disturbed(random, pairs)
        return pairs

    def _usual(self, random: Random) -> list[Pair]:
        binary = _CONTEXT.SerializeToString()
        if random.random() < 0.5:
            binary = mutated(random, binary)
        return [
            (b"authorization", f"Bearer {self._ground.key}".encode()),
            (b"parley-context-bin", base64.b64encode(binary)),
            (b"parley-context", b'{"timeZone": "Asia/Tokyo", "metadata": {"a": "b"}}'),
            (b"x-request-id", b"mine-1"),
            (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            (b"grpc-timeout", random.choice((b"5S", b"1n", b"0S", b"-1S", b"99999999H", b"999999999S", b"abc", b"1m"))),
            (b"grpc-encoding", random.choice((b"gzip", b"identity", b"deflate", b"snappy", b""))),
            (b"grpc-accept-encoding", b"gzip"),
            (b"user-agent", b"fuzz"),
        ]


def _disturbed(random: Random, pairs: list[Pair]) -> list[Pair]:
    """Do one thing to the metadata."""
    if not pairs:
        return [(b"x-%d" % random.randrange(9), random.randbytes(random.randrange(40)))]
    name, value = random.choice(pairs)
    at = random.randrange(len(pairs))
    match random.randrange(6):
        case 0:
            return [*pairs, (name, value)]
        case 1:
            return [*pairs[:at], (name, mutated(random, value)), *pairs[at + 1 :]]
        case 2:
            return [*pairs[:at], (mutated(random, name, 1), value), *pairs[at + 1 :]]
        case 3:
            return [*pairs, (name, value * random.choice((2, 50, 200)))]
        case 4:
            return pairs + [(b"x-%d" % number, b"x") for number in range(random.choice((10, 300)))]
        case _:
            return [*pairs, (random.choice((b":path", b":method", b"te", b"Upper", b"", b"a b")), value)]
