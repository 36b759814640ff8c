"""A server whose metrics and request log a test reads back: what its callers did, as its operator sees it."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from parley_server.metrics.prometheus import PrometheusRecorder
from parley_server.rpc.call_observer import CallObserver
from parley_server.rpc.interceptors.exchange import GuardLimits
from parley_server.rpc.request_log import RequestLog
from prometheus_client.parser import text_string_to_metric_families
from rpc.chassis import NEVER_BEHIND_S, Chassis, running

Lines = Sequence[MutableMapping[str, Any]]


@dataclass
class Observed:
    """The server, its numbers and its lines."""

    chassis: Chassis
    recorder: PrometheusRecorder
    log: Lines

    @property
    def calls(self) -> list[MutableMapping[str, Any]]:
        """The request log's lines."""
        return [line for line in self.log if line["event"] == "call"]

    def number(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.recorder.scrape().decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def settled(self, calls: int) -> list[MutableMapping[str, Any]]:
        """Wait until so many calls have their line; return those lines."""
        async with asyncio.timeout(10):
            while len(self.calls) < calls:  # noqa: ASYNC110  # what is awaited is a line of a log
                await asyncio.sleep(0.01)
        return self.calls


@asynccontextmanager
async def observed(
    limits: GuardLimits = GuardLimits(),  # noqa: B008  # frozen
    name_key: bytes = b"",
    overload_lag_s: float = NEVER_BEHIND_S,
) -> AsyncIterator[Observed]:
    """Serve for a block."""
    recorder = PrometheusRecorder()
    with structlog.testing.capture_logs() as log:
        observer = CallObserver(recorder, RequestLog(name_key))
        async with running(limits=limits, observer=observer, overload_lag_s=overload_lag_s) as chassis:
            yield Observed(chassis, recorder, log)
