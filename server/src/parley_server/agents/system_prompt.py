"""What every agent is told of the user it works for: checked values only, so nobody can write instructions here."""

import re

from parley_server.domain.context import RequestContext

# Language, script and region; the rest of a BCP 47 tag is free text of up to 64 characters.
_LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(?=-|\Z)")


def with_user_facts(prompt: str, context: RequestContext) -> str:
    """Add the user's date, time zone and language to a prompt."""
    today = context.timestamp.astimezone(context.zone)
    locale = _LOCALE.match(context.locale)
    facts = [
        f"Today is {today:%A}, {today:%Y-%m-%d}, where the user is.",
        f"The user's time zone is {context.time_zone}.",
    ]
    if locale is not None:
        facts.append(f"The user's locale is {locale.group()}.")
    return "\n".join([prompt, "", *facts])
