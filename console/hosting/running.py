"""`otway run`: one agent on real servers, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import structlog
import typer
from typer import Option

from console import logs
from console.hosting.network_function import M, NetworkFunction, read_function, run_function
from console.hosting.roles import run_network
from console.hosting.voicemail import VOICEMAIL
from console.outside import clock, random
from console.settings import Settings, read_settings
from protocol.profile import Profile

T = TypeVar("T")

run_app = typer.Typer(
    help="One agent on Kafka and Redis, until SIGTERM: it finishes its batch, commits and leaves. "
    "Any number of processes may run the same network role; a UE host runs once. Settings: `otway doctor`.",
    no_args_is_help=True,
)
Lab = Annotated[bool, Option("--lab", help="Admit the literal profile, which protects nothing.")]
_ROLES: Final = {
    "kms": "The key management server, and the custodian of its keys.",
    "bsf": "The bootstrapping server, with the subscribers' data.",
    "cscf": "Call control: registration and routing.",
}


def settings_to_run(*, lab: bool) -> tuple[Settings, Profile]:
    """The environment, and the profile if it may run; sets up logging. Raises SettingsBroken, LabOnly."""
    settings = read_settings(os.environ)
    profile = settings.admitted(lab=lab)
    logs.configure(settings.log, profile)
    if profile.lab_only:
        structlog.get_logger().warning("literal profile", means="it shows attacks and protects nothing")
    return settings, profile


def served(serving: Coroutine[Any, Any, T]) -> T:
    """Run an agent, on uvloop where it is installed (`pip install otway[speed]`)."""
    factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serving)


def _add(role: str, what: str) -> None:
    @run_app.command(role, help=what)
    def command(*, lab: Lab = False) -> None:
        settings, profile = settings_to_run(lab=lab)
        served(run_network(role, settings, profile, clock=clock, random=random))


def add_function(function: NetworkFunction[M], what: str) -> None:
    """Register `otway run` of a network function that has media."""

    @run_app.command(function.party, help=what)
    def command(
        *,
        users: Annotated[Path, Option(help="A users file with this one and its key.")] = Path("users.toml"),
        lab: Lab = False,
    ) -> None:
        settings, _ = settings_to_run(lab=lab)
        device = read_function(users, function.owner)
        served(run_function(function, device, settings, clock=clock, random=random))


for each, described in _ROLES.items():
    _add(each, described)
add_function(VOICEMAIL, "The mailbox, which keeps messages that it cannot read.")
