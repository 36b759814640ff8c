"""The attacker's process: `python -m siege.attacker NAME ADDRESS SIZE HOLD_S RUN_ID` writes its tally as JSON."""

import asyncio
import json
import os
import signal
import sys

from siege.attack import Target
from siege.attacks import ATTACKS


async def main(name: str, address: str, size: str, hold_s: str, run_id: str) -> None:
    attack = ATTACKS[name]
    tally = await attack.act(Target(address, int(size), float(hold_s), run_id))
    sys.stdout.write(json.dumps(tally) + "\n")
    sys.stdout.flush()
    if attack.freezes:
        os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
