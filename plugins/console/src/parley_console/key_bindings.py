"""What the keys of a chat do."""

import time
from collections.abc import Callable
from typing import Protocol

from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from parley_console.aside import Aside
from parley_console.interrupts import IdleAction, IdleInterrupts, Sigint


class Composer(Protocol):
    """Where the keys lead."""

    def send(self, text: str) -> None:
        """Take a text that is ready."""

    def warn_of_leaving(self) -> None:
        """Say what a second Ctrl-C would do."""


def chat_keys(
    composer: Composer, sigint: Sigint, aside: Aside, clock: Callable[[], float] = time.monotonic
) -> KeyBindings:
    """Build the bindings: Enter sends, Alt-Enter is a newline, Ctrl-C and Esc stop a run, Ctrl-C at rest clears.

    Digits answer a question that is asked aside; while a line is asked for, Ctrl-C and Esc take that back. Ctrl-D on an
    empty line leaves, as prompt_toolkit has it; so does its search through the history, Ctrl-R.
    """
    bindings = KeyBindings()
    interrupts = IdleInterrupts()
    _add_answers(bindings, aside)

    @bindings.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text
        event.current_buffer.reset(append_to_history=bool(text.strip()))
        composer.send(text)

    @bindings.add("escape", "enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("escape", filter=~is_searching & Condition(lambda: sigint.is_heard and not aside.question))
    def _(_event: KeyPressEvent) -> None:
        sigint.deliver()

    @bindings.add("c-c", filter=~is_searching & Condition(lambda: not aside.question))
    def _(event: KeyPressEvent) -> None:
        if sigint.is_heard:
            sigint.deliver()
            return
        match interrupts.press(event.current_buffer.text, clock()):
            case IdleAction.CLEAR:
                event.current_buffer.reset()
            case IdleAction.HINT:
                composer.warn_of_leaving()
            case IdleAction.QUIT:
                event.app.exit(exception=EOFError())

    return bindings


def _add_answers(bindings: KeyBindings, aside: Aside) -> None:
    is_asked_for_a_line = ~is_searching & Condition(lambda: bool(aside.question))
    for digit in "123456789":
        bindings.add(digit, filter=~is_searching & _offered(aside, digit))(lambda event: aside.press(event.data))

    @bindings.add("escape", filter=is_asked_for_a_line)
    @bindings.add("c-c", filter=is_asked_for_a_line)
    def _(_event: KeyPressEvent) -> None:
        aside.send(None)


def _offered(aside: Aside, key: str) -> Condition:
    return Condition(lambda: aside.offers(key, get_app().current_buffer.text))
