"""Repeats HTTP requests that may succeed later, waiting as long as the service asks for."""

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

HTTP_ATTEMPTS = 4
_LONGEST_WAIT_S = 30.0


class HttpUnanswered(Exception):
    """An attempt that failed and may be repeated; the service may have said when."""

    def __init__(self, fault: str, retry_after_s: float | None = None) -> None:
        super().__init__(fault)
        self.retry_after_s = retry_after_s


def http_attempts(first_wait_s: float) -> Retrying:
    """Returns what calls a function up to `HTTP_ATTEMPTS` times, as long as it raises `HttpUnanswered`.

    Args:
        first_wait_s: The wait before the second attempt where the service asks for none; doubled before each
            further one.
    """

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.retry_after_s if isinstance(error, HttpUnanswered) else None
        return min(asked_s or wait_exponential(first_wait_s)(state), _LONGEST_WAIT_S)

    return Retrying(
        retry=retry_if_exception_type(HttpUnanswered),
        stop=stop_after_attempt(HTTP_ATTEMPTS),
        wait=wait_s,
        reraise=True,
    )


def raise_if_unanswered(response: httpx.Response, fault: str) -> None:
    """Raises `HttpUnanswered` if the service is busy or broken, and so may answer later.

    Args:
        response: The reply.
        fault: What is said of it.
    """
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise HttpUnanswered(fault, _retry_after_s(response))


def _retry_after_s(response: httpx.Response) -> float | None:
    """Returns the wait that the service asks for. The header's other form, a date, is rare and ignored."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
