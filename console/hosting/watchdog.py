"""The watchdog: it ends a process whose agents are stuck in a way that they cannot notice themselves.

A loop waits for a bus or a store that is away, and gives up by itself. It cannot see that it does not run,
that it runs and nothing gets done, or that a bus that it hears nothing of is not quiet but gone: after a
change of the password aiokafka tries to connect for ever. Whoever started the process starts it anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

import structlog

from console.hosting.readiness import Watched

log = structlog.get_logger()

EXIT_CODE: Final = 70  # EX_SOFTWARE of sysexits.h
_LAST_WORD_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each may last. The loop's own waits are far shorter: 5 s for a send, 2 s for the store."""

    turn_s: float = 60.0
    """The loop has not turned."""
    progress_s: float = 60.0
    """There are records, nothing is waited for, and no input and no dead letter is dealt with."""
    silence_s: float = 60.0
    """Nothing was heard of a partition, and nothing is waited for."""
    look_s: float = 2.0
    """Between two looks. It takes two in a row that find a reason: a process that was stopped for a while, or
    a clock that was set forward, looks for a moment like one that is stuck."""


class Watchdog:
    """Looks at the agents of this process."""

    def __init__(self, agents: Sequence[Watched], patience: Patience = Patience()) -> None:
        self._agents = agents
        self._patience = patience
        self._standing: dict[str, tuple[int, float]] = {}  # with work left: what was dealt with, since when

    def look(self, now: float) -> str | None:
        """Why the process should end, if it should; now: as time.monotonic tells it."""
        for agent in self._agents:
            reason = self._stuck(agent, now)
            if reason is not None:
                return f"{agent.role}: {reason}"
        return None

    def _stuck(self, agent: Watched, now: float) -> str | None:
        patience, vitals = self._patience, agent.vitals
        idle_s = agent.turned_before_s(now)
        if idle_s > patience.turn_s:  # also one that waits: it tries again all the time
            return f"the loop has not turned for {idle_s:.0f} s"
        dealt_with, since = self._standing.get(agent.role, (-1, now))
        if vitals.waiting_for is not None or not vitals.lag.records:
            self._standing.pop(agent.role, None)
        elif dealt_with != vitals.dealt_with:
            self._standing[agent.role] = (vitals.dealt_with, now)
        elif now - since > patience.progress_s:
            return f"{vitals.lag.records} records are there, and none was dealt with for {now - since:.0f} s"
        if vitals.waiting_for is None and vitals.lag.silent_s > patience.silence_s:
            return f"nothing was heard of the bus for {vitals.lag.silent_s:.0f} s"
        return None


@contextmanager
def watching(agents: Sequence[Watched], patience: Patience = Patience()) -> Iterator[None]:
    """Ends this process at once, with EXIT_CODE and a line in the log, if an agent is stuck while this lasts.

    In a thread of its own, which a stuck event loop does not hold up.
    """
    over, watchdog = threading.Event(), Watchdog(agents, patience)

    def watch() -> None:
        before: str | None = None
        while not over.wait(patience.look_s):
            reason = watchdog.look(time.monotonic())
            if reason is not None and before is not None:
                _end(reason)
            before = reason

    thread = threading.Thread(target=copy_context().run, args=(watch,), name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _end(reason: str) -> NoReturn:
    """A log that nobody reads may be why the loop is stuck: the last word is not waited for without limit."""
    word = partial(log.error, "watchdog", why=reason)
    saying = threading.Thread(target=copy_context().run, args=(word,), daemon=True)
    saying.start()
    saying.join(_LAST_WORD_S)
    os._exit(EXIT_CODE)
