"""The two profiles behind one interface, and the door that keeps the literal one in the lab."""

from __future__ import annotations

from protocol.exchange import Hardened
from protocol.literal import Literal

Profile = Hardened | Literal

HARDENED = Hardened()
LITERAL = Literal()
PROFILES: dict[str, Profile] = {profile.name: profile for profile in (HARDENED, LITERAL)}


class LabOnly(Exception):  # noqa: N818
    """The literal profile was asked for outside the lab."""

    def __init__(self) -> None:
        super().__init__("the literal profile shows attacks and protects nothing: it runs with --lab only")


def admit(profile: Profile, *, lab: bool) -> Profile:
    """The profile, where it may run. Raises LabOnly."""
    if profile.lab_only and not lab:
        raise LabOnly
    return profile
