"""`otway status`: what it makes of what agents have told."""

from __future__ import annotations

from typing import Any

import pytest

from console.operating.status import SILENT_S, ranges, standing_of
from tests.agents.scene import NOW
from topics.messages import Status


def told(role: str, **changes: Any) -> Status:
    fields: dict[str, Any] = {
        "role": role,
        "instance": f"{role}-1",
        "at": NOW,
        "started": NOW - 60,
        "partitions": tuple(range(12)),
    }
    return Status(**{**fields, **changes})


ALL = [told("kms"), told("custodian"), told("bsf"), told("cscf")]


def missing(messages: list[Status]) -> dict[str, tuple[int, ...]]:
    """By role, what no agent that is ready holds; all that are held are counted."""
    standing = standing_of(messages, NOW)
    assert standing.good is not any(share.missing for share in standing.roles)
    assert all(share.held + len(share.missing) == share.partitions == 12 for share in standing.roles)
    return {share.role: share.missing for share in standing.roles if share.missing}


def test_all_is_well_when_each_role_holds_everything() -> None:
    assert missing(ALL) == {}
    assert missing([*ALL, told("ue", instance="bob", partitions=(0,), waiting_for="bus: away")]) == {}
    assert missing(ALL[1:]) == {"kms": tuple(range(12))}


def test_two_instances_share_and_a_spare_holds_nothing() -> None:
    first = told("kms", partitions=tuple(range(7)))
    second = told("kms", instance="kms-2", partitions=tuple(range(7, 12)))
    spare = told("kms", instance="kms-3", partitions=())
    assert missing([first, second, spare, *ALL[1:]]) == {}
    assert missing([first, spare, *ALL[1:]]) == {"kms": (7, 8, 9, 10, 11)}


@pytest.mark.parametrize("role", ["voicemail", "transcoder", "conference"])
def test_a_network_function_counts_where_there_is_one(role: str) -> None:
    assert missing([*ALL, told(role)]) == {}
    assert missing([*ALL, told(role, partitions=tuple(range(5)))]) == {role: (5, 6, 7, 8, 9, 10, 11)}


def test_what_waits_or_is_silent_holds_nothing_that_counts() -> None:
    assert missing([*ALL, told("kms", waiting_for="store: no answer")]) == {"kms": tuple(range(12))}
    assert missing([told("kms", at=NOW - SILENT_S), *ALL[1:]]) == {}
    assert missing([told("kms", at=NOW - SILENT_S - 1), *ALL[1:]]) == {"kms": tuple(range(12))}
    standing = standing_of(
        [told("kms", at=NOW - 9, waiting_for="x"), told("cscf", waiting_for="y\x1b[2J")], NOW
    )
    assert [row.health for row in standing.agents] == ["waiting for y?[2J", "silent for 9 s"]


def test_the_last_word_of_an_instance_counts() -> None:
    assert missing([told("kms", waiting_for="bus: away"), *ALL]) == {}
    assert len(standing_of([*ALL, *ALL], NOW).agents) == 4


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [((), ""), ((3,), "3"), ((0, 1, 2, 3), "0-3"), ((7, 5, 0, 1), "0-1, 5, 7"), ((10, 11), "10-11")],
)
def test_ranges(numbers: tuple[int, ...], shown: str) -> None:
    assert ranges(numbers) == shown
