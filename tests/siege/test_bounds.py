"""What one stranger may take: connections, and room for messages that do not end."""

import asyncio
from dataclasses import replace
from pathlib import Path

from rpc.chassis import GET_RUN, QUICK, running
from server_process import running_server
from siege.attack import Target
from siege.connection import FrameConnection
from siege.frames import FIRST_WINDOW, call_frames
from siege.half_open import HEALTH, LARGEST, withhold
from siege.several import connections, tally_of


async def test_connections_over_the_limit_are_closed_and_those_that_go_make_room(tmp_path: Path) -> None:
    environment = {"PARLEY_SERVER__MAX_CONNECTIONS": "10"}
    with running_server(tmp_path / "data", environment=environment) as server:
        target = Target(server.address, 15, 0, "")
        for _ in range(2):
            async with connections(target, target.size) as opened:
                await asyncio.gather(*(connection.send(call_frames(1, HEALTH, b"")) for connection in opened))
                await asyncio.gather(*(connection.answered(1, 10) for connection in opened))
                assert tally_of(opened) == {"connections closed by the server": 5, "status 0": 10}
            # The server has to notice that they are gone.
            await asyncio.sleep(0.5)


async def test_a_connection_gets_room_for_a_few_messages_at_a_time() -> None:
    limits = replace(QUICK, first_message_s=60, messages_at_once=2)
    async with running(limits=limits) as chassis, FrameConnection(chassis.address) as connection:
        await withhold(connection, 10)
        assert 2 * LARGEST - 200 <= connection.sent_bytes <= 2 * LARGEST + 8 * FIRST_WINDOW


async def test_calls_that_wait_for_their_turn_to_be_read_are_all_answered() -> None:
    async with (
        running(limits=replace(QUICK, unary_s=10, first_message_s=10, messages_at_once=2)) as chassis,
        FrameConnection(chassis.address) as connection,
    ):
        for stream in range(1, 400, 2):
            await connection.send(call_frames(stream, GET_RUN, b"\x0a\x03run"))
        assert await connection.answered(200, 20)
        assert tally_of([connection]) == {"status 0": 200}
