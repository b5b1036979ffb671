"""The release that `--as-of` means: one named, or the one that was live at a time."""

from collections.abc import Sequence
from datetime import datetime

from retrieval.index.types import IndexRelease, LiveHistoryEntry, UnknownIndexRelease


class InvalidAsOf(ValueError):
    """A value of `--as-of` is neither a release nor a time, or lies in the future."""


def release_as_of(
    moment: str, releases: Sequence[IndexRelease], history: Sequence[LiveHistoryEntry], now: datetime
) -> IndexRelease:
    """Returns the release that a name or a time means.

    Args:
        moment: A release's name, or a time in ISO 8601; a time without an offset is local time.
        releases: The releases that can still be read.
        history: What was live since when, oldest first.
        now: The present time, with its time zone.

    Raises:
        InvalidAsOf: It is neither, or lies in the future.
        UnknownIndexRelease: Nothing was live then, or what was live is no longer kept; says what is.
    """
    kept = {release.release_id: release for release in releases}
    moment = moment.strip()
    if moment in kept:
        return kept[moment]
    if any(moment == each.release_id for each in history):
        raise UnknownIndexRelease(f"release {moment} is no longer kept: {_window(kept, history)}")
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
        raise UnknownIndexRelease(f"nothing was released at {moment}: {_window(kept, history)}")
    if live[-1] not in kept:
        raise UnknownIndexRelease(
            f"release {live[-1]}, which was live at {moment}, is no longer kept: {_window(kept, history)}"
        )
    return kept[live[-1]]


def _window(kept: dict[str, IndexRelease], history: Sequence[LiveHistoryEntry]) -> str:
    """Returns a text that says which releases are kept, and since when one of them has been live."""
    since = [each for each in history if each.release_id in kept]
    if not since:
        return "nothing is released yet"
    first = since[0]
    return (
        f"what can be read begins with {first.release_id}, live since "
        f"{first.live_since.isoformat(timespec='seconds')} (releases {', '.join(sorted(kept))}; "
        "HEADWATER_RELEASES_KEPT says how many are kept)"
    )
