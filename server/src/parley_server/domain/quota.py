"""What callers may use: the limits there are, for whom, and the one function that says which hold for a call."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from parley_server.domain.context import RequestContext
from parley_server.domain.name_list import fits
from parley_server.domain.principal import SERVICE_PREFIX

MINUTE_MICROS = 60_000_000


class Measure(StrEnum):
    """What a limit is on."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    CONCURRENT_RUNS = "concurrent_runs"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    COST_PER_DAY = "cost_per_day"
    COST_PER_MONTH = "cost_per_month"


COSTS = frozenset({Measure.COST_PER_DAY, Measure.COST_PER_MONTH})
SPENDING = COSTS | {Measure.TOKENS_PER_MINUTE}
OF_RUNS = SPENDING | {Measure.CONCURRENT_RUNS}


class SubjectKind(StrEnum):
    """Whose use a limit counts together."""

    USER = "user"
    SERVICE = "service"
    KEY = "key"
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose use is counted together; all callers' where it is EVERYONE, which has no id."""

    kind: SubjectKind
    subject_id: str = ""


@dataclass(frozen=True, slots=True)
class Consumer:
    """On whose account a call is: the effective user, whoever acts for him, and the credential's id.

    `principal` is a service where one acts, by its key or by a delegation, however many stand between; of several the
    one behind the others, so that what it has done by a tool host or by whom it lets act is its own. Else the caller.
    """

    user_id: str
    principal: str
    credential_id: str = ""

    @classmethod
    def of(cls, context: RequestContext) -> Self:
        """Return the consumer of a call: as it was authenticated, whatever the call says of itself."""
        acting = (*context.actors, context.principal.name)
        principal = next((each for each in reversed(acting) if each.startswith(SERVICE_PREFIX)), acting[0])
        return cls(context.user_id, principal, context.principal.credential_id)

    def subject(self, kind: SubjectKind) -> Subject | None:
        """Return the subject of a kind that the consumer is; None where he is none, as a user is no service."""
        match kind:
            case SubjectKind.USER:
                return Subject(kind, self.user_id)
            case SubjectKind.KEY:
                return Subject(kind, self.credential_id) if self.credential_id else None
            case SubjectKind.SERVICE:
                is_service = self.principal.startswith(SERVICE_PREFIX)
                return Subject(kind, self.principal.removeprefix(SERVICE_PREFIX)) if is_service else None
            case SubjectKind.EVERYONE:
                return Subject(kind)


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """How much one subject may use; None does not limit. Costs are in millionths of the currency of the prices.

    `request_burst` is how many requests may come at once; None: as many as a minute has.
    """

    requests_per_minute: int | None = None
    request_burst: int | None = None
    concurrent_runs: int | None = None
    tokens_per_minute: int | None = None
    cost_per_day_micros: int | None = None
    cost_per_month_micros: int | None = None

    def amounts(self) -> Iterator[tuple[Measure, int]]:
        """Yield what is limited, and to how much."""
        amounts = (
            (Measure.REQUESTS_PER_MINUTE, self.requests_per_minute),
            (Measure.CONCURRENT_RUNS, self.concurrent_runs),
            (Measure.TOKENS_PER_MINUTE, self.tokens_per_minute),
            (Measure.COST_PER_DAY, self.cost_per_day_micros),
            (Measure.COST_PER_MONTH, self.cost_per_month_micros),
        )
        return ((measure, amount) for measure, amount in amounts if amount is not None)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as it holds for one subject. `models` are patterns; empty: the use of all models counts.

    `rule` is the name of the rule it comes from, and `burst` is of REQUESTS_PER_MINUTE alone.
    """

    rule: str
    subject: Subject
    measure: Measure
    amount: int
    models: tuple[str, ...] = ()
    burst: int = 0


@dataclass(frozen=True, slots=True)
class QuotaRule:
    """Limits for every user, service and key that fits a pattern, each counted alone.

    Without users, services and keys the use of all callers counts together. With `models` only the use of models that
    fit one of these patterns counts, and only tokens and costs can be limited. A pattern may end in `*`.
    """

    name: str
    limits: QuotaLimits
    users: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def subjects(self, consumer: Consumer) -> Iterator[Subject]:
        """Yield those of the consumer's subjects that the rule is for."""
        if not (self.users or self.services or self.keys):
            yield Subject(SubjectKind.EVERYONE)
        named = (
            (SubjectKind.USER, self.users),
            (SubjectKind.SERVICE, self.services),
            (SubjectKind.KEY, self.keys),
        )
        for kind, patterns in named:
            subject = consumer.subject(kind)
            if subject is not None and fits(patterns, subject.subject_id):
                yield subject

    def limits_of(self, subject: Subject) -> Iterator[Limit]:
        """Yield the limits as they hold for one subject."""
        for measure, amount in self.limits.amounts():
            is_of_requests = measure is Measure.REQUESTS_PER_MINUTE
            burst = (self.limits.request_burst or amount) if is_of_requests else 0
            yield Limit(self.name, subject, measure, amount, self.models, burst)


def rules_for(
    rules: Iterable[QuotaRule], consumer: Consumer, model: str | None = None
) -> Iterator[tuple[QuotaRule, Subject]]:
    """Yield the rules that are for a consumer, with whose use each counts; those of any model where None is named."""
    for rule in rules:
        if not rule.models or model is None or fits(rule.models, model):
            yield from ((rule, subject) for subject in rule.subjects(consumer))


def effective_limits(rules: Iterable[QuotaRule], consumer: Consumer, model: str = "") -> tuple[Limit, ...]:
    """Return every limit that holds for a call on a consumer's account; the call has to keep all of them.

    This alone decides, for every path: so a limit of a key, of its user and of the service that acts for him hold
    together, and none of them replaces another. Without a model, rules for certain models are left out.
    """
    return tuple(limit for rule, subject in rules_for(rules, consumer, model) for limit in rule.limits_of(subject))
