"""`otway sim`: many runs of the simulator, and what to type to see one of them again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from chaos.invariants import violations
from chaos.simulator import World
from console.calls.ladder import name_of
from topics.messages import Audit, Message, Report

_console = Console(stderr=True)


def simulate(seeds: Sequence[int], *, story: bool) -> dict[int, list[str]]:
    """Run these seeds. story: print what happened in each. Returns the violations of those that failed."""
    failed: dict[int, list[str]] = {}
    progress = Progress(
        TextColumn("{task.completed:.0f}/{task.total:.0f} seeds"), TimeRemainingColumn(), console=_console
    )
    with progress:
        for seed in progress.track(seeds):
            world = World(seed).run()
            if story:
                _tell(world)
            found = violations(world)
            if found:
                failed[seed] = found
                _console.print(f"seed {seed} fails; again: otway sim --seed {seed}", highlight=False)
                for violation in found:
                    _console.print(f"  {violation}", highlight=False)
    _console.print(f"{len(seeds)} seeds, {len(failed)} failed", highlight=False)
    return failed


def _tell(world: World) -> None:
    """Every record that arrived, with when and where."""
    sys.stdout.write(f"seed {world.seed}: {world.faults}\n")
    for when, record, message in world.messages():
        sys.stdout.write(f"{when:9.3f} s  {record.topic:18}{_line(message)}\n")
    for member in world.members:
        for when in member.crashed_at:
            sys.stdout.write(f"{when:9.3f} s  {member.name} crashed\n")


def _line(message: Message) -> str:
    call = getattr(message, "call", None)
    about = f" {call.hex()[:4]}" if call else ""
    match message:
        case Report():
            return f"report {message.event}{about} {message.device} {message.check or ''}"
        case Audit():
            return f"audit {message.event}{about} {message.check or ''}"
        case _:
            return name_of(message) + about
