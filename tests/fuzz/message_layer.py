"""Messages with anything in them, to every rpc."""

from random import Random

from fuzz.layer import HANG_S, Layer
from fuzz.messages import request
from siege.connection import FrameConnection

_CALLS = 16
# A watch of what goes on is not answered before that ends.
_STREAM_DEADLINE = (b"grpc-timeout", b"500m")


class MessageLayer(Layer):
    """Calls that are in order up to their message."""

    name = "message"

    async def round(self, random: Random) -> None:
        """Make some calls at once, each of any rpc."""
        cases = []
        for _ in range(_CALLS):
            rpc = random.choice(self._ground.rpcs)
            cases.append((rpc, request(random, rpc.request, self._ground.known)))
        async with FrameConnection(self._ground.address) as connection:
            for number, (rpc, raw) in enumerate(cases):
                metadata = [_STREAM_DEADLINE] if rpc.is_streaming else []
                await connection.call(1 + 2 * number, rpc.name, raw, metadata)
            if not await connection.answered(len(cases), HANG_S):
                self._verdicts.note(self.name, "hang")
            for number, (rpc, raw) in enumerate(cases):
                case = f"{rpc.name} {raw.hex()}"
                answer = connection.answers.get(1 + 2 * number)
                if answer is None or answer.status is None:
                    self._verdicts.bug(self.name, "never answered", case)
                else:
                    self._verdicts.judge(self.name, answer, case, is_broken=False)
