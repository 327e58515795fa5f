"""One call at one end: what caller and callee have in common to keep it, tell of it and end it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agents.alarms import CallAlarm
from agents.decision import NOTHING, Decision, Put, Send, Wake
from media.leg import CloseMedia, Leg, OpenMedia
from protocol.checks import Check, Refused
from protocol.description import (
    BodyMalformed,
    Description,
    Flow,
    NothingInCommon,
    SrtpSuite,
    accept_mailbox_answer,
    read_description,
    share_no_codec,
)
from protocol.encoding import digest
from protocol.evidence import Grant, Holder, Token
from protocol.exchange import transcript
from protocol.limits import LIFE_S
from protocol.names import Permit, Role, Suite
from protocol.profile import Profile
from protocol.sealing import Random
from protocol.sharding import call_key
from protocol.transport import MediaAddress, Statistics
from storage.ue_records import CallState, Lines, UeCall
from topics.catalogue import CSCF, REPORTS
from topics.messages import Contact, OfRun, Report, ReportEvent, clear

REPEAT_S: Final = 2  # what is not answered is sent again
GIVE_UP_S: Final = 32  # and no longer than this (as SIP's timer B)
FORGET_S: Final = 64  # an ended call answers repeats so long
MEDIA_LINE: Final = 0  # one audio line
_REPEAT_DOUBLINGS: Final = 3
_RENEWAL: Final = " renewal"


@dataclass(frozen=True, slots=True)
class UeSettings:
    """What a host's handsets can do and will do."""

    host: str
    """The host's name, as in its inbox ims.ue.<host>."""
    lines: tuple[MediaAddress, ...]
    """The addresses of the host's media engine: as many calls at a time."""
    suite: Suite = Suite.AES_256_GCM
    """The seals' suite that a caller names."""
    suites: frozenset[Suite] = frozenset(Suite)
    """The seals' suites that a callee allows."""
    srtp_suites: tuple[SrtpSuite, ...] = tuple(SrtpSuite)
    """What is offered and accepted for media, the first choice first."""
    codecs: tuple[str, ...] = ("PCMU",)
    """RTP names of codecs, the first choice first."""
    permits: tuple[Permit, ...] = (Permit.DEFERRED,)
    """What a user consents to beyond the call itself, sorted. Without `deferred` no mailbox is accepted."""
    answer_after_s: int | None = 0
    """Seconds of ringing before the handset answers by itself; None: it declines."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What every handler of a handset needs besides the message and the records."""

    profile: Profile
    settings: UeSettings


def mailbox_answer(offer: bytes, answer: bytes) -> Description:
    """What a mailbox has chosen. Raises Refused(OR-24) if that is no answer to the offer."""
    try:
        return accept_mailbox_answer(read_description(offer), answer)
    except (BodyMalformed, NothingInCommon):  # OR-24
        raise Refused(Check.OR_24) from None


def session_of(device: str, caller: str, call: bytes) -> str:
    """The name of a call at one device: the device, a space (no IMPI has one), and the call."""
    return f"{device} {call_key(caller, call)}"


def device_of(session: str) -> str:
    """The IMPI in a session's name."""
    return session.partition(" ")[0]


def repeat_s(repeats: int) -> int:
    """How long to wait after so many repeats: 2, 4, 8, 16, 16 ... seconds."""
    return REPEAT_S << min(repeats, _REPEAT_DOUBLINGS)


def other_role(call: UeCall) -> Role:
    """What the other end is."""
    return Role.CALLEE if call.role is Role.CALLER else Role.CALLER


def own_holder(call: UeCall) -> Holder:
    """This end with the key under which it sealed its token."""
    return Holder(call.role, call.own_key_id, call.own_key)


def about(call: UeCall) -> dict[str, Any]:
    """The fields that every message of the call has."""
    return clear(call.run)


def transcript_of(call: UeCall) -> bytes:
    """What this end saw of the exchange, once it has seen all of it."""
    return transcript(
        call.run,
        offer=call.offer,
        answer=call.answer,
        fork=call.fork,
        token_a=call.token_a,
        nonce_b=call.nonce_b,
        grant_a=call.grant_a,
    )


def with_token(terms: Terms, call: UeCall, now: int, random: Random) -> UeCall:
    """The call with this end's own token, over its nonce and the offer; a callee's binds the caller's."""
    caller = call.role is Role.CALLER
    body = Token(*call.run.clear, call.nonce, now, terms.settings.permits, digest(call.offer))
    binds = None if caller else call.token_a
    token = terms.profile.seal_token(own_holder(call), call.run, body, binds=binds, random=random)
    return msgspec.structs.replace(call, token=token, token_a=token if caller else call.token_a)


def with_grant(call: UeCall, grant: Grant, now: int) -> UeCall:
    """The call with K, for as long as both the KMS's instant and its remaining time allow."""
    lifetime_s = min(LIFE_S, grant.not_after - grant.now, grant.not_after - now)
    return msgspec.structs.replace(
        call, key=grant.key, fork=grant.fork, lifetime_s=lifetime_s, ends=now + lifetime_s
    )


def renewal_of(session: str) -> str:
    """The name under which this call's next key is agreed on: a record of its own (renewing.py)."""
    return session + _RENEWAL


def main_of(session: str) -> str:
    """The call's own name."""
    return session.removesuffix(_RENEWAL)


def keep(call: UeCall, now: int) -> Decision:
    """Remember the call, and look at it again when something is to be repeated, renewed or given up."""
    at = min(call.repeat_at, call.give_up_at, *((call.leg_by,) if waits_for_leg(call) else ()))
    if waits_to_renew(call):
        at = min(at, call.renew_at)
    return Decision(
        puts=(Put(UeCall.key_for(call.session), call, now + 2 * LIFE_S),),
        wakes=(Wake(f"call {call.session}", "", at, CallAlarm(call.session)),),
    )


def forget(call: UeCall) -> Decision:
    """The call has answered repeats for long enough."""
    return Decision(
        puts=(Put(UeCall.key_for(call.session), None),),
        wakes=(Wake(f"call {call.session}", "", None),),
    )


def waits_to_renew(call: UeCall) -> bool:
    """Whether the next key is to be asked for at renew_at."""
    return call.renew_at > 0 and call.state is CallState.UP and not call.renewing


def forget_renewal(call: UeCall) -> Decision:
    """What was on its way to take the call's place is wanted no more."""
    renewal = msgspec.structs.replace(call, session=renewal_of(call.session))
    return forget(renewal) if call.renewing else NOTHING


def to_cscf(call: UeCall, message: OfRun) -> Decision:
    """A message of this call on its way to the other end."""
    return Decision(sends=(Send(CSCF, call_key(call.run.caller, call.run.call), message),))


def contact_of(call: UeCall, terms: Terms) -> Contact:
    """Where this end is reached."""
    return Contact(terms.settings.host, call.device)


def report(
    call: UeCall,
    event: ReportEvent,
    now: int,
    *,
    refused: Refused | None = None,
    statistics: Statistics | None = None,
    reason: str | None = None,
    until: int | None = None,
    packets: int | None = None,
) -> Decision:
    """Tell the world how the call stands at this end."""
    message = Report(
        event=event,
        device=call.device,
        at=now,
        fork=call.fork or None,
        request=call.request,
        check=refused.check if refused else None,
        reason=refused.code if refused else (reason or call.reason or None),
        statistics=statistics,
        until=until,
        packets=packets,
        transcoder=call.transcoder or None,
        **about(call),
    )
    return Decision(sends=(Send(REPORTS, call_key(call.run.caller, call.run.call), message),))


def open_media(call: UeCall, now: int) -> Decision:
    """Media under K, each way under its sender's own key."""
    return Decision(media=(OpenMedia(leg_of(call, now)),))


def leg_of(call: UeCall, now: int) -> Leg:
    """What this end says and hears under K, as offer and answer have it."""
    assert call.key is not None
    assert call.peer_media is not None
    chosen = chosen_of(call)
    local, remote = call.run.caller, call.run.callee
    if call.role is Role.CALLEE:
        local, remote = remote, local
    return Leg(
        session=call.session,
        line=call.line,
        root=call.key,
        suite=SrtpSuite(chosen.srtp_suites[0]),
        codec=chosen.codecs[0],
        local=local,
        remote=remote,
        remote_address=call.peer_media,
        media_line=MEDIA_LINE,
        n=call.run.n,
        flow=_own_flow(call, chosen),
        lifetime_s=_remaining_s(call, now),
        sound=call.sound,
        to_mailbox=bool(call.mailbox),
    )


def _remaining_s(call: UeCall, now: int) -> int:
    """How long K may still be used."""
    return min(call.lifetime_s, call.ends - now)


def _own_flow(call: UeCall, answer: Description) -> Flow:
    """The flow from this end's side: the answer is the callee's."""
    if call.role is Role.CALLEE:
        return answer.flow
    return {Flow.SENDONLY: Flow.RECVONLY, Flow.RECVONLY: Flow.SENDONLY}.get(answer.flow, answer.flow)


def chosen_of(call: UeCall) -> Description:
    """The answer of the call."""
    return read_description(call.answer)


def needs_transcoder(call: UeCall) -> bool:
    """Whether this answered call's ends share no codec: then no media goes under K (section 7)."""
    return share_no_codec(read_description(call.offer), chosen_of(call))


def up_without_media(call: UeCall, now: int) -> UeCall:
    """The call, now up: where a transcoder is needed, and no leg flows, it waits for one."""
    waits = needs_transcoder(call) and not call.media_open
    return msgspec.structs.replace(call, leg_by=now + GIVE_UP_S) if waits else call


def waits_for_leg(call: UeCall) -> bool:
    """Whether the call ends at leg_by."""
    return call.leg_by > 0 and call.state is CallState.UP


def take_line(lines: Lines | None, session: str, count: int) -> tuple[int, Lines] | None:
    """A free line and the lines with the session on it; None when all are in use."""
    sessions = (lines or Lines()).sessions or (None,) * count
    for line, user in enumerate(sessions):
        if user is None:
            return line, Lines(sessions=(*sessions[:line], session, *sessions[line + 1 :]))
    return None


def end(call: UeCall, lines: Lines | None, reason: str, now: int) -> Decision:
    """The call is over at this end: free its line, destroy its key, close its media, tell the world. SETTLED
    is repeated until it is answered, or the call is forgotten."""
    ended = msgspec.structs.replace(
        call,
        state=CallState.ENDED,
        reason=call.reason or reason,
        key=None,
        renewing=0,
        repeat_at=now + (REPEAT_S if call.settled else FORGET_S),
        give_up_at=now + FORGET_S,
    )
    sessions = tuple(None if user == call.session else user for user in (lines or Lines()).sessions)
    freed = Decision(
        puts=(Put(Lines.key(), Lines(sessions=sessions)),),
        media=(CloseMedia(call.session),) if call.media_open or call.transcoder else (),
    )
    return keep(ended, now) + forget_renewal(call) + freed + report(ended, ReportEvent.ENDED, now)
