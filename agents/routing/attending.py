"""A conference's members and its focus: what a device that is registered for its identity wants of the focus.

    i -> CSCF -> C   JOIN, IN-USE, LEAVE       what the focus answers goes to the device's host, not by here

A focus believes what comes this way about the device: that it is one of its identity's, and where it is. A
LEAVE is forwarded for anybody: it is sealed, and whose registration has ended shall not be in for ever.
"""

from __future__ import annotations

from agents.decision import NOTHING, Decision, Send, to_device
from protocol.checks import RefusalCode
from storage.cscf_records import Registration
from topics.catalogue import CONFERENCE
from topics.messages import InUse, Join, JoinRefused, Leave, named_group


def ask_focus(
    message: Join | InUse | Leave, registration: Registration | None, focus: str, now: int
) -> Decision:
    """To the focus of this network. Who may not ask for it hears so, if it wants to join."""
    live = registration.live(now) if registration else ()
    devices = {(each.host, each.device) for each in live}
    if not focus or message.focus != focus:
        return _no(message, RefusalCode.NOT_FOUND)
    sender = (message.sender.host, message.sender.device)
    if not isinstance(message, Leave) and sender not in devices:
        return _no(message, RefusalCode.DENIED)
    return Decision(sends=(Send(CONFERENCE, message.group.hex(), message),))


def _no(message: Join | InUse | Leave, code: RefusalCode) -> Decision:
    """A hint, as all call control is. What is repeated until it is answered needs none."""
    if not isinstance(message, Join):
        return NOTHING
    refused = JoinRefused(
        call=message.call, member=message.member, code=code, to=message.sender.device, **named_group(message)
    )
    return Decision(sends=(to_device(message.sender, refused),))
