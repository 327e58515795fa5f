"""A session at its line: where its packets go, how long it lasts, and what is told of it. What an engine for
handsets and a bridge have in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from media.leg import Leg, MediaClosed, MediaEvent, MediaSilent, RenewMedia
from media.line import Line, SocketAddress
from media.link import Link
from protocol.transport import MediaAddress

_RESOLVE_AGAIN_S: Final = 1.0
_STALLED_S: Final = 1.0  # who is further behind was stopped, and does not send all of it at once


class LineBusy(Exception):  # noqa: N818
    """The agent's records and the engine disagree on who uses a line: a bug."""


class Placed:
    """The line is taken from the beginning until `leave`. Times are the event loop's."""

    def __init__(
        self,
        line: Line,
        leg: Leg,
        link: Link,
        *,
        silence_s: float,
        unheard_s: float | None = None,
        on_event: Callable[[MediaEvent], None],
    ) -> None:
        """silence_s: how long nothing may come before it is told; unheard_s: likewise, of a peer that has not
        been heard since it was opened or moved; None: the same. Raises LineBusy."""
        if line.session is not None:
            raise LineBusy(f"line {leg.line}")
        self.leg = leg  # the newest
        self.link = link
        self.target: SocketAddress | None = None  # not known before it is resolved
        self._line = line
        self._silence_s = silence_s
        self._unheard_s = silence_s if unheard_s is None else unheard_s
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._awaited_since = self._loop.time()
        self._told_silent = False
        self._finding: asyncio.Task[None] | None = None
        self._last(leg)
        line.session = link
        self.move(leg.remote_address)

    def renew(self, instruction: RenewMedia) -> None:
        """Another leg follows; of one whose key is the newest already, the address counts."""
        if self.link.renew(instruction, self._loop.time()):
            self.leg = instruction.leg
            self._last(self.leg)
        self.move(instruction.leg.remote_address)

    def move(self, address: MediaAddress) -> None:
        """The peer listens at this address; until that is resolved, packets go where they went before. It has
        as long as at first to be heard from there."""
        self._awaited_since = self._loop.time()
        self._told_silent = False
        if self._finding is not None:
            self._finding.cancel()
        self._finding = self._loop.create_task(self._find(address))
        self._finding.add_done_callback(tell_failure)

    def send(self, datagrams: Sequence[bytes]) -> None:
        """At once, or not at all."""
        if self.target is not None:
            for datagram in datagrams:
                self._line.send(datagram, self.target)

    def over(self, now: float) -> bool:
        """Whether the lifetime of the newest key has ended."""
        return now >= self._line.not_after  # OR-28

    def tell_silence(self, now: float) -> None:
        """Once, if nothing authentic has come for long; once more when the peer has moved since."""
        if self._told_silent or self.leg.to_mailbox:  # which never says anything
            return
        heard_at = self.link.heard_at
        if heard_at is None or heard_at < self._awaited_since:
            is_silent = now - self._awaited_since > self._unheard_s
        else:
            is_silent = now - heard_at > self._silence_s
        if is_silent:
            self._told_silent = True
            self._on_event(MediaSilent(self.leg.session))

    def leave(self, *, expired: bool) -> None:
        """The last report, the line is free, and MediaClosed."""
        now = self._loop.time()
        if self._finding is not None:
            self._finding.cancel()
        if not self.over(now):
            self.send([self.link.close(now)])
        self._line.session = None
        self._on_event(MediaClosed(self.leg.session, self.link.statistics(), expired))

    def _last(self, leg: Leg) -> None:
        self._line.not_after = self._loop.time() + leg.lifetime_s

    async def _find(self, address: MediaAddress) -> None:
        """The peer's socket address; its name may not be known yet."""
        while True:
            target = await self._line.resolve(address)
            if target is not None:
                self.target = target
                return
            await asyncio.sleep(_RESOLVE_AGAIN_S)


async def beat(tick: Callable[[float], bool], each_s: float) -> None:
    """Call `tick` with the event loop's time by absolute deadlines, so that no delay adds up, until it says
    False. What it raises is raised."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        # when behind, this gives way once, so that what has come meanwhile is read before the next tick
        await asyncio.sleep(due - loop.time())
        now = loop.time()
        if not tick(now):
            return
        due = now if now > due + _STALLED_S else due + each_s


def tell_failure(task: asyncio.Task[None]) -> None:
    """A bug in a task is told by the event loop's exception handler."""
    if not task.cancelled():
        task.result()
