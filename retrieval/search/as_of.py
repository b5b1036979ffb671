"""Which release a moment means: its name, or a time at which it was live."""

from collections.abc import Sequence
from datetime import datetime

from retrieval.index.types import IndexRelease, LiveHistoryEntry, UnknownRelease


class InvalidAsOf(ValueError):
    """What was given names no moment: it is neither a release nor a time, or a time to come."""


def release_as_of(
    moment: str, releases: Sequence[IndexRelease], history: Sequence[LiveHistoryEntry], now: datetime
) -> IndexRelease:
    """The release that a moment means.

    Args:
        moment: A release's name, or a time in ISO 8601; without an offset it is local time.
        releases: Those that can still be read.
        history: What was live since when, oldest first.
        now: The present, with its time zone.

    Raises:
        InvalidAsOf: It is neither, or lies in the future.
        UnknownRelease: Nothing was live then, or what was is no longer kept; says what is.
    """
    kept = {release.release_id: release for release in releases}
    moment = moment.strip()
    if moment in kept:
        return kept[moment]
    if any(moment == each.release_id for each in history):
        raise UnknownRelease(f"release {moment} is no longer kept: {_window(kept, history)}")
    try:
        time = datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError) as error:
        raise InvalidAsOf(
            f"{moment!r} is neither a release nor a time: give a name from `headwater releases`, or a time "
            f"such as 2026-03-01T12:00+00:00; {_window(kept, history)}"
        ) from error
    if time > now:
        raise InvalidAsOf(f"{moment} lies in the future: it is {now.isoformat(timespec='seconds')}")
    live = [each.release_id for each in history if each.live_since <= time]
    if not live:
        raise UnknownRelease(f"nothing was released at {moment}: {_window(kept, history)}")
    if live[-1] not in kept:
        raise UnknownRelease(
            f"release {live[-1]}, which was live at {moment}, is no longer kept: {_window(kept, history)}"
        )
    return kept[live[-1]]


def _window(kept: dict[str, IndexRelease], history: Sequence[LiveHistoryEntry]) -> str:
    """What can be read: the kept releases, and since when one of them has been live."""
    since = [each for each in history if each.release_id in kept]
    if not since:
        return "nothing is released yet"
    first = since[0]
    return (
        f"what can be read begins with {first.release_id}, live since "
        f"{first.live_since.isoformat(timespec='seconds')} (releases {', '.join(sorted(kept))}; "
        "HEADWATER_RELEASES_KEPT says how many are kept)"
    )
