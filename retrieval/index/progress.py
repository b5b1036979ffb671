"""How far the building of an index has come, while the connection that builds it waits for its end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection

from retrieval.index.build import Progress
from retrieval.store.postgres import DatabaseRow, Postgres

_EVERY_S = 5.0


@contextmanager
def watched(
    postgres: Postgres,
    building: Connection[DatabaseRow],
    stage: str,
    on_progress: Progress,
    every_s: float = _EVERY_S,
) -> Iterator[None]:
    """Says every few seconds how many rows are in the index that `building` is making.

    Args:
        postgres: The serving database; a second connection looks.
        building: The connection that will be busy.
        stage: What `on_progress` is told.
        on_progress: Called from another thread, until this ends.
        every_s: How often to look.
    """
    pid, ended = building.info.backend_pid, threading.Event()

    def look() -> None:
        try:
            with postgres.maintenance() as connection:
                # The owner does not see what another session does, but who logged in as the same one does.
                connection.execute("SET ROLE NONE")
                while not ended.wait(every_s):
                    row = connection.execute(
                        "SELECT tuples_done FROM pg_stat_progress_create_index WHERE pid = %s", (pid,)
                    ).fetchone()
                    if row and row[0]:
                        on_progress(stage, row[0])
        except psycopg.Error:
            return  # to be told is not needed: what is wrong with the database, the builder finds too

    watcher = threading.Thread(target=look, name=f"watch {stage}")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
