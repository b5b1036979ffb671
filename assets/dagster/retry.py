"""What is worth trying again: a database that is away for a moment, and nothing else."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import dagster as dg
import psycopg

from retrieval.store.postgres import Unavailable

TRANSIENT = (psycopg.OperationalError, Unavailable, ConnectionError, TimeoutError)
"""Faults that pass by themselves. Bad data, a failed gate, a write conflict or a full disk do not."""

_TRIES = 4
_FIRST_WAIT_S = 2.0


def retried(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Runs an asset's function again after a fault that passes: in 2, 4 and 8 seconds.

    Every step starts from what its table holds, so that it can be run again wherever it stopped.
    """

    @wraps(compute)
    def attempt(context: dg.AssetExecutionContext, **resources: Any) -> Any:
        try:
            return compute(context, **resources)
        except TRANSIENT as error:
            context.log.warning(f"{type(error).__name__}: {error}; trying again")
            wait_s = _FIRST_WAIT_S * 2**context.retry_number
            raise dg.RetryRequested(max_retries=_TRIES - 1, seconds_to_wait=wait_s) from error

    return attempt
