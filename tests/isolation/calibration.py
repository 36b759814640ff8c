"""Plants a leak and lets the machine look for it: what it cannot find, nobody knows that there is none of."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from isolation.machine import FoundError, run_machine
from isolation.plant import Plant
from isolation.stage import open_stage

EXAMPLES, STEPS = 30, 60


@dataclass(frozen=True)
class Caught:
    """A leak that was found: after how many calls in how many examples, and by what. One that was not has no `leak`."""

    plant: Plant
    calls: int
    examples: int
    leak: str

    def row(self) -> str:
        """Write it as a line of the table."""
        found = self.leak.partition(":")[0].partition(" by ")[0] if self.leak else "**not found**"
        return f"| `{self.plant.name}` | {self.plant.what} | {self.calls} | {found} |"


async def find_out(plant: Plant, folder: Path, *, examples: int = EXAMPLES, is_sample: bool = True) -> Caught:
    """Play on a server that has this leak until it is found, within the ordinary budget."""
    async with open_stage(folder, plant=plant.name) as stage:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(run_machine, stage, loop, examples=examples, steps=STEPS, is_sample=is_sample)
        except FoundError as error:
            # A server that breaks is not one that leaks.
            leak = str(stage.world.leaks[0]) if stage.world.leaks else f"fault: {error}"
            return Caught(plant, stage.world.counts.total(), stage.casts, leak)
        return Caught(plant, stage.world.counts.total(), stage.casts, "")
