"""Call control: knows where devices are, and carries a call's messages from one end to the other.

It holds no key and opens nothing. The ends repeat what is not answered, so it keeps one timer of its own:
how long a device may ring.

    UE -> CSCF  REGISTER           UE <- CSCF  REGISTERED
    A  -> CSCF -> B   INVITE, ACK, CANCEL, BYE, BYE-OK
    B  -> CSCF -> A   RINGING, 200 OK, DECLINE, CANCELLED, BYE, BYE-OK
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from agents.alarms import NoAnswer
from agents.decision import NOTHING, Decision, Input, Keys, Put, Records, Wake, to_device
from protocol.limits import FORKS_MAX, LIFE_S
from protocol.names import Role
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.cscf_records import Binding, Registration, Route
from topics.catalogue import Party
from topics.messages import (
    Ack,
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Contact,
    Decline,
    DeclineReason,
    Invite,
    OfRun,
    Ok,
    Register,
    Registered,
    Ringing,
)

FROM_CALLER: Final = (Ack, Cancel)
FROM_CALLEE: Final = (Ringing, Ok, Decline, Cancelled)


@dataclass(frozen=True, slots=True)
class CscfSettings:
    """What an operator may choose."""

    no_answer_s: int = 60
    """How long a call may stay unanswered."""
    expires_s_max: int = 3600
    """The longest registration."""


class Cscf:
    """Routes by the records of who registered where, and of which two ends a call has."""

    party: ClassVar[Party] = Party.CSCF
    accepts: ClassVar[frozenset[type]] = frozenset({Register, Invite, *FROM_CALLER, *FROM_CALLEE, Bye, ByeOk})

    def __init__(self, settings: CscfSettings = CscfSettings()) -> None:
        self._settings = settings

    def reads(self, message: Input) -> Keys:
        match message:
            case Register():
                return (Registration.key_for(message.identity),)
            case Invite():
                return (
                    Route.key_for(message.caller, message.call),
                    Registration.key_for(message.caller),
                    Registration.key_for(message.callee),
                )
            case OfRun() | NoAnswer():
                return (Route.key_for(message.caller, message.call),)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:  # noqa: ARG002
        match message:
            case Register():
                return self._register(message, records, now)
            case Invite():
                return self._invite(message, records, now)
            case NoAnswer():
                return self._no_answer(message, records, now)
            case OfRun():
                return self._relay(message, records, now)
            case _:
                return NOTHING

    def _register(self, register: Register, records: Records, now: int) -> Decision:
        key = Registration.key_for(register.identity)
        known = records.get(key) or Registration()
        sender = register.sender
        others = [
            binding
            for binding in known.bindings
            if binding.device != sender.device and now <= binding.not_after
        ]
        not_after = now + min(register.expires_s, self._settings.expires_s_max)
        own = Binding(host=sender.host, device=sender.device, not_after=not_after)
        bindings = (*others, own)[-FORKS_MAX:] if register.expires_s else tuple(others)
        registered = Registered(identity=register.identity, to=sender.device, not_after=not_after)
        return Decision(
            puts=(
                Put(
                    key,
                    Registration(bindings=bindings),
                    max((binding.not_after for binding in bindings), default=now),
                ),
            ),
            sends=(to_device(sender, registered),),
        )

    def _invite(self, invite: Invite, records: Records, now: int) -> Decision:
        if invite.sender is None:  # it must say where answers go
            return NOTHING
        sender = invite.sender
        key = Route.key_for(invite.caller, invite.call)
        route = records.get(key)
        if route is not None:
            if route.caller != (sender.host, sender.device):  # another device under this call's name
                return NOTHING
            if route.callee is None or route.declined is not None:
                return _decline(invite, sender, DeclineReason(route.declined or DeclineReason.NOT_REGISTERED))
            return _to_callee(route, invite)
        callee = self._latest(records, invite.callee, now)
        caller_known = any(
            (binding.host, binding.device) == (sender.host, sender.device)
            for binding in self._live(records, invite.caller, now)
        )
        if callee is None or not caller_known:
            return _decline(invite, sender, DeclineReason.NOT_REGISTERED)
        route = Route(caller=(sender.host, sender.device), callee=(callee.host, callee.device))
        alarm = NoAnswer(invite.caller, invite.callee, invite.call, invite.run)
        wake = _no_answer_wake(alarm, now + self._settings.no_answer_s)
        return Decision(puts=(Put(key, route, now + 2 * LIFE_S),), wakes=(wake,)) + _to_callee(route, invite)

    def _relay(self, message: OfRun, records: Records, now: int) -> Decision:
        key = Route.key_for(message.caller, message.call)
        route = records.get(key)
        if route is None:
            return NOTHING
        match message:
            case Ok() if not route.answered and route.declined is None:
                route = msgspec.structs.replace(route, answered=True)
                alarm = NoAnswer(message.caller, message.callee, message.call, message.run)
                return Decision(
                    puts=(Put(key, route, now + 2 * LIFE_S),), wakes=(_no_answer_wake(alarm, None),)
                ) + _to_caller(route, message)
            case Bye() | ByeOk():
                to = _to_callee if message.by is Role.CALLER else _to_caller
                return to(route, message)
            case Ack() | Cancel():
                return _to_callee(route, message)
            case _:
                return _to_caller(route, message)

    def _no_answer(self, alarm: NoAnswer, records: Records, now: int) -> Decision:
        key = Route.key_for(alarm.caller, alarm.call)
        route = records.get(key)
        if route is None or route.answered:
            return NOTHING
        about: dict[str, Any] = {
            "call": alarm.call,
            "run": alarm.n,
            "caller": alarm.caller,
            "callee": alarm.callee,
        }
        given_up = msgspec.structs.replace(route, declined=DeclineReason.NO_ANSWER)
        decline = Decline(reason=DeclineReason.NO_ANSWER, **about)
        return (
            Decision(puts=(Put(key, given_up, now + LIFE_S),))
            + _to_caller(route, decline)
            + _to_callee(route, Cancel(**about))
        )

    def _live(self, records: Records, identity: str, now: int) -> list[Binding]:
        known = records.get(Registration.key_for(identity)) or Registration()
        return [binding for binding in known.bindings if now <= binding.not_after]

    def _latest(self, records: Records, identity: str, now: int) -> Binding | None:
        live = self._live(records, identity, now)
        return live[-1] if live else None


def _no_answer_wake(alarm: NoAnswer, at: int | None) -> Wake:
    about = call_key(alarm.caller, alarm.call)
    return Wake(f"no-answer {about}", about, at, alarm)


def _to_caller(route: Route, message: OfRun) -> Decision:
    return _forward(Contact(*route.caller), message)


def _to_callee(route: Route, message: OfRun) -> Decision:
    return NOTHING if route.callee is None else _forward(Contact(*route.callee), message)


def _forward(contact: Contact, message: OfRun) -> Decision:
    """The message as the next hop gets it: for a device, no longer from one."""
    changes = {"to": contact.device, **({"sender": None} if hasattr(message, "sender") else {})}
    return Decision(sends=(to_device(contact, msgspec.structs.replace(message, **changes)),))


def _decline(invite: Invite, to: Contact, reason: DeclineReason) -> Decision:
    decline = Decline(
        call=invite.call,
        run=invite.run,
        caller=invite.caller,
        callee=invite.callee,
        reason=reason,
        to=to.device,
    )
    return Decision(sends=(to_device(to, decline),))
