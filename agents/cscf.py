"""Call control: knows where devices are, and carries a call's messages from one end to the other.

It holds no key and opens nothing. The ends repeat what is not answered; call control keeps time only for how
long devices may ring, and for the CANCEL that it sends of its own accord.

    UE -> CSCF  REGISTER           UE <- CSCF  REGISTERED          CSCF -> V  PRESENT
    A  -> CSCF -> B   INVITE, ACK, BYE, BYE-OK           agents/routing/forking.py: to which of B's devices
    B  -> CSCF -> A   RINGING, 200 OK, DECLINE, BYE, BYE-OK
    A  -> CSCF -> V, V -> CSCF -> A                                agents/routing/diverting.py: the mailbox
    B  -> CSCF -> V   MAILBOX, RETRIEVE of a registered device; COLLECTED of anybody, since it has a proof
    KMS, T -> CSCF -> A, B   NOTICE; NO-LEGS of T                   agents/routing/interposing.py
    i  -> CSCF -> C   JOIN, IN-USE of a registered device; LEAVE of anybody, since it is sealed
                                                         agents/routing/attending.py
    A  -> CSCF   CANCEL, and CANCELLED back;  CSCF -> B likewise
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agents.alarms import Cancelling, NoAnswer
from agents.decision import NOTHING, Decision, Input, Keys, Put, Records, Send, to_device
from agents.routing import attending, diverting, forking, interposing
from agents.routing.ways import keep, repeat_cancel, to_branch, wait
from protocol.checks import RefusalCode
from protocol.limits import FORKS_MAX
from protocol.sealing import Random
from storage.cscf_records import Binding, Branch, Registration, Route
from topics.catalogue import VOICEMAIL, Party
from topics.codec import encode
from topics.messages import (
    Ack,
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Collected,
    Contact,
    Decline,
    DeclineReason,
    InUse,
    Invite,
    Join,
    Leave,
    Mailbox,
    MailboxOk,
    MailboxRefusal,
    MailboxSays,
    NoLegs,
    Notice,
    OfRun,
    Ok,
    Present,
    Register,
    Registered,
    Retrieve,
    Ringing,
    Trying,
    Wire,
    named,
)


@dataclass(frozen=True, slots=True)
class CscfSettings:
    """What an operator may choose."""

    no_answer_s: int = 60
    """How long a call may stay unanswered."""
    no_reaction_s: int = 10
    """How long no device need say anything, not even TRYING, before a mailbox is asked, if there is one."""
    expires_s_max: int = 3600
    """The longest registration."""
    mailbox: str = ""
    """ID-V, which takes the calls that nobody takes; empty: their callers are told."""
    focus: str = ""
    """ID-C, which holds the conferences of this network; empty: there are none."""
    transcoder: str = ""
    """ID-T, which comes between two ends that share no codec; empty: their calls have no sound, and end."""


class Cscf:
    """Routes by the records of who registered where, and of which way a call went."""

    party: ClassVar[Party] = Party.CSCF
    accepts: ClassVar[frozenset[type]] = frozenset(
        {
            Register,
            Mailbox,
            Retrieve,
            Collected,
            Invite,
            Trying,
            Ringing,
            Ok,
            Ack,
            Decline,
            Cancel,
            Cancelled,
            Bye,
            ByeOk,
            MailboxOk,
            Join,
            InUse,
            Leave,
            Notice,
            NoLegs,
        }
    )

    def __init__(self, settings: CscfSettings = CscfSettings()) -> None:
        self._settings = settings

    def reads(self, message: Input) -> Keys:
        match message:
            case Register() | Mailbox():
                return (Registration.key_for(message.identity),)
            case Join() | InUse() | Leave():
                return (Registration.key_for(message.member),)
            case Retrieve() | Collected():
                return (Registration.key_for(message.callee),)
            case Invite():
                return (
                    Route.key_for(message.caller, message.call),
                    Registration.key_for(message.caller),
                    Registration.key_for(message.callee),
                )
            case OfRun() | NoAnswer() | Cancelling():
                return (Route.key_for(message.caller, message.call),)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:  # noqa: ARG002
        match message:
            case Register():
                return self._register(message, records, now)
            case Mailbox() | Retrieve() | Collected():
                return self._ask_mailbox(message, records, now)
            case Join() | InUse() | Leave():
                known = records.get(Registration.key_for(message.member))
                return attending.ask_focus(message, known, self._settings.focus, now)
            case OfRun() | NoAnswer() | Cancelling():
                route = records.get(Route.key_for(message.caller, message.call))
                if route is None:
                    return self._begin(message, records, now) if isinstance(message, Invite) else NOTHING
                return NOTHING if route.callee != message.callee else self._of_call(route, message, now)
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
        until = not_after if register.expires_s else now
        present = Present(identity=register.identity, device=sender, not_after=until)
        told = (Send(VOICEMAIL, register.identity, present),)
        return Decision(
            puts=(
                Put(
                    key,
                    Registration(bindings=bindings),
                    max((binding.not_after for binding in bindings), default=now),
                ),
            ),
            sends=(
                to_device(sender, registered),
                *(told if self._settings.mailbox else ()),
            ),
        )

    def _ask_mailbox(self, message: Mailbox | Retrieve | Collected, records: Records, now: int) -> Decision:
        """What a device wants of the mailbox, if it is registered for its owner; a proof needs no more."""
        owner = message.identity if isinstance(message, Mailbox) else message.callee
        sender = message.sender
        devices = {(binding.host, binding.device) for binding in _live(records, owner, now)}
        if not self._settings.mailbox:
            return _deny(message, RefusalCode.NOT_FOUND)
        if not isinstance(message, Collected) and (sender.host, sender.device) not in devices:
            return _deny(message, RefusalCode.DENIED)
        return Decision(sends=(Send(VOICEMAIL, owner, message),))

    def _of_call(self, route: Route, message: OfRun | NoAnswer | Cancelling, now: int) -> Decision:
        if not self._settings.transcoder:
            return _of_call(route, message, now)
        noted = interposing.note(route, message)
        return interposing.follow(route, noted, message, _of_call(noted, message, now), now)

    def _begin(self, invite: Invite, records: Records, now: int) -> Decision:
        """The first INVITE of a call: to all devices that are registered now, and to no others later."""
        sender = invite.sender
        if sender is None or invite.run != 0:  # it must say where answers go; a renewal begins no call
            return NOTHING
        settings = self._settings
        devices = _live(records, invite.callee, now)
        caller_known = any(
            (binding.host, binding.device) == (sender.host, sender.device)
            for binding in _live(records, invite.caller, now)
        )
        if not caller_known or not (devices or settings.mailbox):
            return _refuse(invite, sender)
        reaction_s = settings.no_reaction_s if settings.mailbox else settings.no_answer_s
        route = Route(
            caller=invite.caller,
            callee=invite.callee,
            call=invite.call,
            contact=(sender.host, sender.device),
            branches=tuple(Branch(host=binding.host, device=binding.device) for binding in devices),
            answer_by=now + min(reaction_s, settings.no_answer_s),
            ring_until=now + settings.no_answer_s,
            invite=encode(invite) if settings.mailbox else b"",
        )
        if settings.transcoder:
            route = interposing.note(route, invite)
        if not devices:
            return diverting.conclude(route, DeclineReason.NOT_REGISTERED, now)
        told = sum((to_branch(branch, invite) for branch in route.branches), NOTHING)
        return keep(route, now) + wait(route) + told


def _of_call(route: Route, message: OfRun | NoAnswer | Cancelling, now: int) -> Decision:
    """A message or an alarm of a call that is known."""
    match message:
        case Notice() | NoLegs():
            return interposing.forward(route, message)
        case NoAnswer():
            return forking.no_answer(route, now)
        case Cancelling():
            return repeat_cancel(route, now)
        case Invite() if message.sender is None or message.sender != Contact(*route.contact):
            return NOTHING  # another device under this call's name
        case OfRun() if message.run != 0:
            return forking.take_later_run(route, message, now)
        case Invite():
            return forking.invite_again(route, message)
        case _:
            return forking.take(route, message, now)


def _deny(message: Mailbox | Retrieve | Collected, code: RefusalCode) -> Decision:
    """A hint, as all call control is."""
    to = message.sender.device
    match message:
        case Mailbox():
            answer: Wire = MailboxSays(
                identity=message.identity, request=message.request, messages=0, code=code, to=to
            )
        case _:
            answer = MailboxRefusal(code=code, to=to, **named(message))
    return Decision(sends=(to_device(message.sender, answer),))


def _live(records: Records, identity: str, now: int) -> tuple[Binding, ...]:
    return (records.get(Registration.key_for(identity)) or Registration()).live(now)


def _refuse(invite: Invite, to: Contact) -> Decision:
    decline = Decline(reason=DeclineReason.NOT_REGISTERED, to=to.device, **named(invite))
    return Decision(sends=(to_device(to, decline),))
