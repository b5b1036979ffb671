"""Headwater from Python: a lake that is searched, asked, queried, traced and fed, as the command line does.

>>> from orchestration.api import open_lake
>>> with open_lake() as lake:  # after `lake.ingest("handbook")`, once
...     answer = lake.ask("How long is the warranty?")
>>> print(answer.answer)
The warranty lasts for twenty-four months from the day of purchase. [1]

Nothing is printed: progress goes to the loggers `orchestration.api` and `common.progress` at level INFO,
warnings to those of their modules. Errors are those of the command line; each says what helps.
"""

import logging
import reprlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from common.model_memory import MODEL_MEMORY
from common.redaction import redact_urls
from inference.answering.answer import Answer
from inference.answering.retrieval_settings import SearchMode
from orchestration.operations.ask import ask_release, open_ask_service, search_release
from orchestration.settings import Settings
from orchestration.state_folder import make_state_folder, require_state_folder
from orchestration.tracing.nodes import Trace
from retrieval.search.searcher import RETRIEVAL_MODES, SearchHit

if TYPE_CHECKING:
    import pyarrow as pa

    from assets.answers.ratings import AnswerRating
    from orchestration.operations.ingest import RunSummary

logger = logging.getLogger(__name__)


class InvalidArgument(ValueError):
    """An argument is not what the method takes; the message says what it takes."""


def open_lake(home: str | PathLike[str] | None = None) -> "OpenLake":
    """Returns the lake of a state folder, ready to be asked.

    Nothing is started or written before a method is called. All settings but the folder come from the
    environment (`headwater settings` lists them).

    Example:
        >>> lake = open_lake()
        >>> len(lake.search("warranty", k=1))
        1
        >>> lake.close()

    Args:
        home: The state folder; if None the one that the command line uses: `HEADWATER_HOME`, else the nearest
            `.headwater` upwards, else the one in the user's data folder.

    Raises:
        ValidationError: The value of a setting is not valid.
    """
    settings = Settings() if home is None else Settings(home=Path(home))
    MODEL_MEMORY.budget_bytes = settings.model_memory_bytes
    return OpenLake(settings)


class OpenLake:
    """A lake that is open: models are loaded at the first use and kept, connections until it is closed.

    It is a context manager; leaving the block closes it. Where there is no state folder, `ingest` makes one
    and the other methods raise `StateFolderError`.

    Args:
        settings: The settings of the state folder.

    Attributes:
        settings: The settings of the state folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._service = open_ask_service(settings)

    def __enter__(self) -> Self:
        """Returns the lake itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Closes the lake."""
        self.close()

    def close(self) -> None:
        """Commits the answers that were given to `gold.answers`, and closes the connections to the index."""
        self._service.close()

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: SearchMode | None = None,
        tenant: str = "default",
        groups: Collection[str] = (),
        as_of: str | None = None,
        fit_only: bool = False,
    ) -> list[SearchHit]:
        """Returns the chunks that match a query, best first.

        Example:
            >>> with open_lake() as lake:
            ...     [hit] = lake.search('warranty "service centre" -leave', k=1, mode="lexical")
            >>> hit.heading, hit.uri.rpartition("/")[2]
            ('Warranty', 'warranty.md')

        Args:
            query: Words, `"a phrase"` that must occur, `-word` that must not.
            k: How many chunks to find.
            mode: `hybrid`, `lexical`, `vector` or `reranked`; if None `reranked` where a reranker is
                configured, else `hybrid`.
            tenant: The tenant whose documents are searched.
            groups: The user's groups.
            as_of: A release such as `r1.2`, or a time in ISO 8601; the live release if None.
            fit_only: Whether documents that are not fit for training are left out.

        Raises:
            InvalidArgument: An argument is not what is said above.
            InvalidSearchQuery: The query has no word to look for, or `k` is out of range.
            InvalidAsOf: `as_of` is neither a release nor a time.
            UnknownIndexRelease: The release that is meant is not kept.
            NoLiveSnapshot: Nothing is released yet.
            RerankError: The mode is `reranked`, and no reranker is configured.
        """
        _check_argument("query", query, isinstance(query, str), 'words, as in lake.search("warranty")')
        _check_argument("k", k, isinstance(k, int), "how many chunks to find, such as 10")
        modes = (*RETRIEVAL_MODES, "reranked")
        _check_argument("mode", mode, mode is None or mode in modes, f"one of {', '.join(modes)}, or None")
        _check_reader(tenant, groups, as_of)
        require_state_folder(self.settings.home)
        return search_release(self._service, query, k, mode, tenant, groups, as_of, fit_only).hits

    def ask(
        self,
        question: str,
        *,
        tenant: str = "default",
        groups: Collection[str] = (),
        as_of: str | None = None,
    ) -> Answer:
        """Returns the answer to a question, with citations that name the characters they are from.

        It is recorded, and is a row of `gold.answers` at the latest when the lake is closed.

        Example:
            >>> with open_lake() as lake:
            ...     answer = lake.ask("How many days of paid leave are there?")
            ...     unknown = lake.ask("Who was the first emperor of Rome?")
            >>> answer.citations[0].quote
            'Every employee has thirty days of paid leave a year, to be agreed with the team.'
            >>> answer.refused, unknown.refused
            (False, True)

        Args:
            question: The question, in plain words.
            tenant: The tenant whose documents are searched.
            groups: The user's groups.
            as_of: A release such as `r1.2`, or a time in ISO 8601; the live release if None.

        Raises:
            InvalidArgument: An argument is not what is said above.
            InvalidQuestion: The question is empty or too long.
            InvalidAsOf: `as_of` is neither a release nor a time.
            UnknownIndexRelease: The release that is meant is not kept.
            NoLiveSnapshot: Nothing is released yet.
            EngineError: The configured engine fails.
        """
        takes = 'a question, as in lake.ask("How long is the warranty?")'
        _check_argument("question", question, isinstance(question, str), takes)
        _check_reader(tenant, groups, as_of)
        require_state_folder(self.settings.home)
        return ask_release(self._service, question, tenant, groups, as_of)

    def rate(
        self, answer_id: str, rating: Literal["good", "bad"], reason: str | None = None
    ) -> "AnswerRating":
        """Records whether an answer is good, and returns the rating; the newest of an answer counts.

        Training sets learn from good ones.

        Example:
            >>> with open_lake() as lake:
            ...     answer = lake.ask("How long is the warranty?")
            ...     lake.rate(answer.answer_id, "good").rater
            'person'

        Args:
            answer_id: The answer's id, or the beginning of it that no other has.
            rating: Whether it is good.
            reason: Why, in a sentence.

        Raises:
            InvalidArgument: An argument is not what is said above.
            UnknownStoredAnswer: There is no such answer, or more than one.
            InvalidRating: The reason can not be stored.
            WriteConflict: Other processes wrote ratings all the time; nothing was written.
        """
        from assets.answers.ratings import rate_answer
        from orchestration.settings import open_configured_lake

        takes = "an id, such as the answer_id of an answer"
        _check_argument("answer_id", answer_id, isinstance(answer_id, str), takes)
        _check_argument("rating", rating, rating in ("good", "bad"), "good or bad")
        _check_argument("reason", reason, reason is None or isinstance(reason, str), "a sentence, or None")
        require_state_folder(self.settings.home)
        return rate_answer(open_configured_lake(self.settings), answer_id, rating, reason)

    def sql(self, statement: str, *, engine: Literal["duckdb", "spark"] = "duckdb") -> "pa.Table":
        """Returns the rows of a query over the tables, as an Arrow table; nothing can be written.

        Example:
            >>> with open_lake() as lake:
            ...     table = lake.sql("select uri, text from silver.documents where text like '%warranty%'")
            >>> table.num_rows, table.column_names
            (1, ['uri', 'text'])
            >>> table.to_pandas()["text"].str.len().item() > 100
            True

        Args:
            statement: One SELECT, DESCRIBE, SHOW or EXPLAIN; `layer.table@N` is a table as of version N.
            engine: What answers it; `duckdb` needs no JVM.

        Raises:
            InvalidArgument: An argument is not what is said above.
            SqlStatementRefused: It would write, or is more than one statement.
            InvalidSqlStatement: It can not be answered as it is written, or takes too much memory.
            SqlTimeout: It took longer than `HEADWATER_SQL__TIMEOUT_S`.
        """
        from orchestration.operations.sql_process import run_sql_query

        takes = 'a query, as in lake.sql("select count(*) from gold.chunks")'
        _check_argument("statement", statement, isinstance(statement, str), takes)
        _check_argument("engine", engine, engine in ("duckdb", "spark"), "duckdb or spark")
        require_state_folder(self.settings.home)
        return run_sql_query(self.settings, statement, engine)

    def trace(self, identity: str, *, verify: bool = False) -> Trace:
        """Returns what a thing was made from, back to the bytes of its source, and what was made from it.

        Example:
            >>> with open_lake() as lake:
            ...     answer = lake.ask("How long is the warranty?")
            ...     trace = lake.trace(answer.answer_id, verify=True)
            >>> trace.kind, trace.verified
            ('answer', True)

        Args:
            identity: The id of an answer, chunk, document, training example, release or run, a content hash,
                or the beginning of one that no other has; a URI or a path of this machine.
            verify: Whether every hash and span is computed again from the stored bytes.

        Raises:
            InvalidArgument: An argument is not what is said above.
            Untraceable: Nothing has that id, or several begin so.
        """
        from orchestration.tracing.tracer import trace_identity

        takes = "an id, a URI or a path, such as the answer_id of an answer"
        _check_argument("identity", identity, isinstance(identity, str), takes)
        require_state_folder(self.settings.home)
        return trace_identity(self.settings, identity, verify)

    def ingest(self, *paths: str | PathLike[str], tenant: str = "default") -> "RunSummary":
        """Adds paths as sources, brings everything up to date, and returns what stands then.

        Without paths it reads the sources that there are again, as `headwater run` does. A path that is a
        source already is not added again.

        Example:
            >>> with open_lake() as lake:
            ...     run = lake.ingest("handbook")
            >>> run.searchable
            {'documents': 2, 'chunks': 2}
            >>> run.release
            'r1.1'

        Args:
            *paths: Folders, files or URIs.
            tenant: The tenant whose documents they are.

        Raises:
            InvalidArgument: An argument is not what is said above.
            SourceError: A path is missing, holds no document or is a web address; none was added.
            RunFailed: A step or a gate failed; what was live stays live.
            UnsupportedJava: There is no Java that Spark runs on.
        """
        from assets.sources.source_registry import SourceRegistry
        from orchestration.operations.ingest import add_ingest_sources, ingest_and_release

        for path in paths:
            takes = 'a folder, a file or a URI; several are given one after the other: lake.ingest("a", "b")'
            _check_argument("path", path, isinstance(path, str | PathLike), takes)
        _check_argument("tenant", tenant, isinstance(tenant, str), "a name, such as 'default'")
        make_state_folder(self.settings.home)
        registry = SourceRegistry(self.settings.sources_file)
        add_ingest_sources(registry, [fspath(each) for each in paths], tenant)
        # Dagster runs an event loop, and the thread of a notebook's cell has one already.
        with ThreadPoolExecutor(1, "headwater-ingest") as thread:
            return thread.submit(ingest_and_release, self.settings, _log_progress).result()


def _check_argument(name: str, value: object, valid: bool, takes: str) -> None:
    if not valid or isinstance(value, bool):
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: give {takes}")


def _check_reader(tenant: object, groups: object, as_of: object) -> None:
    _check_argument("tenant", tenant, isinstance(tenant, str), "a name, such as 'default'")
    is_groups = isinstance(groups, Collection) and not isinstance(groups, str)
    _check_argument("groups", groups, is_groups, "a list of names, such as ['staff']")
    takes = "a release such as 'r1.2', a time such as '2026-03-01', or None"
    _check_argument("as_of", as_of, as_of is None or isinstance(as_of, str), takes)


def _log_progress(line: str) -> None:
    logger.info("%s", redact_urls(line))
