"""One message at one device: what is asked about it, checked, kept and told, and how its collecting ends.

What follows on what stands in `agents/handset/collecting.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.alarms import CollectAlarm
from agents.decision import Decision, Put, Send, Wake
from agents.handset.inbox import report
from agents.handset.ue_call import FORGET_S, GIVE_UP_S, MEDIA_LINE, REPEAT_S, Terms
from media.leg import CloseStored, Leg
from protocol.checks import Check
from protocol.deferred import open_fetch_grant
from protocol.description import Description, Flow, SrtpSuite
from protocol.evidence import FetchGrant, Holder
from protocol.names import Role
from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.ue_records import Collecting, CollectingState
from topics.catalogue import CSCF, KMS
from topics.messages import Collected, Contact, Fetch, FetchResponse, ReportEvent, Retrieve, clear

_NOWHERE: Final = MediaAddress("mailbox.invalid", 9)  # a stored message comes from no address


def verified(fetching: Collecting, response: FetchResponse, now: int) -> FetchGrant:
    """grant_f, if the message is what the mailbox has told. Raises Refused(OR-20 to OR-24)."""
    message, own_key = fetching.message, fetching.own_key
    assert message is not None
    assert own_key is not None
    return open_fetch_grant(
        Holder(Role.CALLEE, fetching.own_key_id, own_key),
        fetching.run,
        response.grant_f,
        token_f=fetching.token,
        nonce=fetching.nonce,
        mailbox=message.mailbox,
        offer=message.offer,
        answer=message.answer,
        now=now,
    )  # OR-20 to OR-24


def leg_of(retrieving: Collecting, grant: FetchGrant, chosen: Description) -> Leg:
    """The message as media from ID-A to ID-B under K."""
    return Leg(
        session=retrieving.session,
        line=0,
        root=grant.key,
        suite=SrtpSuite(chosen.srtp_suites[0]),
        codec=chosen.codecs[0],
        local=retrieving.run.callee,
        remote=retrieving.run.caller,
        remote_address=_NOWHERE,
        media_line=MEDIA_LINE,
        n=retrieving.run.n,
        flow=Flow.RECVONLY,
        lifetime_s=grant.not_after - grant.now,
    )


def fail(collecting: Collecting, reason: str, now: int) -> Decision:
    """It comes no further: the message stays where it is. What had come of it is played."""
    open_still = collecting.state in {CollectingState.RETRIEVING, CollectingState.CLOSING}
    closed = Decision(media=(CloseStored(collecting.session),) if open_still else ())
    return closed + told(collecting, ReportEvent.FAILED, now, reason=reason) + finish(collecting, now)


def finish(collecting: Collecting, now: int) -> Decision:
    """Nothing more follows: K and the proof are destroyed, repeats of the wish are known for a while."""
    done = msgspec.structs.replace(
        collecting,
        state=CollectingState.DONE,
        key=None,
        proof=None,
        repeat_at=now + FORGET_S,
        give_up_at=now + FORGET_S,
    )
    return keep(done)


def enter(collecting: Collecting, state: CollectingState, now: int) -> Collecting:
    """In this state from now on, with all patience."""
    return msgspec.structs.replace(
        collecting, state=state, repeats=0, repeat_at=now + REPEAT_S, give_up_at=now + GIVE_UP_S
    )


def keep(collecting: Collecting) -> Decision:
    """Remember it, and look at it again when something is to be repeated or given up."""
    at = min(collecting.repeat_at, collecting.give_up_at)
    return Decision(
        puts=(Put(Collecting.key_for(collecting.session), collecting),),
        wakes=(Wake(f"collect {collecting.session}", "", at, CollectAlarm(collecting.session)),),
    )


def forget(collecting: Collecting) -> Decision:
    """Repeats of the wish have been known for long enough."""
    return Decision(
        puts=(Put(Collecting.key_for(collecting.session), None),),
        wakes=(Wake(f"collect {collecting.session}", "", None),),
    )


def ask_key(terms: Terms, fetching: Collecting) -> Decision:
    """FETCH, the same octets each time."""
    assert fetching.message is not None
    message = Fetch(
        caller_key=fetching.message.caller_key,
        callee_key=fetching.own_key_id,
        suite=fetching.run.suite,
        token_f=fetching.token,
        sender=_sender(terms, fetching),
        **clear(fetching.run),
    )
    return Decision(sends=(Send(KMS, call_key(fetching.run.caller, fetching.run.call), message),))


def ask_parts(terms: Terms, retrieving: Collecting) -> Decision:
    """RETRIEVE, from the part on that is awaited."""
    message = Retrieve(part=retrieving.part, sender=_sender(terms, retrieving), **clear(retrieving.run))
    return Decision(sends=(Send(CSCF, retrieving.run.callee, message),))


def ask_deletion(terms: Terms, deleting: Collecting) -> Decision:
    """COLLECTED, with the proof."""
    assert deleting.proof is not None
    message = Collected(proof=deleting.proof.reveal(), sender=_sender(terms, deleting), **clear(deleting.run))
    return Decision(sends=(Send(CSCF, deleting.run.callee, message),))


def told(
    collecting: Collecting,
    event: ReportEvent,
    now: int,
    *,
    check: Check | None = None,
    reason: str | None = None,
    whole: bool | None = None,
    packets: int | None = None,
) -> Decision:
    """Tell the world how it stands."""
    return report(
        collecting.device,
        event,
        now,
        request=collecting.request,
        left_at=collecting.left_at or None,  # before the key is fetched nobody knows
        until=collecting.until or None,
        check=check,
        reason=reason,
        whole=whole,
        packets=packets,
        **clear(collecting.run),
    )


def _sender(terms: Terms, collecting: Collecting) -> Contact:
    return Contact(terms.settings.host, collecting.device)
