"""What call control remembers: where devices are, and which two ends a call has. No secrets: it has none."""

from __future__ import annotations

from protocol.sharding import call_key
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

    @staticmethod
    def key_for(identity: str) -> Key[Registration]:
        """Found by public identity."""
        return key_of(Registration, ROLE, "registration", identity)


class Route(Record, frozen=True, kw_only=True):
    """The two ends of a call, each a UE host and a device, and how the call stands."""

    caller: tuple[str, str]
    callee: tuple[str, str] | None  # None: nobody was registered
    answered: bool = False
    declined: str | None = None  # the reason, once call control itself has given the call up

    @staticmethod
    def key_for(caller: str, call: bytes) -> Key[Route]:
        """Found by ID-A and C."""
        return key_of(Route, ROLE, "route", call_key(caller, call))
