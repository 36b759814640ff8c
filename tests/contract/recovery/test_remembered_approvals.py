"""What a user has said once for a whole conversation, on every engine: for that tool, that user, and nothing else."""

from contract.recovery.asking import ALWAYS, NEVER, WRITES, YES, asked, kinds_of, pending, waiting_run
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ApprovalRule, ToolEffect
from unit.agents.scripted_model import say
from unit.tools.made_tools import made_tool

TWICE = [calls(("book", 1)), calls(("book", 2)), say("Done.")]


async def test_once_is_once_and_for_the_conversation_is_for_all_of_it(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(TWICE), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [first] = await waiting_run(engine, store, ann)
        await engine.decide(ann, first.approval_id, YES)
        [second] = await asked(store, ann, run_id)
        await engine.decide(ann, second.approval_id, ALWAYS)
        await history_of(store, ann, run_id)
        # The next run of the conversation sees two results, and books nothing: so it is another conversation.
        other_id, [third] = await waiting_run(engine, store, ann)
        await engine.decide(ann, third.approval_id, ALWAYS)
        events = await history_of(store, ann, other_id)
    assert kinds_of(events) == ["approval_requested", "run_waiting", "approval_resolved", "run_resumed"]
    assert statuses_of(events) == {("book", 1): "OK", ("book", 2): "OK"}
    assert len(world.marks) == 4


async def test_it_holds_in_later_runs_and_after_a_restart_and_in_no_fork(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    steps = [calls(("book", 1)), calls(("book", 2)), calls(("book", 3)), say("Done.")]
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel([steps[0], say("Done.")]), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        await engine.decide(ann, approval.approval_id, ALWAYS)
        await history_of(store, ann, run_id)
    conversation_id = approval.conversation_id
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(steps), world.tools(), policy=WRITES) as engine,
    ):
        fork = await store.for_user(ann).conversations.fork(conversation_id)
        run = await engine.start(ann, spec("b", conversation_id), None)
        events = await history_of(store, ann, run.run_id)
        forked_id, [asked_again] = await waiting_run(engine, store, ann, spec("c", fork.conversation_id))
        await engine.cancel(ann, forked_id, "")
    assert (kinds_of(events), statuses_of(events)) == ([], {("book", 2): "OK", ("book", 3): "OK"})
    assert asked_again.conversation_id == fork.conversation_id


async def test_a_refusal_is_remembered_too(open_same_store: OpenStore, ann: RequestContext) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(TWICE), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        await engine.decide(ann, approval.approval_id, NEVER)
        events = await history_of(store, ann, run_id)
    assert statuses_of(events) == {("book", 1): "DENIED", ("book", 2): "DENIED"}
    assert kinds_of(events).count("approval_requested") == 1
    assert world.marks == []


async def test_it_holds_for_no_other_user_and_no_other_description_and_is_forgotten_with_the_conversation(
    open_same_store: OpenStore, ann: RequestContext, bob: RequestContext
) -> None:
    book = made_tool("book", effect=ToolEffect.WRITE, approval=ApprovalRule.ALWAYS)
    async with open_same_store() as store, an_engine(store, RememberingModel(TWICE), [book]) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        await engine.decide(ann, approval.approval_id, ALWAYS)
        await history_of(store, ann, run_id)
        of_ann, of_bob = store.for_user(ann).approvals, store.for_user(bob).approvals
        held = (approval.conversation_id, "book", book.spec.spec_hash)
        assert await of_ann.remembered(*held) is True
        assert await of_bob.remembered(*held) is None
        assert await of_ann.remembered(approval.conversation_id, "book", "0" * 64) is None
        await store.for_user(ann).conversations.delete(approval.conversation_id)
        assert await of_ann.remembered(*held) is None


async def test_the_others_of_a_turn_are_asked_all_the_same(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, steps = World(), [calls(("book", 1), ("book", 2)), say("Done.")]
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(steps), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [first, second] = await waiting_run(engine, store, ann)
        await engine.decide(ann, first.approval_id, ALWAYS)
        assert await pending(store, ann, run_id) == [second]
        await engine.decide(ann, second.approval_id, NEVER)
        events = await history_of(store, ann, run_id)
    assert statuses_of(events) == {("book", 1): "OK", ("book", 2): "DENIED"}
