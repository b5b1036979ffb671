"""Real Git repositories for tests, written object by object: also such as `git` refuses to make."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dulwich.index import commit_tree
from dulwich.objects import Blob, Commit, ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

FILE, LINK, SUBMODULE = 0o100644, 0o120000, 0o160000
FIRST_TIME = 1_700_000_000


@dataclass(frozen=True)
class Special:
    """A file of another mode than a plain one's: the target of a link, or the commit of a submodule."""

    mode: int
    content: bytes


class GitRepository:
    """A bare repository with one branch.

    Attributes:
        path: Its folder.
        head: The newest commit (hex).
    """

    def __init__(self, path: Path, branch: str = "main") -> None:
        self.path = path
        self.head: str | None = None
        self._repo = Repo.init_bare(str(path), mkdir=True)
        self._ref = Ref(b"refs/heads/" + branch.encode())
        self._repo.refs.set_symbolic_ref(Ref(b"HEAD"), self._ref)
        self._commits = 0

    def commit(
        self, files: Mapping[str | bytes, bytes | Special], parents: tuple[str, ...] | None = None
    ) -> str:
        """Commits a whole tree, an hour after the last commit, and returns the commit's id (hex)."""
        entries = []
        for path, content in files.items():
            name = path.encode() if isinstance(path, str) else path
            mode = content.mode if isinstance(content, Special) else FILE
            body = content.content if isinstance(content, Special) else content
            if mode == SUBMODULE:
                sha = ObjectID(body)
            else:
                blob = Blob.from_string(body)
                self._repo.object_store.add_object(blob)
                sha = blob.id
            entries.append((name, sha, mode))
        made = Commit()
        made.tree = commit_tree(self._repo.object_store, entries)
        made.author = made.committer = b"A <a@example.org>"
        made.author_time = made.commit_time = FIRST_TIME + 3600 * self._commits
        made.author_timezone = made.commit_timezone = 0
        made.message = b"change"
        before = (self.head,) if self.head else ()
        made.parents = [ObjectID(parent.encode()) for parent in (before if parents is None else parents)]
        self._repo.object_store.add_object(made)
        self._repo.refs[self._ref] = made.id
        self._commits += 1
        self.head = made.id.decode()
        return self.head
