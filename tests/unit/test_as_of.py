"""Which release a name or a time means."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from index_rows import NO_DETAILS

from retrieval.index.types import IndexRelease, LiveHistoryEntry, UnknownIndexRelease
from retrieval.search.as_of import InvalidAsOf, release_as_of

DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = FIRST + 30 * DAY
# r1.4 was rolled back to r1.3 on the tenth day; r1.1 and r1.2 are no longer kept.
HISTORY = [
    LiveHistoryEntry(FIRST, "r1.1"),
    LiveHistoryEntry(FIRST + 2 * DAY, "r1.2"),
    LiveHistoryEntry(FIRST + 4 * DAY, "r1.3"),
    LiveHistoryEntry(FIRST + 8 * DAY, "r1.4"),
    LiveHistoryEntry(FIRST + 10 * DAY, "r1.3"),
    LiveHistoryEntry(FIRST + 20 * DAY, "r2.1"),
]
KEPT = [
    IndexRelease("r2.1", 2, 1, FIRST + 20 * DAY, NO_DETAILS),
    IndexRelease("r1.4", 1, 4, FIRST + 8 * DAY, NO_DETAILS),
    IndexRelease("r1.3", 1, 3, FIRST + 4 * DAY, NO_DETAILS),
]


def meant(moment: str) -> str:
    return release_as_of(moment, KEPT, HISTORY, NOW).release_id


@pytest.mark.parametrize(
    ("moment", "release"),
    [
        ("r1.3", "r1.3"),
        (" r2.1 ", "r2.1"),
        ((FIRST + 4 * DAY).isoformat(), "r1.3"),
        ((FIRST + 5 * DAY).isoformat(), "r1.3"),
        ((FIRST + 9 * DAY).isoformat(), "r1.4"),
        ((FIRST + 11 * DAY).isoformat(), "r1.3"),  # by then it was live again
        ((FIRST + 20 * DAY - timedelta(seconds=1)).isoformat(), "r1.3"),
        (NOW.isoformat(), "r2.1"),
        ((FIRST + 9 * DAY).astimezone(timezone(timedelta(hours=9))).isoformat(), "r1.4"),
        ("2026-03-10T13:00:00Z", "r1.4"),
        ("2026-03-14", "r1.3"),
    ],
)
def test_a_moment_means_what_was_live_then(moment: str, release: str) -> None:
    assert meant(moment) == release


@pytest.mark.parametrize(
    ("moment", "error", "said"),
    [
        ((FIRST - DAY).isoformat(), UnknownIndexRelease, "nothing was released at"),
        (
            (FIRST + DAY).isoformat(),
            UnknownIndexRelease,
            "release r1.1, which was live at .* is no longer kept",
        ),
        ("r1.2", UnknownIndexRelease, "release r1.2 is no longer kept"),
        ((NOW + DAY).isoformat(), InvalidAsOf, "lies in the future"),
        ("r9.9", InvalidAsOf, "neither a release nor a time"),
        ("yesterday", InvalidAsOf, "headwater releases"),
        ("", InvalidAsOf, "neither"),
        ("2026-13-45", InvalidAsOf, "neither"),
        ("r1.3'; DROP TABLE headwater.live; --", InvalidAsOf, "neither"),
    ],
)
def test_a_moment_that_can_not_be_read_is_told_with_what_can(
    moment: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        meant(moment)
    if "future" not in said:
        assert "begins with r1.3, live since 2026-03-05T12:00:00+00:00" in str(raised.value)
        assert "r1.3, r1.4, r2.1" in str(raised.value)


def test_before_anything_was_released_that_is_said() -> None:
    with pytest.raises(UnknownIndexRelease, match="nothing is released yet"):
        release_as_of("2026-03-01", [], [], NOW)
