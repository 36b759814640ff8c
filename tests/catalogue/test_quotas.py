"""Quotas and budgets through the public door: what is refused, in which words, and what the rpcs on them answer."""

import asyncio
import uuid

import grpc
import pytest
from catalogue.door import Caller, Door, issue, text_spec
from catalogue.test_bad_runs import busy
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from parley.v1 import admin_service_pb2, run_pb2
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys_pb
from parley.v1 import delegation_service_pb2 as delegation_pb
from parley.v1 import usage_service_pb2 as pb
from parley.v1.run_pb2 import RUN_STATE_FAILED
from rpc.chassis import Failure, bearer, failure_of

CODE = grpc.StatusCode
INFO = admin_service_pb2.GetServerInfoRequest()


async def somebody(door: Door, *scopes: str) -> tuple[str, Caller]:
    """Return a user whom nobody else uses, with a key of his own."""
    user_id = f"u-{uuid.uuid4().hex}"
    return user_id, Caller(door.admin.channel, bearer(await issue(door.admin, user_id, *scopes)))


async def limit(door: Door, user_id: str, **limits: int) -> pb.Budget:
    """Limit what a user may use."""
    budget = pb.Budget(user_id=user_id, limits=pb.QuotaLimits(**limits))
    return (await door.admin.ask(pb.SetBudgetRequest(budget=budget), pb.SetBudgetResponse)).budget


async def failed_ask(caller: Caller) -> Failure | None:
    try:
        await caller.ask(INFO, admin_service_pb2.GetServerInfoResponse)
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    return None


def packed(*details: error_details_pb2.ErrorInfo | error_details_pb2.RequestInfo) -> list[AnyMessage]:
    messages = [AnyMessage() for _ in details]
    for message, detail in zip(messages, details, strict=True):
        message.Pack(detail)
    return messages


async def test_of_a_hundred_calls_at_once_exactly_ten_are_served(either_door: Door) -> None:
    user_id, caller = await somebody(either_door)
    await limit(either_door, user_id, requests_per_minute=1, request_burst=10)
    failures = await asyncio.gather(*(failed_ask(caller) for _ in range(100)))
    refused = [failure for failure in failures if failure is not None]
    assert len(refused) == 90
    assert {(each.code, each.reason) for each in refused} == {(CODE.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")}
    assert refused[0].metadata == {"limit": "requests_per_minute", "amount": "1", "subject": "user"}
    retry = refused[0].details["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert 30 <= retry.retry_delay.seconds <= 60


async def test_who_asks_too_often_is_refused_before_his_message_is_read(door: Door) -> None:
    user_id, caller = await somebody(door)
    await limit(door, user_id, requests_per_minute=1)
    assert await failed_ask(caller) is None
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.ask_raw(agents.GetRunRequest.DESCRIPTOR.full_name, b"\xff no message")
    assert failure_of(refused.value).reason == "QUOTA_EXCEEDED"


async def test_what_is_not_allowed_costs_nobody_a_request(door: Door) -> None:
    user_id, caller = await somebody(door)
    await limit(door, user_id, requests_per_minute=1)
    budget = pb.Budget(user_id=user_id, limits=pb.QuotaLimits(requests_per_minute=100))
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.ask(pb.SetBudgetRequest(budget=budget), pb.SetBudgetResponse)
        assert failure_of(refused.value).reason == "SCOPE_MISSING"
    assert await failed_ask(caller) is None


async def test_a_run_too_many_is_refused_in_exactly_these_bytes(either_door: Door) -> None:
    user_id, caller = await somebody(either_door)
    await limit(either_door, user_id, concurrent_runs=1)
    async with busy(caller):
        failure = await caller.saying(("x-request-id", "the-request")).refused(agents.StartRunRequest(run=text_spec()))
        words = "the limit of 1 runs at once for this user leaves no room"
        info = error_details_pb2.ErrorInfo(
            reason="QUOTA_EXCEEDED",
            domain="parley.v1",
            metadata={"limit": "concurrent_runs", "amount": "1", "subject": "user"},
        )
        details = packed(
            info,
            error_details_pb2.RequestInfo(request_id="the-request"),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1)),
            error_details_pb2.QuotaFailure(
                violations=[error_details_pb2.QuotaFailure.Violation(subject="user", description=words)]
            ),
        )
        expected = status_pb2.Status(code=CODE.RESOURCE_EXHAUSTED.value[0], message=words, details=details)
        raw = failure.trailers["grpc-status-details-bin"]
        assert isinstance(raw, bytes)
        # A map of an ErrorInfo may be written in any order, so it is compared as a map; the rest as bytes.
        sent = status_pb2.Status.FromString(raw)
        assert dict(failure.metadata) == dict(info.metadata)
        assert [each.SerializeToString() for each in sent.details[1:]] == [
            each.SerializeToString() for each in expected.details[1:]
        ]
        assert (sent.code, sent.message) == (expected.code, expected.message)
    assert (await caller.start(text_spec())).run_id


async def test_a_budget_that_is_used_up_refuses_runs_until_the_day_ends(either_door: Door) -> None:
    user_id, caller = await somebody(either_door)
    await limit(either_door, user_id, cost_per_day_micros=0)
    failure = await caller.refused(agents.StartRunRequest(run=text_spec()))
    assert (failure.code, failure.reason) == (CODE.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
    assert failure.metadata == {"limit": "cost_per_day", "amount": "0", "subject": "user"}
    assert "RetryInfo" not in failure.details
    assert (await limit(either_door, user_id)).etag == ""
    assert (await caller.start(text_spec())).run_id


async def test_a_run_that_may_ask_its_model_no_more_fails_with_the_reason(either_door: Door) -> None:
    """Its first call takes all there is, so that the one after its tool is not made."""
    user_id, caller = await somebody(either_door)
    await limit(either_door, user_id, tokens_per_minute=1)
    events = await caller.run_to_the_end(text_spec("What is 17 * 23?"))
    finished = events[-1].run_finished
    assert finished.state == RUN_STATE_FAILED
    assert finished.usage.model_calls == 1
    info, quota = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(info) for detail in finished.error.details)
    assert any(detail.Unpack(quota) for detail in finished.error.details)
    assert (info.reason, info.metadata["limit"]) == ("QUOTA_EXCEEDED", "tokens_per_minute")
    assert [each.subject for each in quota.violations] == ["user"]
    assert [each.WhichOneof("event") for each in events].count("tool_call_finished") == 1
    run = (await caller.ask(agents.GetRunRequest(run_id=events[0].run_id), agents.GetRunResponse)).run
    assert run.error == finished.error


async def test_usage_is_the_sum_of_the_runs(either_door: Door) -> None:
    user_id, caller = await somebody(either_door)
    runs = [await caller.run_to_the_end(text_spec(f"What is {n} * 23?")) for n in range(3)]
    usages = [events[-1].run_finished.usage for events in runs]
    groups = [pb.USAGE_GROUPING_DAY, pb.USAGE_GROUPING_MODEL, pb.USAGE_GROUPING_USER, pb.USAGE_GROUPING_PRINCIPAL]
    (row,) = (await caller.ask(pb.GetUsageRequest(group_by=groups), pb.GetUsageResponse)).rows
    assert (row.user_id, row.principal, row.model, row.runs) == (user_id, f"user:{user_id}", "offline", 3)
    for name in ("input_tokens", "output_tokens", "model_calls", "tool_calls"):
        assert getattr(row.usage, name) == sum(getattr(each, name) for each in usages)
    assert row.unpriced_calls == row.usage.model_calls > 3
    of_him = pb.GetUsageRequest(user_id=user_id, model="offline")
    (told,) = (await either_door.admin.ask(of_him, pb.GetUsageResponse)).rows
    assert told.usage == row.usage
    assert not told.user_id


async def test_a_page_of_budgets_goes_on_for_its_caller_and_his_list_alone(door: Door) -> None:
    for _ in range(2):
        await limit(door, (await somebody(door))[0], requests_per_minute=1000)
    everybody = pb.ListBudgetsRequest(all=True, page_size=1)
    page = await door.admin.ask(everybody, pb.ListBudgetsResponse)
    behind = pb.ListBudgetsRequest(all=True, page_token=page.next_page_token)
    assert (await door.admin.ask(behind, pb.ListBudgetsResponse)).budgets
    own = pb.ListBudgetsRequest(page_token=page.next_page_token)
    for caller in (door.admin, door.ann):
        assert (await caller.refused(own)).reason == "PAGE_TOKEN_INVALID"


async def test_only_administrators_see_the_usage_of_others(door: Door) -> None:
    user_id, caller = await somebody(door)
    requests = (pb.GetUsageRequest(user_id="ann"), pb.GetUsageRequest(all_users=True), pb.ListBudgetsRequest(all=True))
    for request in requests:
        assert (await caller.refused(request)).reason == "SCOPE_MISSING"
    assert (await caller.ask(pb.GetUsageRequest(user_id=user_id), pb.GetUsageResponse)).rows == []
    everybody = pb.GetUsageRequest(all_users=True, group_by=[pb.USAGE_GROUPING_USER])
    assert isinstance((await door.admin.ask(everybody, pb.GetUsageResponse)).next_page_token, str)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetUsageRequest(start_date="2026-02-30"), "start_date"),
        (pb.GetUsageRequest(end_date="2026-13-01"), "end_date"),
        (pb.GetUsageRequest(start_date="yesterday"), "start_date"),
        (pb.GetUsageRequest(start_date="2026-02-02", end_date="2026-02-01"), "start_date"),
        (pb.GetUsageRequest(start_date="2024-01-01", end_date="2026-02-01"), "start_date"),
        (pb.GetUsageRequest(group_by=[pb.USAGE_GROUPING_DAY] * 2), "group_by"),
        (pb.GetUsageRequest(group_by=[pb.USAGE_GROUPING_UNSPECIFIED]), "group_by"),
        (pb.GetUsageRequest(group_by=[pb.UsageGrouping.ValueType(99)]), "group_by"),
        (pb.GetUsageRequest(model="a\0"), "model"),
        (pb.SetBudgetRequest(), "budget"),
        (pb.SetBudgetRequest(budget=pb.Budget(limits=pb.QuotaLimits(concurrent_runs=1))), "subject"),
        (pb.SetBudgetRequest(budget=pb.Budget(user_id="a*", limits=pb.QuotaLimits(concurrent_runs=1))), "user_id"),
        (pb.SetBudgetRequest(budget=pb.Budget(user_id="a", limits=pb.QuotaLimits(requests_per_minute=0))), "requests"),
        (
            pb.SetBudgetRequest(budget=pb.Budget(user_id="a", models=["*m"], limits=pb.QuotaLimits())),
            "models",
        ),
        (
            pb.SetBudgetRequest(budget=pb.Budget(user_id="a", models=["m"], limits=pb.QuotaLimits(concurrent_runs=1))),
            "models",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
async def test_what_is_no_question_or_budget_is_refused(
    door: Door, request_: pb.GetUsageRequest | pb.SetBudgetRequest, field: str
) -> None:
    failure = await door.admin.refused(request_)
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert field in failure.message


async def test_the_first_days_of_the_calendar_have_no_usage(door: Door) -> None:
    request = pb.GetUsageRequest(end_date="0001-01-02", group_by=[pb.USAGE_GROUPING_DAY])
    assert (await door.admin.ask(request, pb.GetUsageResponse)).rows == []


async def test_a_budget_is_replaced_by_whoever_has_seen_it(either_door: Door) -> None:
    user_id, caller = await somebody(either_door)
    first = await limit(either_door, user_id, concurrent_runs=5, tokens_per_minute=10**6)
    assert first.etag
    second = pb.Budget(user_id=user_id, limits=pb.QuotaLimits(concurrent_runs=3), etag=first.etag)
    stored = (await either_door.admin.ask(pb.SetBudgetRequest(budget=second), pb.SetBudgetResponse)).budget
    failure = await either_door.admin.refused(pb.SetBudgetRequest(budget=second))
    assert (failure.code, failure.reason) == (CODE.ABORTED, "ETAG_MISMATCH")
    (own,) = (await caller.ask(pb.ListBudgetsRequest(), pb.ListBudgetsResponse)).budgets
    assert [(each.limit, each.amount, each.used, each.left) for each in own.uses] == [("concurrent_runs", 3, 0, 3)]
    assert (own.etag, own.user_id, own.limits) == (stored.etag, user_id, second.limits)
    listed = (
        await either_door.admin.ask(pb.ListBudgetsRequest(all=True, page_size=200), pb.ListBudgetsResponse)
    ).budgets
    assert own in listed


async def test_who_has_a_token_of_a_service_is_not_told_what_its_other_users_use(either_door: Door) -> None:
    bot = f"bot-{uuid.uuid4().hex}"
    request = keys_pb.CreateApiKeyRequest(service_id=bot, act_as=["tg:*"], scopes=["runs:read"])
    made = await either_door.admin.ask(request, keys_pb.CreateApiKeyResponse)
    service = Caller(either_door.admin.channel, bearer(made.secret))
    for subject in (pb.Budget(service_id=bot), pb.Budget(key_id=made.api_key.key_id), pb.Budget(user_id="tg:1")):
        subject.limits.requests_per_minute = 1000
        await either_door.admin.ask(pb.SetBudgetRequest(budget=subject), pb.SetBudgetResponse)
    wish = delegation_pb.IssueDelegationTokenRequest(user_id="tg:1", scopes=["runs:read"])
    token = (await service.ask(wish, delegation_pb.IssueDelegationTokenResponse)).token
    holder = Caller(either_door.admin.channel, bearer(token))
    told = [
        {each.WhichOneof("subject"): len(each.uses) for each in answer.budgets}
        for answer in [await who.ask(pb.ListBudgetsRequest(), pb.ListBudgetsResponse) for who in (service, holder)]
    ]
    assert told == [{"service_id": 1, "key_id": 1}, {"service_id": 0, "key_id": 0, "user_id": 1}]


async def test_what_is_left_is_told(either_door: Door) -> None:
    user_id, caller = await somebody(either_door)
    requests = {"requests_per_minute": 100, "request_burst": 50}
    limits = {"concurrent_runs": 2, "tokens_per_minute": 10**6, "cost_per_day_micros": 5}
    await limit(either_door, user_id, **requests, **limits)
    events = await caller.run_to_the_end(run_pb2.RunSpec(input=text_spec().input))
    usage = events[-1].run_finished.usage
    async with busy(caller):
        (own,) = (await caller.ask(pb.ListBudgetsRequest(), pb.ListBudgetsResponse)).budgets
    uses = {each.limit: each for each in own.uses}
    asked = uses["requests_per_minute"]
    assert (0 < asked.used < 10, asked.amount, asked.left) == (True, 100, 50 - asked.used)
    assert (uses["concurrent_runs"].used, uses["concurrent_runs"].left) == (1, 1)
    assert uses["tokens_per_minute"].used >= usage.input_tokens + usage.output_tokens > 0
    assert uses["cost_per_day_micros"].left == 5
    assert uses["cost_per_day_micros"].reset_time.seconds % 86_400 == 0
