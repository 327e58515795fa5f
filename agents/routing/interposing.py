"""The transcoder, where the two ends of a call share no codec (section 7).

    A -> CSCF -> B         ACK         offer and answer of this run have passed, and share none
         CSCF -> T         INTERPOSE   for each run that is acknowledged
    T -> CSCF -> A, B      NOTICE      NO-LEGS goes to both
    KMS -> CSCF -> A, B    NOTICE      later ones; of those that end the leg keys T hears as well
    B -> CSCF -> A         BYE-OK      or from A to B: the call is over
         CSCF -> T         LEGS-OVER

A BYE proves to its receiver alone that the call is over; that the receiver took it shows by its BYE-OK.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from agents.decision import NOTHING, Decision, Send
from agents.routing.forking import notify
from agents.routing.ways import branch_named, branch_of, keep, to_branch, to_caller
from protocol.description import BodyMalformed, read_description, share_no_codec
from protocol.names import NoticeKind
from protocol.sharding import call_key
from storage.cscf_records import Answered, Route, Said
from topics.catalogue import TRANSCODER
from topics.messages import (
    Ack,
    ByeOk,
    Contact,
    Interpose,
    Invite,
    LegsOver,
    NoLegs,
    Notice,
    OfRun,
    Ok,
    named,
)

_RUNS_KEPT = 2  # of a call: the one that runs, and its renewal


def note(route: Route, message: object) -> Route:
    """The route with what this message says of media: offer and address of an INVITE, answer and address of a
    200 OK. It is the same route where there is nothing new."""
    match message:
        case Invite() if message.sender == Contact(*route.contact):
            if any(said.n == message.run for said in route.said):
                return route
            said = Said(n=message.run, offer=message.offer, media_a=message.media)
            latest = sorted((*route.said, said), key=lambda each: each.n)[-_RUNS_KEPT:]
            return msgspec.structs.replace(route, said=tuple(latest))
        case Ok():
            branch = branch_of(route, message.sender)
            known = next((said for said in route.said if said.n == message.run), None)
            if branch is None or known is None or branch_named(route, message.fork) not in {None, branch}:
                return route
            answer = Answered(fork=message.fork, answer=message.answer, media_b=message.media)
            if answer in known.answers:
                return route
            others = (each for each in known.answers if each.fork != message.fork)
            heard = msgspec.structs.replace(known, answers=(*others, answer))
            return msgspec.structs.replace(
                route, said=tuple(heard if each.n == heard.n else each for each in route.said)
            )
        case _:
            return route


def follow(before: Route, noted: Route, message: object, decided: Decision, now: int) -> Decision:
    """What call control has decided about a message, and what T hears of it. noted: as `note` made it of
    `before`, and as what was decided has it."""
    after = next((put.record for put in decided.puts if isinstance(put.record, Route)), noted)
    passed = any(type(send.message) is type(message) for send in decided.sends)
    told = NOTHING
    match message:
        case Ack() if passed and message.fork == after.winner:
            interpose = _interpose(after, message)
            if interpose is not None:
                after = msgspec.structs.replace(after, legs=(message.run, message.fork))
                told = _to_transcoder(interpose)
        case ByeOk() if passed and after.legs is not None and message.fork == after.legs[1]:
            run, fork = after.legs
            told = _to_transcoder(LegsOver(fork=fork, **{**named(message), "run": run}))
            after = msgspec.structs.replace(after, said=())  # a late ACK brings no transcoder
        case _:
            pass
    if after == before:
        return decided + told
    others = tuple(put for put in decided.puts if not isinstance(put.record, Route))
    return replace(decided, puts=others) + keep(after, now) + told


def forward(route: Route, message: Notice | NoLegs) -> Decision:
    """A notice for one end, or a hint for both. T hears of a notice that ends its leg keys."""
    if isinstance(message, NoLegs):
        branch = branch_named(route, message.fork)
        return to_caller(route, message) + (NOTHING if branch is None else to_branch(branch, message))
    told = NOTHING
    if message.kind is not NoticeKind.LEG and route.legs is not None and message.fork == route.legs[1]:
        told = _to_transcoder(LegsOver(fork=message.fork, **named(message)))
    return told + notify(route, message)


def _interpose(route: Route, ack: Ack) -> Interpose | None:
    """What T is told of this run; None where it needs no transcoder."""
    said = next((each for each in route.said if each.n == ack.run), None)
    answered = next((each for each in said.answers if each.fork == ack.fork), None) if said else None
    if said is None or answered is None:
        return None
    try:
        needed = share_no_codec(read_description(said.offer), read_description(answered.answer))
    except BodyMalformed:
        return None
    if not needed:
        return None
    return Interpose(
        fork=ack.fork,
        offer=said.offer,
        answer=answered.answer,
        media_a=said.media_a,
        media_b=answered.media_b,
        **named(ack),
    )


def _to_transcoder(message: OfRun) -> Decision:
    key = call_key(message.caller, message.call)
    return Decision(sends=(Send(TRANSCODER, key, message),))
