"""Finds the release that `--as-of` names: by its name, or by a time at which it was live."""

from collections.abc import Sequence
from datetime import datetime

from retrieval.index.types import IndexRelease, LiveHistoryEntry, UnknownIndexRelease


class InvalidAsOf(ValueError):
    """A value of `--as-of` is neither a release nor a time, or lies in the future."""


def release_as_of(
    moment: str, releases: Sequence[IndexRelease], history: Sequence[LiveHistoryEntry], now: datetime
) -> IndexRelease:
    """Returns the release with a name, or the release that was live at a time.

    Args:
        moment: A release's name, or a time in ISO 8601; a time without an offset is local time.
        releases: The releases that can still be read.
        history: When each release went live, oldest first.
        now: The present time, with its time zone.

    Raises:
        InvalidAsOf: `moment` is neither a release nor a time, or lies in the future.
        UnknownIndexRelease: No release was live then, or it is no longer kept; the message lists those that
            are.
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
