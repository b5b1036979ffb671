"""What a source says beside its location where it is a Git repository, an SQL query or a website."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from common.redaction import has_credentials, redact_urls

LOGIN_ADVICE = (
    "a URL with a user or a password in it is refused, for it would be stored with every document: give it "
    "without them, the user as --user NAME, and the password in an environment variable that is named as "
    "--password-env VARIABLE"
)
"""What to do instead of writing credentials into the URL of a repository or a database."""

_SECRET_NAME = re.compile("pass|pwd|secret|token|key|user", re.IGNORECASE)


class MissingPassword(ValueError):
    """The environment variable that a source's password is in is not set."""


class ConnectorOptions(BaseModel):
    """What the options of every such source have in common: nothing else is taken, and nothing changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Login(ConnectorOptions):
    """Who reads a source. The password itself is nowhere in the lake: only the name of its variable."""

    user: str | None = None
    """The user's name."""
    password_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The name of the environment variable that holds the password, or a token that stands for one."""

    def password(self) -> str | None:
        """Returns the password; None where the source has none.

        Raises:
            MissingPassword: The variable is not set, or empty.
        """
        if self.password_env is None:
            return None
        if not (password := os.environ.get(self.password_env)):
            raise MissingPassword(
                f"the environment variable {self.password_env}, which is to hold its password, is not set "
                "for this process"
            )
        return password


class GitOptions(Login):
    """A Git repository: the location is its folder on this machine, or an http or https URL."""

    branch: str | None = Field(default=None, min_length=1, pattern=r"^[^\x00-\x20\x7f~^:?*\[\\]+$")
    """The branch that is read; the one that the repository calls its HEAD unless given."""


class SqlOptions(Login):
    """A query of a database: the location is a URL as SQLAlchemy writes it, and each row is a document."""

    query: str = Field(min_length=1)
    """One SELECT statement."""
    id_column: str
    """The column that identifies a row; no two rows may share a value."""
    text_columns: tuple[str, ...] = Field(min_length=1)
    """The columns that hold the text; of several, an empty line lies between each and the next."""
    title_column: str | None = None
    """The column that holds the title."""
    url_column: str | None = None
    """The column that holds the address under which people know the row; it becomes the document's URI."""
    cursor_column: str | None = None
    """A column whose value changes whenever the row does, such as the time of its last change. Only rows with
    another value than the last time are read. Without it every run reads all rows."""
    statement_timeout_s: float = Field(default=600, gt=0)
    """The longest that one statement may run; a run reads nothing of the source when it is over."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read of a row: its id, then its texts, then the others that are named."""
        others = (self.title_column, self.url_column, self.cursor_column)
        return tuple(dict.fromkeys((self.id_column, *self.text_columns, *(each for each in others if each))))


def sql_location(location: str) -> str:
    """Returns the URL of a database as SQLAlchemy writes it; the file of SQLite becomes an absolute path.

    Raises:
        ValueError: It is no such URL, names a user or a password, or is a database in memory.
    """
    try:
        url = make_url(location)
    except ArgumentError as error:
        example = "postgresql://host/database or sqlite:///path/to/file.db"
        raise ValueError(f"it is no URL of a database: {example}") from error
    if url.username or url.password or any(_SECRET_NAME.search(name) for name in url.query):
        raise ValueError(LOGIN_ADVICE)
    if url.get_backend_name() != "sqlite":
        return url.render_as_string()
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError("a database of SQLite is a file: sqlite:///path/to/file.db")
    path = os.path.abspath(Path(url.database).expanduser())  # noqa: PTH100 - links stay as they were given
    return f"sqlite:///{path}"


class SitemapOptions(ConnectorOptions):
    """A website: the location is its sitemap, or its address, whose robots.txt then names the sitemap."""

    max_pages: int = Field(default=10_000, ge=1, le=1_000_000)
    """The most pages that are taken of it."""
    pages_per_second: float = Field(default=2, gt=0, le=100)
    """The most pages that are asked for per second; the site's own Crawl-delay can make it fewer."""
    private_addresses: bool = False
    """Whether the site may be at a private address, as in an intranet. One that is named by the address
    itself, or as localhost, may be so in any case."""


def sitemap_location(location: str) -> str:
    """Returns the URL of a sitemap or a website.

    Raises:
        ValueError: It is no http or https URL, or names a user.
    """
    parts = urlsplit(location)
    if parts.username or parts.password or has_credentials(location):
        raise ValueError("a website is read as anybody: give its URL without a user and a password")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{location} is no http or https URL of a website or a sitemap")
    return location


def git_location(location: str) -> str:
    """Returns the location of a repository: an absolute path, or a URL without a slash at its end.

    Raises:
        ValueError: It is reached in another way than a folder or http and https, or names a user.
    """
    if re.match(r"^https?://", location):
        if has_credentials(location):
            raise ValueError(LOGIN_ADVICE)
        parts = urlsplit(location)
        if not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{location} is no address of a repository: https://host/path.git")
        return location.rstrip("/")
    # Transports that run a program (ext::, ssh) or read files by URL are not spoken at all.
    if re.match(r"^[^/]*:", location):
        raise ValueError(
            f"{redact_urls(location)} is neither a folder nor an http or https URL, and no other transport "
            "of Git is spoken: clone it yourself, and add the folder of the clone"
        )
    return os.path.abspath(Path(location).expanduser())  # noqa: PTH100 - links stay as they were given
