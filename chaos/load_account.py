"""The account of a load: what became of each call, told by the reports of both ends as they leave the host.

    dialled -> (calling) -> up at the caller -> confirmed at the callee -> ended at both ends, with reasons
                         -> ended without coming up, with a reason

A call is accounted for when its caller has ended it, and its callee too if that has heard of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Any, Final

import msgspec

from chaos.load_media import Opening
from protocol.sharding import call_key
from topics.messages import KeyRequest, Message, Report, ReportEvent

GAP_S: Final = 1.5  # so long no call has come up, where several in each second should have


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """One dial and what became of it. Names that are octets are in hexadecimal."""

    request: str
    caller: str
    callee: str
    dialled_at: float  # seconds since the load's start
    late_ms: float  # so long after its turn
    call: str | None = None  # C, once there is a call
    up_after_ms: float | None = None  # from the dial until the caller's handset was up
    reached: bool = False  # the callee's handset has taken the call in hand: it has asked for a key
    confirmed: bool = False  # the callee's handset has verified confirm_a
    ended_at_caller: str | None = None  # why
    ended_at_callee: str | None = None
    key_at_caller: str | None = None  # fingerprint of the last K under which media was opened there
    key_at_callee: str | None = None
    two_keys: bool = False  # one end has opened media under different Ks

    @property
    def up_at(self) -> float | None:
        """Seconds since the load's start."""
        return None if self.up_after_ms is None else self.dialled_at + self.up_after_ms / 1000

    @property
    def accounted(self) -> bool:
        """Over, wherever it was."""
        return self.ended_at_caller is not None and (self.ended_at_callee is not None or not self.reached)

    @property
    def disagreeing(self) -> bool:
        """The ends hold different Ks."""
        keys = {self.key_at_caller, self.key_at_callee} - {None}
        return len(keys) > 1


class Gap(msgspec.Struct, frozen=True):
    """A time in which no call has come up, in seconds since the load's start."""

    start_s: float
    length_s: float


class SetUp(msgspec.Struct, frozen=True):
    """From the dial until the caller's handset was up, in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The account of all calls."""

    began: int  # the load's start, seconds since 1970 UTC
    dials: int
    came_up: int
    confirmed: int
    failed: dict[str, int]  # how many have ended without coming up, by the reason at the caller
    unaccounted: int  # no end seen at the caller, or at a callee who knew of the call
    disagreeing: int  # both ends have opened media, under different Ks
    two_keys: int  # one end has opened media under different Ks
    shared_keys: int  # calls whose K another call has as well
    without_media: int  # confirmed, but one end has never opened media: its user heard nothing
    set_up_ms: SetUp | None  # None when nothing came up
    late_ms_max: float
    ups: tuple[int, ...]  # how many calls came up in each second since the start
    gaps: tuple[Gap, ...]  # of more than GAP_S, from the start to the last dial at least
    calls: tuple[CallResult, ...]

    @property
    def good(self) -> bool:
        """Whatever failed has failed as it may: no call is lost from sight, and keys are as they must be."""
        return not (self.unaccounted or self.disagreeing or self.two_keys or self.shared_keys)


class CallAccount:
    """Takes what happens in the order in which it happens. Times are seconds since the load's start."""

    def __init__(self) -> None:
        self._calls: dict[bytes, CallResult] = {}  # by the dial's request
        self._requests: dict[tuple[str, bytes], bytes] = {}  # by ID-A and C
        self._open: set[bytes] = set()  # requests of calls that are not accounted for

    def __len__(self) -> int:
        """How many were dialled."""
        return len(self._calls)

    @property
    def settled(self) -> bool:
        """Whether every call is accounted for."""
        return not self._open

    def open_calls(self) -> Sequence[CallResult]:
        """Those that are not accounted for yet."""
        return [self._calls[request] for request in self._open]

    def dialled(self, request: bytes, caller: str, callee: str, *, at: float, late_s: float) -> None:
        """A call is wanted: request is the Dial's, 16 octets."""
        self._calls[request] = CallResult(
            request=request.hex(),
            caller=caller,
            callee=callee,
            dialled_at=round(at, 4),
            late_ms=round(1000 * late_s, 1),
        )
        self._open.add(request)

    def sent(self, message: Message, at: float) -> None:
        """What a handset of the host sends. The same once more is nothing, as is what is about no dial."""
        match message:
            case KeyRequest():
                self._note(self._requests.get((message.caller, message.call)), reached=True)
            case Report() if message.request is not None:
                self._at_caller(message.request, message, at)
            case Report() if message.call is not None and message.caller is not None:
                self._at_callee(self._requests.get((message.caller, message.call)), message)
            case _:
                pass

    def progress(self) -> str:
        """Where the load stands, in a line."""
        calls = self._calls.values()
        up = sum(call.up_after_ms is not None for call in calls)
        failed = sum(call.up_after_ms is None and call.ended_at_caller is not None for call in calls)
        return f"{len(calls)} dialled, {up} came up, {failed} failed, {len(self._open)} not over"

    def outcome(self, openings: Iterable[Opening], *, began: int) -> Outcome:
        """The account as it stands, with the keys under which media was opened."""
        calls = tuple(self._with_keys(openings))
        ups = sorted(call.up_at for call in calls if call.up_at is not None)
        in_second = Counter(int(up) for up in ups)
        return Outcome(
            began=began,
            dials=len(calls),
            came_up=len(ups),
            confirmed=sum(call.confirmed for call in calls),
            failed=dict(
                Counter(
                    call.ended_at_caller
                    for call in calls
                    if call.ended_at_caller is not None and call.up_after_ms is None
                )
            ),
            unaccounted=sum(not call.accounted for call in calls),
            disagreeing=sum(call.disagreeing for call in calls),
            two_keys=sum(call.two_keys for call in calls),
            shared_keys=_shared(calls),
            without_media=sum(
                call.confirmed and None in {call.key_at_caller, call.key_at_callee} for call in calls
            ),
            set_up_ms=_set_up([call.up_after_ms for call in calls if call.up_after_ms is not None]),
            late_ms_max=max((call.late_ms for call in calls), default=0.0),
            ups=tuple(in_second[second] for second in range(max(in_second, default=-1) + 1)),
            gaps=tuple(_gaps([0.0, *ups, max([0.0, *ups[-1:], *(call.dialled_at for call in calls)])])),
            calls=calls,
        )

    def _at_caller(self, request: bytes, report: Report, at: float) -> None:
        call = self._calls.get(request)
        if call is None:
            return
        if report.call is not None and report.caller is not None:
            self._requests[report.caller, report.call] = request
            self._note(request, call=report.call.hex())
        if report.event is ReportEvent.UP and call.up_after_ms is None:
            self._note(request, up_after_ms=round(1000 * (at - call.dialled_at), 1))
        if report.event is ReportEvent.ENDED and call.ended_at_caller is None:
            self._note(request, ended_at_caller=report.reason or "")

    def _at_callee(self, request: bytes | None, report: Report) -> None:
        if report.event is ReportEvent.CONFIRMED:
            self._note(request, reached=True, confirmed=True)
        if report.event is ReportEvent.ENDED:
            self._note(request, reached=True, ended_at_callee=report.reason or "")

    def _note(self, request: bytes | None, **known: Any) -> None:  # noqa: ANN401
        if request is None:
            return
        call = self._calls[request] = msgspec.structs.replace(self._calls[request], **known)
        if call.accounted:
            self._open.discard(request)
        else:
            self._open.add(request)

    def _with_keys(self, openings: Iterable[Opening]) -> Iterator[CallResult]:
        keys: dict[tuple[str, str], list[str]] = defaultdict(list)  # by call and end
        for opening in openings:
            keys[opening.call, opening.end].append(opening.fingerprint)
        for call in self._calls.values():
            name = call_key(call.caller, bytes.fromhex(call.call or ""))
            ends = keys.get((name, call.caller), []), keys.get((name, call.callee), [])
            yield msgspec.structs.replace(
                call,
                key_at_caller=ends[0][-1] if ends[0] else None,
                key_at_callee=ends[1][-1] if ends[1] else None,
                two_keys=any(len(set(end)) > 1 for end in ends),
            )


def _shared(calls: Iterable[CallResult]) -> int:
    """How many calls have a K that another one has as well."""
    held = [{call.key_at_caller, call.key_at_callee} - {None} for call in calls]
    users = Counter(key for keys in held for key in keys)
    return sum(any(users[key] > 1 for key in keys) for keys in held)


def _set_up(took_ms: list[float]) -> SetUp | None:
    """Percentiles by nearest rank."""
    if not took_ms:
        return None
    took_ms.sort()
    p50, p95, p99 = (took_ms[ceil(len(took_ms) * share / 100) - 1] for share in (50, 95, 99))
    return SetUp(p50, p95, p99, took_ms[-1])


def _gaps(moments: list[float]) -> Iterator[Gap]:
    for before, after in pairwise(moments):
        if after - before > GAP_S:
            yield Gap(round(before, 2), round(after - before, 2))
