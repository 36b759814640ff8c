"""The numbers as a scrape finds them."""

from hypothesis import given
from hypothesis import strategies as st
from parley_server.metrics.prometheus import PrometheusRecorder
from parley_server.metrics.recorder import SILENT, CallEnd, CallType, Gauge, Recorder
from prometheus_client.parser import text_string_to_metric_families

GET_RUN = "/parley.v1.AgentService/GetRun"


def samples(recorder: PrometheusRecorder) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(recorder.scrape().decode())
        for sample in family.samples
    }


def test_a_registered_method_is_there_before_its_first_call() -> None:
    recorder = PrometheusRecorder()
    recorder.method(GET_RUN, CallType.UNARY)
    labels = (("grpc_method", "GetRun"), ("grpc_service", "parley.v1.AgentService"), ("grpc_type", "UNARY"))
    assert samples(recorder)["grpc_server_started_total", labels] == 0


@given(st.lists(st.tuples(st.sampled_from(["OK", "INTERNAL", "CANCELLED"]), st.sampled_from(CallEnd))))
def test_each_end_counts_once_by_code_and_once_by_kind(ends: list[tuple[str, CallEnd]]) -> None:
    recorder = PrometheusRecorder()
    method = recorder.method(GET_RUN, CallType.UNARY)
    for code, end in ends:
        method.started()
        method.ended(code, end, 0.001)
    read = samples(recorder)
    for name, key, place in (("grpc_server_handled_total", "grpc_code", 0), ("parley_call_ends_total", "kind", 1)):
        counted = {dict(labels)[key]: value for (sample, labels), value in read.items() if sample == name}
        assert counted == {
            value: count
            for value in {end[place] for end in ends}
            if (count := sum(end[place] == value for end in ends))
        }


def test_a_gauge_is_read_when_somebody_looks() -> None:
    recorder, runs = PrometheusRecorder(), ["a"]
    recorder.watch(Gauge.RUNS_LIVE, lambda: len(runs))
    assert samples(recorder)["parley_runs_live", ()] == 1
    runs.append("b")
    assert samples(recorder)["parley_runs_live", ()] == 2


def test_what_the_store_and_the_runs_tell() -> None:
    recorder = PrometheusRecorder()
    recorder.run_accepted()
    recorder.run_ended("succeeded")
    recorder.committed(3, 0.002)
    recorder.journal(written=5, swept=2)
    recorder.loop_lag(0.003)
    read = samples(recorder)
    assert read["parley_runs_accepted_total", ()] == 1
    assert read["parley_runs_ended_total", (("state", "succeeded"),)] == 1
    assert read["parley_run_log_commit_units_sum", ()] == 3
    assert read["parley_run_log_commit_seconds_count", ()] == 1
    assert read["parley_run_journal_rows_total", (("change", "written"),)] == 5
    assert read["parley_run_journal_rows_total", (("change", "swept"),)] == 2
    assert read["parley_event_loop_timer_lag_seconds_count", ()] == 1


def test_where_nobody_looks_all_of_it_is_taken_all_the_same() -> None:
    recorder: Recorder = SILENT
    recorder.watch(Gauge.RUNS_LIVE, lambda: 1 / 0)
    recorder.run_accepted()
    recorder.run_ended("failed")
    recorder.committed(1, 0.1)
    recorder.journal(written=1)
    recorder.loop_lag(0.1)
    method = recorder.method(GET_RUN, CallType.UNARY)
    method.started()
    method.received()
    method.sent()
    method.ended("OK", CallEnd.OK, 0.1)
