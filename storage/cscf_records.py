"""What call control remembers: where devices are, and which way each call goes. No secrets: it has none."""

from __future__ import annotations

from enum import StrEnum

from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.records import Key, Record, key_of

ROLE = "cscf"


class Binding(Record, frozen=True, kw_only=True):
    """One device that takes calls for an identity."""

    host: str
    device: str
    not_after: int


class Registration(Record, frozen=True, kw_only=True):
    """The devices of one public identity, the latest to register last."""

    bindings: tuple[Binding, ...] = ()

    def live(self, now: int) -> tuple[Binding, ...]:
        """Those that have not ended."""
        return tuple(binding for binding in self.bindings if now <= binding.not_after)

    @staticmethod
    def key_for(identity: str) -> Key[Registration]:
        """Found by public identity."""
        return key_of(Registration, ROLE, "registration", identity)


class BranchState(StrEnum):
    """How one of the callee's devices stands."""

    INVITED = "invited"  # nothing was heard of it
    RINGING = "ringing"
    ANSWERED = "answered"  # its 200 OK has passed
    CANCELLING = "cancelling"  # CANCEL sent
    OVER = "over"  # it has declined, or said that it stopped


class Branch(Record, frozen=True, kw_only=True):
    """One device that the call went to."""

    host: str
    device: str
    state: BranchState = BranchState.INVITED
    fork: bytes | None = None  # F, as its last 200 OK had it
    declined: str = ""  # the reason that it gave


class Answered(Record, frozen=True, kw_only=True):
    """What one device has answered in a run."""

    fork: bytes  # F
    answer: bytes
    media_b: MediaAddress


class Said(Record, frozen=True, kw_only=True):
    """What both ends have said of their media in one run, where a transcoder may be needed."""

    n: int
    offer: bytes
    media_a: MediaAddress
    answers: tuple[Answered, ...] = ()


class RouteState(StrEnum):
    """How a call stands, as call control sees it."""

    CALLING = "calling"  # the callee's devices ring
    TAKEN = "taken"  # the caller's ACK has named a device
    DIVERTED = "diverted"  # the mailbox has the INVITE
    LEAVING = "leaving"  # the mailbox has answered
    DECLINED = "declined"  # the caller was told that the call will not come up
    CANCELLED = "cancelled"  # the caller has said so


class Route(Record, frozen=True, kw_only=True):
    """One call: where its caller is, and where it has gone."""

    caller: str  # ID-A
    callee: str  # ID-B
    call: bytes
    contact: tuple[str, str]  # the caller's UE host and device
    branches: tuple[Branch, ...]  # as they were registered when the call began
    state: RouteState = RouteState.CALLING
    answer_by: int  # when this state has lasted too long; see NoAnswer
    ring_until: int  # how long answer_by may be put off by devices that ring
    winner: bytes | None = None  # F of the device whose answer the caller has taken
    declined: str = ""  # why
    diverted: str = ""  # why; empty: the mailbox knows nothing of this call
    invite: bytes = b""  # as it came, for the mailbox; empty where there is none
    cancels: int = 0  # how often CANCEL was repeated to who does not answer it
    said: tuple[Said, ...] = ()  # of the last runs; none where there is no transcoder, or the call is over
    legs: tuple[int, bytes] | None = None  # n and F of the latest run that the transcoder was told of

    @staticmethod
    def key_for(caller: str, call: bytes) -> Key[Route]:
        """Found by ID-A and C."""
        return key_of(Route, ROLE, "call", call_key(caller, call))
