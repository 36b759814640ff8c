"""The fuzz itself: all layers at once for a time, a well-behaved neighbour beside them."""

import asyncio
import time
from collections.abc import Sequence
from random import Random

from fuzz.frame_layer import FrameLayer
from fuzz.layer import Ground, Layer
from fuzz.message_layer import MessageLayer
from fuzz.metadata_layer import MetadataLayer
from fuzz.oracle import Verdicts
from siege.neighbour import Served, neighbour

LAYERS: Sequence[type[Layer]] = (MessageLayer, MessageLayer, *[MetadataLayer] * 6, FrameLayer)


async def fuzz(ground: Ground, seed: str, seconds: float) -> tuple[Verdicts, Served]:
    """Fuzz for so long, or until there are bugs enough. The same seed makes the same cases in each of the layers."""
    verdicts = Verdicts()
    end = time.monotonic() + seconds
    async with neighbour(ground.address) as served, asyncio.TaskGroup() as layers:
        for number, layer in enumerate(LAYERS):
            layers.create_task(_go_on(layer(ground, verdicts), Random(f"{seed} {number}"), verdicts, end))
    return verdicts, served


async def _go_on(layer: Layer, random: Random, verdicts: Verdicts, end: float) -> None:
    while time.monotonic() < end and not verdicts.are_enough:
        await layer.round(random)
        verdicts.note(layer.name, "rounds")
