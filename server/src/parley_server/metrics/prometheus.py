"""The numbers as Prometheus scrapes them. The only module that knows its client library."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Gauge as PrometheusGauge

from parley_server.metrics.recorder import CallEnd, CallType, Gauge

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_MODEL = ("provider", "model")
_METHOD = ("grpc_type", "grpc_service", "grpc_method")
# A unary call is done in a millisecond, a stream takes as long as its run.
_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_FIRST_EVENT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
_UNIT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_GAUGES = {
    Gauge.RUNS_LIVE: "Runs at work in this process.",
    Gauge.RUNS_QUEUED: "Accepted runs that wait for their conversation.",
    Gauge.APPROVALS_PENDING: "Tool calls that wait until their users have said yes or no.",
    Gauge.RUN_LOG_QUEUE: "Writes and runs that wait for the store's next commit.",
    Gauge.RUN_LOG_WATCHERS: "Open watches of live runs.",
    Gauge.LOOP_LAG: "How late the event loop is: its last timer, or the stall under way.",
    Gauge.OVERLOADED: "1 while new calls are shed because the event loop is behind.",
    Gauge.TOOL_THREADS_STUCK: "Threads of tools that still run though their calls have been answered.",
    Gauge.LOG_DROPPED: "Lines of the log that were dropped because nobody took them.",
    Gauge.AUDIT_DROPPED: "Entries of the audit log that were dropped because the store could not take them.",
    Gauge.AUDIT_POSITION: "The position of the audit log's newest entry by this process: less than before is a loss.",
}


class PrometheusRecorder:
    """Implements `Recorder` on a registry of its own."""

    def __init__(self) -> None:
        # A second series for every counter, which tells when it was made and nothing else.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's lapse
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._started = Counter("grpc_server_started_total", "Calls that came.", _METHOD, registry=registry)
        self._received = Counter("grpc_server_msg_received_total", "Messages read.", _METHOD, registry=registry)
        self._sent = Counter("grpc_server_msg_sent_total", "Messages written.", _METHOD, registry=registry)
        self._handled = Counter(
            "grpc_server_handled_total", "Calls that ended, by status.", (*_METHOD, "grpc_code"), registry=registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds", "What calls took.", _METHOD, registry=registry, buckets=_CALL_BUCKETS
        )
        self._ends = Counter(
            "parley_call_ends_total",
            "Calls that ended, by kind: ok, cancelled, deadline, disconnected, error.",
            (*_METHOD, "kind"),
            registry=registry,
        )
        self._gauges = {gauge: PrometheusGauge(gauge.value, text, registry=registry) for gauge, text in _GAUGES.items()}
        self._lag = Histogram(
            "parley_event_loop_timer_lag_seconds",
            "How late the event loop's timers were.",
            registry=registry,
            buckets=_LAG_BUCKETS,
        )
        self._accepted = Counter("parley_runs_accepted_total", "Runs that were accepted.", registry=registry)
        self._ended = Counter("parley_runs_ended_total", "Runs that ended, by state.", ("state",), registry=registry)
        self._commit = Histogram(
            "parley_run_log_commit_seconds", "What commits took.", registry=registry, buckets=_COMMIT_BUCKETS
        )
        self._units = Histogram(
            "parley_run_log_commit_units", "Writes in one commit.", registry=registry, buckets=_UNIT_BUCKETS
        )
        rows = Counter("parley_run_journal_rows_total", "Rows of the run journal.", ("change",), registry=registry)
        self._models = _ModelMetrics(registry)
        self._written, self._swept = rows.labels("written"), rows.labels("swept")

    def scrape(self) -> bytes:
        """Return all numbers in the text format; from any thread."""
        return generate_latest(self.registry)

    def method(self, name: str, call_type: CallType) -> "_MethodCounters":
        """See `Recorder`."""
        _, service, method = name.split("/")
        labels = (call_type.value, service, method)
        return _MethodCounters(
            self._started.labels(*labels),
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.labels(*labels),
            lambda code, end: (self._handled.labels(*labels, code), self._ends.labels(*labels, end.value)),
        )

    def model(self, provider: str, model: str) -> "_ModelCounters":
        """See `Recorder`."""
        return _ModelCounters(self._models, (provider, model))

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """See `Recorder`."""
        self._gauges[gauge].set_function(read)

    def loop_lag(self, seconds: float) -> None:
        """See `Recorder`."""
        self._lag.observe(seconds)

    def run_accepted(self) -> None:
        """See `Recorder`."""
        self._accepted.inc()

    def run_ended(self, state: str) -> None:
        """See `Recorder`."""
        self._ended.labels(state).inc()

    def committed(self, units: int, seconds: float) -> None:
        """See `Recorder`."""
        self._units.observe(units)
        self._commit.observe(seconds)

    def journal(self, *, written: int = 0, swept: int = 0) -> None:
        """See `Recorder`."""
        self._written.inc(written)
        self._swept.inc(swept)


class _MethodCounters:
    """Implements `MethodRecorder`. Finding a counter by its labels costs more than counting: it is done once."""

    def __init__(
        self,
        started: Counter,
        received: Counter,
        sent: Counter,
        seconds: Histogram,
        find_ends: Callable[[str, CallEnd], tuple[Counter, Counter]],
    ) -> None:
        self.started = started.inc
        self.received = received.inc
        self.sent = sent.inc
        self._observe = seconds.observe
        self._find_ends = find_ends
        self._ends: dict[tuple[str, CallEnd], tuple[Counter, Counter]] = {}

    def ended(self, code: str, end: CallEnd, seconds: float) -> None:
        """See `MethodRecorder`."""
        counters = self._ends.get((code, end))
        if counters is None:
            counters = self._ends[code, end] = self._find_ends(code, end)
        handled, ends = counters
        handled.inc()
        ends.inc()
        self._observe(seconds)


class _ModelMetrics:
    """What is counted of models, over all of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "parley_model_calls_total", "Model calls that ended, by outcome.", (*_MODEL, "outcome"), registry=registry
        )
        self.retries = Counter(
            "parley_model_retries_total", "Model calls that were made again.", _MODEL, registry=registry
        )
        self.first_event = Histogram(
            "parley_model_first_event_seconds",
            "From asking a model to the first of its answer.",
            _MODEL,
            registry=registry,
            buckets=_FIRST_EVENT_BUCKETS,
        )
        self.breaker = PrometheusGauge(
            "parley_model_breaker_state",
            "0 while the model is asked, 2 while it is left alone, 1 while it is being tried.",
            _MODEL,
            registry=registry,
        )


class _ModelCounters:
    """Implements `ModelRecorder`."""

    def __init__(self, metrics: _ModelMetrics, labels: tuple[str, str]) -> None:
        self._calls, self._labels = metrics.calls, labels
        self._breaker = metrics.breaker
        self.retried = metrics.retries.labels(*labels).inc
        self.first_event = metrics.first_event.labels(*labels).observe

    def ended(self, outcome: str) -> None:
        """See `ModelRecorder`."""
        self._calls.labels(*self._labels, outcome).inc()

    def breaker(self, state: int) -> None:
        """See `ModelRecorder`."""
        # Named only here: of models that users named there is no one state.
        self._breaker.labels(*self._labels).set(state)
