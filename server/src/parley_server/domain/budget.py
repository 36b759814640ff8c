"""Budgets: limits of one subject, those of the settings and those that administrators set, and what is left of them."""

from dataclasses import dataclass
from datetime import datetime

from parley_server.domain.quota import Limit, Measure, QuotaLimits, QuotaRule, Subject, SubjectKind

_ORDER = tuple(SubjectKind)


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How much of a limit is used, the estimates of what is under way included, and how much is left.

    Requests are used until a minute has made up for them, and as many are left as may come at once. `reset_time` is
    when a limit begins anew, None where there is no such time.
    """

    measure: Measure
    amount: int
    used: int
    left: int
    reset_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one subject; with `models` only their use counts.

    One of the settings has the name of its `rule`, one that was set an etag and the time when that was. `uses` are
    there where somebody has asked for them.
    """

    subject: Subject
    limits: QuotaLimits
    models: tuple[str, ...] = ()
    etag: str = ""
    update_time: datetime | None = None
    rule: str = ""
    uses: tuple[BudgetUse, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from all others; sorted, users come first and everyone last."""
        kind, subject_id = self.subject.kind, self.subject.subject_id
        return " ".join((str(_ORDER.index(kind)), kind, subject_id, *self.models, self.rule))

    def as_rule(self) -> QuotaRule:
        """Return the rule that a budget makes which was set."""
        ids = (self.subject.subject_id,)
        of_kind = {kind: ids if kind is self.subject.kind else () for kind in SubjectKind}
        return QuotaRule(
            self.name,
            self.limits,
            users=of_kind[SubjectKind.USER],
            services=of_kind[SubjectKind.SERVICE],
            keys=of_kind[SubjectKind.KEY],
            models=self.models,
        )

    def held(self) -> tuple[Limit, ...]:
        """Return its limits, as they hold."""
        rule = QuotaRule(self.rule or self.name, self.limits, models=self.models)
        return tuple(rule.limits_of(self.subject))
