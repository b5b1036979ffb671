"""Tries a source before it is added: a mistake is told to whoever made it, and not to the next run."""

import queue
import threading
from functools import partial

from assets.sources.connectors.git_repository import check_git_repository
from assets.sources.connectors.sitemap import check_sitemap
from assets.sources.connectors.sql_query import check_sql_query
from assets.sources.source_config import Source, SourceError, SourceUnreachable

CHECK_TIMEOUT_S = 30.0
"""The longest that a source is tried."""


def check_connected_source(source: Source, timeout_s: float = CHECK_TIMEOUT_S) -> None:
    """Tries a source that a connector reads: whether it can be reached and is what its options say.

    Of a repository the branch is looked for, of a query the columns, of a website robots.txt and a sitemap.
    No document is read, and nothing is written.

    Raises:
        SourceError: It can not be read. The message says what is wrong, where, and what to do.
    """
    if source.git is not None:
        check_git_repository(source, timeout_s)
        return
    check = partial(check_sql_query, source, timeout_s) if source.sql else partial(check_sitemap, source)
    outcome = queue.SimpleQueue[SourceError | None]()

    def run() -> None:
        try:
            check()
        except SourceError as error:
            outcome.put(error)
        except Exception as error:  # whose words may hold the password
            outcome.put(
                SourceUnreachable(f"source {source.name}: its driver failed ({type(error).__name__})")
            )
        else:
            outcome.put(None)

    # A driver or a name server may wait for ever, and not every one can be told not to.
    threading.Thread(target=run, daemon=True).start()
    try:
        fault = outcome.get(timeout=timeout_s)
    except queue.Empty:
        raise SourceUnreachable(
            f"source {source.name}: {source.location} had not answered after {timeout_s:g} s: check the "
            "address, and that this machine may connect to it"
        ) from None
    if fault is not None:
        raise fault
