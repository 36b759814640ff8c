"""Plays one step: a call of somebody's, looked through, held against the model, and beside one about missing things."""

from collections import Counter
from dataclasses import dataclass
from random import Random

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from isolation.asker import Asker
from isolation.cases import CASES, Case, asks_for_all, names_stranger
from isolation.cast import Speaker
from isolation.delegates import Delegates
from isolation.issued_tokens import asks_too_much, take_in_issued
from isolation.learning import learn
from isolation.stage import Stage
from isolation.standing import Standing, is_his, may_call, standing_of, with_missing_ids
from isolation.wire import Answer, Wire
from isolation.world import World
from parley.v1 import admin_service_pb2 as admin
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import conversation_service_pb2 as conversations
from parley.v1 import delegation_service_pb2 as delegation
from parley.v1 import usage_service_pb2 as usage
from parley_server.domain.principal import ADMIN_SCOPE

Code = grpc.StatusCode
# What a server says that is stopping, or behind: nothing of whose a thing is.
_ELSEWHERE = {Code.UNAVAILABLE, Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED}
_NEVER = {Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS}
_CLAIMS = 0.04


@dataclass(frozen=True)
class Step:
    """A call that is about to be made."""

    method: MethodDescriptor
    case: Case
    speaker: Speaker
    request: Message
    claimed: str
    request_name: str

    @property
    def name(self) -> str:
        """The rpc, and who calls it."""
        return f"{self.method.containing_service.name}.{self.method.name} by {self.speaker.role}"

    @property
    def is_stranger(self) -> bool:
        """Tell whether the speaker claims to be whom he may not speak for."""
        return self.claimed != self.speaker.owner


class Player:
    """Plays steps on a stage. What should not be is in its world's `leaks` and `faults` afterwards."""

    def __init__(self, stage: Stage, wire: Wire) -> None:
        self._stage = stage
        self._wire = wire

    @property
    def world(self) -> World:
        """What is known."""
        return self._stage.world

    @property
    def delegates(self) -> Delegates:
        """Those who act for users by tokens."""
        return self._stage.delegates

    async def play(self, method: MethodDescriptor, speaker: Speaker, random: Random) -> Answer:
        """Make a call of a method, as its case says, and judge it."""
        return await self.play_step(self._prepare(method, speaker, random))

    async def play_step(self, step: Step) -> Answer:
        """Make a call that is prepared, and judge it."""
        speaker = step.speaker
        standing = standing_of(self.world, speaker, step.request)
        token = str(getattr(step.request, "page_token", ""))
        is_own_token = not token or self._is_given(step, token)
        was_good = self.delegates.is_good(speaker)
        is_refused = was_good is False or bool(_denied(step))
        deletes = "" if is_refused else self._begin(step)
        answer = await self._ask(step, step.request, patient=is_refused or standing is Standing.NOT_HIS)
        self.world.counts[answer.code.name if answer.code else "OPEN"] += 1
        if self._is_let_in(step, answer, was_good):
            self._judge(step, standing, answer, is_own_token=is_own_token)
            if not answer.is_ok and standing is Standing.NOT_HIS:
                await self._compare(step, answer)
        if answer.is_ok:
            learn(self.world, step.speaker, step.request, answer)
            self._take_in(step, answer)
        elif deletes and answer.code not in _ELSEWHERE:
            self.world.deleting[deletes] -= 1
        return answer

    def _prepare(self, method: MethodDescriptor, speaker: Speaker, random: Random) -> Step:
        case = CASES[f"{method.containing_service.name}.{method.name}"]
        asker = Asker(random, self.world, speaker)
        request = case.build(asker)
        claimed = random.choice(speaker.strangers) if random.random() < _CLAIMS else speaker.owner
        return Step(method, case, speaker, request, claimed, asker.name_of_request())

    def _begin(self, step: Step) -> str:
        """Note what a call may change; return the conversation of the caller's that it may delete."""
        if request_id := _request_id_of(step):
            self.world.request_ids.setdefault(request_id, Counter())[step.speaker.principal, step.speaker.owner] += 1
        match step.request:
            case keys.RevokeApiKeyRequest() | keys.RotateApiKeyRequest() as request:
                # It may be one that has been made for the play just now.
                self.delegates.ending.add(request.key_id)
            case conversations.ForkConversationRequest() as request:
                # From here on its words may be in two conversations, also when nobody waits for the answer.
                self.world.spread.add(request.conversation_id)
            case conversations.DeleteConversationRequest() as request:
                if is_his(self.world, step.speaker, request.conversation_id):
                    self.world.deleting[request.conversation_id] += 1
                    return request.conversation_id
        return ""

    def _uses(self, step: Step) -> int:
        """Return how often this speaker has used the call's request id."""
        users = self.world.request_ids.get(_request_id_of(step), Counter())
        return users[step.speaker.principal, step.speaker.owner]

    def _is_given(self, step: Step, token: str) -> bool:
        """Tell whether this token was given to this user."""
        given = self.world.tokens[step.request.DESCRIPTOR.full_name]
        return any(each.owner == step.speaker.owner and each.request.page_token == token for each in given)  # type: ignore[attr-defined]  # every list has one

    async def _ask(self, step: Step, request: Message, *, patient: bool) -> Answer:
        response_type = GetMessageClass(step.method.output_type)

        def seen(raw: bytes) -> None:
            tells_token = isinstance(request, delegation.IssueDelegationTokenRequest)
            self.world.scan(step.speaker.owner, step.name, raw, ids=not step.case.tells_ids, tokens=not tells_token)
            self.world.learn_notes(step.speaker.owner, raw)

        def seen_message(raw: bytes) -> None:
            seen(raw)
            if not step.is_stranger and not step.case.tells_ids:
                self.world.learn(step.speaker.owner, response_type.FromString(raw))

        self._stage.audit.note(step.request_name, step.speaker)
        metadata = (*step.speaker.claiming(step.claimed), ("x-request-id", step.request_name))
        answer = await self._wire.ask(
            self._stage.channel,
            step.method,
            request.SerializeToString(),
            metadata,
            seen=seen_message,
            patient=patient,
        )
        if not answer.is_ok:
            seen(answer.end)
        return answer

    def _judge(self, step: Step, standing: Standing, answer: Answer, *, is_own_token: bool) -> None:
        """Hold an answer to what its caller may be told."""
        code = answer.code or Code.OK
        denied = _denied(step)
        too_much = "" if denied else _too_much(step)
        if code in _NEVER:
            self.world.fault(f"{step.name}: {code.name} {answer.words}")
        elif denied:
            self._expect(step, answer, code is Code.PERMISSION_DENIED, denied)
        elif too_much:
            self._expect(step, answer, code is not Code.OK, too_much)
        elif standing is Standing.NOT_HIS:
            may_be_missing = bool(getattr(step.request, "allow_missing", False))
            self._expect(step, answer, code is not Code.OK or may_be_missing, "what is not his is found")
        elif not is_own_token and not step.case.is_everybodys:
            self._expect(step, answer, code is not Code.OK, "goes on with another's page token")
        elif answer.reason == "REQUEST_ID_REUSED":
            self._expect(step, answer, self._uses(step) > 1, "meets another's request id")
        elif Standing.UNCLEAR not in {standing, standing_of(self.world, step.speaker, step.request)}:
            # An own token is of no use to another list.
            is_fine = code is Code.OK or code in step.case.answers or answer.reason == "PAGE_TOKEN_INVALID"
            self._expect(step, answer, is_fine, "what is his is not found")

    def _is_let_in(self, step: Step, answer: Answer, was_good: bool | None) -> bool:
        """Tell whether a call got as far as its rpc, and judge whether its credential should have opened that."""
        if answer.code in _ELSEWHERE:
            return False
        is_refused = answer.code is Code.UNAUTHENTICATED
        if was_good is False:
            self._expect(step, answer, is_refused and answer.reason == "CREDENTIALS_INVALID", "let in by what is over")
        elif is_refused:
            self._expect(step, answer, self.delegates.is_good(step.speaker) is not True, "not let in")
        return was_good is not False and not is_refused

    def _take_in(self, step: Step, answer: Answer) -> None:
        """Judge what tells of those who act for users."""
        match step.request:
            case delegation.IssueDelegationTokenRequest():
                reader = self._stage.hosts.reader
                take_in_issued(self.world, self.delegates, reader, step.speaker, step.request, answer.messages[0])
            case admin.ListAuditEventsRequest():
                page = admin.ListAuditEventsResponse.FromString(answer.messages[0])
                self._stage.audit.judge(self.world, page)

    def _expect(self, step: Step, answer: Answer, is_right: bool, otherwise: str) -> None:
        if not is_right:
            told = f"{answer.code.name if answer.code else 'OPEN'} {answer.reason} {answer.words}"
            self.world.leak(step.name, f"{otherwise}: {told} to {step.request}"[:600].replace("\n", " "))

    async def _compare(self, step: Step, answer: Answer) -> None:
        """Hold what was said of somebody else's thing against what is said of nobody's."""
        twin = with_missing_ids(self.world, step.speaker, step.request)
        other = await self._ask(step, twin, patient=True)
        same = (answer.code, answer.words, answer.trailers) == (other.code, other.words, other.trailers)
        is_told_of_another = "REQUEST_ID_REUSED" in {answer.reason, other.reason} and self._uses(step) > 1
        is_over = Code.UNAUTHENTICATED in {answer.code, other.code}
        if not same and not is_told_of_another and not is_over and {answer.code, other.code}.isdisjoint(_ELSEWHERE):
            self.world.leak(
                step.name, f"foreign and missing differ: {answer.words} {answer.reason}, {other.words} {other.reason}"
            )


def _denied(step: Step) -> str:
    """Return what it would be to let this caller in at all; empty where he may."""
    if step.is_stranger:
        return f"let in as {step.claimed}"
    return "" if may_call(step.speaker, step.method) else "let in without the scope"


def _too_much(step: Step) -> str:
    """Return what it would be to do this for this caller, whatever it names; empty where it may be done."""
    is_admins = ADMIN_SCOPE in step.speaker.scopes
    if asks_for_all(step.request) and not is_admins:
        return "is told of everybody"
    if asks_too_much(step.speaker, step.request):
        return "is given what he may not hand on"
    is_usage = is_admins and isinstance(step.request, usage.GetUsageRequest)
    is_strangers = names_stranger(step.request, step.speaker.strangers) and not is_usage
    return "does something for a user who is not his" if is_strangers else ""


def _request_id_of(step: Step) -> str:
    return str(getattr(step.request, "request_id", ""))
