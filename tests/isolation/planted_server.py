"""The server as a program, with the leak in it that the environment names: `parley-server` to the letter otherwise."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    if plant := os.environ.get("CANARY_PLANT"):
        from isolation.plant import open_the_second_wall
        from isolation.plants import PLANTS

        open_the_second_wall()
        PLANTS[plant].sow()
    if jitter := int(os.environ.get("CANARY_JITTER", "0")):
        from isolation.jitter import hold_up_tasks

        hold_up_tasks(jitter)
    from parley_server.__main__ import main

    main()
