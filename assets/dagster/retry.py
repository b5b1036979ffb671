"""Retries assets after faults that pass by themselves: a database that is unavailable for a moment."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import dagster as dg
import psycopg

from retrieval.store.postgres import DatabaseUnavailable

_PASSING_SQLSTATES = ("57P01", "57P02", "57P03", "53300")
"""The server was shut down, crashed, is starting, or has no connection left."""
_CONNECTION_SQLSTATES = "08"
"""The class of every fault of a connection."""

_TRIES = 4
_FIRST_WAIT_S = 2.0


def is_transient_asset_fault(error: Exception) -> bool:
    """Returns whether an error is transient: a connection that failed, was lost, or timed out.

    PostgreSQL's operational errors are told apart by their SQLSTATE (PostgreSQL's manual, appendix A). A full
    disk, a cancelled statement or a lock timeout is also an operational error, but is not transient. An error
    without a SQLSTATE was raised by the client, because the server did not answer.
    """
    if isinstance(error, psycopg.OperationalError):
        state = error.sqlstate
        return state is None or state.startswith(_CONNECTION_SQLSTATES) or state in _PASSING_SQLSTATES
    return isinstance(error, DatabaseUnavailable | ConnectionError | TimeoutError)


def retry_asset(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps an asset's function so that it runs again after a transient error: after 2, 4 and 8 seconds.

    Every step starts from what its table holds, so it can run again wherever it stopped.
    """

    @wraps(compute)
    def attempt(context: dg.AssetExecutionContext, **resources: Any) -> Any:
        try:
            return compute(context, **resources)
        except Exception as error:
            if not is_transient_asset_fault(error):
                raise
            context.log.warning(f"{type(error).__name__}: {error}; trying again")
            wait_s = _FIRST_WAIT_S * 2**context.retry_number
            raise dg.RetryRequested(max_retries=_TRIES - 1, seconds_to_wait=wait_s) from error

    return attempt
