"""The history of a branch: its first parents, which files they changed, and the last commit of each file.

Only first parents are followed, as `git log --first-parent` does: what a merge brought in is the merge's
change. So the history is one line, and a file's revisions have an order.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dulwich.diff_tree import tree_changes
from dulwich.object_store import BaseObjectStore
from dulwich.objects import Commit, ObjectID

MAX_COMMITS = 1_000_000
"""More commits than a branch may have: Linux has about a hundred thousand first parents."""


@dataclass(frozen=True)
class BranchCommit:
    """One commit of a branch: its id (hex), its tree, and when it was committed."""

    id: str
    tree: ObjectID
    committed_at: datetime


@dataclass(frozen=True)
class FileVersion:
    """A file as one commit left it: its mode and the id of its blob."""

    commit: BranchCommit
    mode: int
    blob: ObjectID


@dataclass
class FileCommits:
    """Which commits changed the files of a branch.

    Attributes:
        last: The commit that changed each file last, by path.
        between: The versions of each file that lie between the last reading and its newest, oldest first.
    """

    last: dict[bytes, BranchCommit] = field(default_factory=dict)
    between: dict[bytes, list[FileVersion]] = field(default_factory=dict)


class HistoryTooLong(Exception):
    """A branch has more commits than are followed."""


def first_parents(store: BaseObjectStore, head: ObjectID) -> list[BranchCommit]:
    """Returns the commits of a branch, newest first; a shallow clone ends where it was cut.

    Raises:
        HistoryTooLong: There are more than `MAX_COMMITS`.
    """
    found = list[BranchCommit]()
    following: ObjectID | None = head
    while following is not None and following in store:
        commit = store[following]
        if not isinstance(commit, Commit):
            break
        # A commit can claim any time: one before 1970 or after 9999 is none that Python has.
        seconds = min(max(commit.commit_time, 0), 253_402_300_799)
        found.append(BranchCommit(following.decode(), commit.tree, datetime.fromtimestamp(seconds, UTC)))
        if len(found) > MAX_COMMITS:
            raise HistoryTooLong(f"the branch has more than {MAX_COMMITS:,} commits")
        following = commit.parents[0] if commit.parents else None
    return found


def file_commits(
    store: BaseObjectStore, history: list[BranchCommit], paths: Set[bytes], known: Mapping[bytes, str]
) -> FileCommits:
    """Finds the commit that changed each file last, and what came between the last reading and it.

    Args:
        store: The objects of the repository.
        history: The commits of the branch, newest first.
        paths: The files that the branch has now.
        known: The commit of each file that was read before. A file whose commit the branch no longer has, as
            after its history was written anew, is looked for in all of it.
    """
    places = {commit.id: place for place, commit in enumerate(history)}
    standing = {path: places[commit] for path, commit in known.items() if commit in places and path in paths}
    # All that was read before was read at this commit or a later one that changed nothing of it.
    seen = min((places[commit] for commit in known.values() if commit in places), default=None)
    found = FileCommits({path: history[place] for path, place in standing.items()})
    unknown = set(paths - standing.keys())
    later = dict[bytes, list[FileVersion]]()
    for place, commit in enumerate(history):
        is_new = seen is not None and place < seen
        if not is_new and not unknown:
            break
        before = history[place + 1].tree if place + 1 < len(history) else None
        for change in tree_changes(store, before, commit.tree):
            entry = change.new
            if entry is None or entry.path is None or entry.path not in paths:
                continue
            if is_new and entry.mode is not None and entry.sha is not None:
                later.setdefault(entry.path, []).append(FileVersion(commit, entry.mode, entry.sha))
            if (is_new and len(later[entry.path]) == 1) or (not is_new and entry.path in unknown):
                found.last[entry.path] = commit
                unknown.discard(entry.path)
    # A history that was cut does not say who changed the rest: whoever made its oldest commit, at the latest.
    found.last |= dict.fromkeys(unknown, history[-1])
    found.between = {path: list(reversed(versions[1:])) for path, versions in later.items() if versions[1:]}
    return found
