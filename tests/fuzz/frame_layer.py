"""Frames in any order and form, on connections that keep no rule."""

import asyncio
from random import Random

from fuzz.bytes_at_random import mutated
from fuzz.layer import Layer
from parley.v1 import agent_service_pb2
from siege.connection import FrameConnection
from siege.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header_block,
    message,
)

_GET_RUN = "/parley.v1.AgentService/GetRun"
_REQUEST = agent_service_pb2.GetRunRequest(run_id="run").SerializeToString()
# What is not answered by then waits for more, as it should, and nobody waits for it here.
_PATIENCE_S = 0.05
_PAYLOADS = {
    SETTINGS: b"\x00\x04\x00\x00\xff\xff",
    PING: b"parley!!",
    PRIORITY: b"\x00\x00\x00\x00\x10",
    RST_STREAM: b"\x00\x00\x00\x08",
    WINDOW_UPDATE: b"\x00\x00\xff\xff",
    GOAWAY: bytes(8),
    PUSH_PROMISE: bytes(8),
    CONTINUATION: b"\x00\x01x\x01y",
}


class FrameLayer(Layer):
    """A few calls, with frames among them that have no business there, and some things wrong with all of them."""

    name = "frame"

    async def round(self, random: Random) -> None:
        """Use up one connection."""
        frames = _calls(random)
        for _ in range(random.randint(1, 8)):
            frames.insert(random.randint(0, len(frames)), _stray(random))
        raw = b"".join(frames)
        if random.random() < 0.3:
            random.shuffle(frames)
            raw = b"".join(frames)
        if random.random() < 0.4:
            raw = mutated(random, raw)
        async with FrameConnection(self._ground.address, settings=_settings(random)) as connection:
            await connection.send(raw)
            await connection.answered(len(frames), _PATIENCE_S)
            await asyncio.sleep(0)
            self._verdicts.note(self.name, "closed" if connection.closed.is_set() else "left open")
            for answer in connection.answers.values():
                if answer.ended:
                    self._verdicts.judge(self.name, answer, raw.hex(), is_broken=True)


def _calls(random: Random) -> list[bytes]:
    frames = []
    for stream in range(1, 2 * random.randint(1, 4), 2):
        block = header_block(_GET_RUN)
        cut = random.randint(0, len(block)) if random.random() < 0.2 else None
        if cut is None:
            frames.append(frame(HEADERS, END_HEADERS, stream, block))
        else:
            frames.append(frame(HEADERS, 0, stream, block[:cut]))
            frames.append(frame(CONTINUATION, END_HEADERS, stream, block[cut:]))
        body = message(_REQUEST, flag=random.choice((0, 0, 0, 1, 7)), length=random.choice((None, None, 2**32 - 1, 1)))
        frames.append(frame(DATA, END_STREAM if random.random() < 0.9 else 0, stream, body))
    return frames


def _stray(random: Random) -> bytes:
    """Return a frame of any kind, right or wrong in its flags, its stream, its payload or its length."""
    kind = random.choice([*_PAYLOADS, *_PAYLOADS, DATA, HEADERS, random.randrange(256)])
    payload = _PAYLOADS.get(kind, random.randbytes(random.randrange(20)))
    if random.random() < 0.3:
        payload = mutated(random, payload)
    flags = random.choice((0, 0, 1, 4, 5, 8, 0x20, random.randrange(256)))
    usual = 0 if kind in {SETTINGS, PING, GOAWAY} else 1
    stream = random.choice((usual, usual, 0, 1, 2, 3, 99, 2**31 - 1, 2**31))
    length = random.choice((0, 1, 4, 100, 2**14, 2**24 - 1)) if random.random() < 0.1 else None
    return frame(kind, flags, stream, payload, length=length)


def _settings(random: Random) -> bytes:
    """Return settings of ours, known ones of any value and unknown ones."""
    count = random.choice((0, 0, 1, 3))
    values = (0, 1, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
    return b"".join(
        random.choice((1, 2, 3, 4, 5, 6, 99)).to_bytes(2, "big") + random.choice(values).to_bytes(4, "big")
        for _ in range(count)
    )
