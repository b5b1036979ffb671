"""Sends events to an OpenLineage endpoint; one that is away stops nothing, and is told once."""

import logging
import os
import time
from functools import cache

from openlineage.client.event_v2 import RunEvent
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

from common.redaction import redact_urls

logger = logging.getLogger(__name__)

_TIMEOUT_S = 3.0
_PAUSE_S = 60.0
"""How long nothing is sent after a failure: each event would wait for the endpoint again."""


class LineageEndpoint:
    """An OpenLineage endpoint.

    Args:
        url: Its URL. The path (OPENLINEAGE_ENDPOINT) and the key (OPENLINEAGE_API_KEY) are those of the
            official client's variables.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        key = os.environ.get("OPENLINEAGE_API_KEY")
        self._transport = HttpTransport(
            HttpConfig(
                url=url,
                endpoint=os.environ.get("OPENLINEAGE_ENDPOINT", "api/v1/lineage"),
                timeout=_TIMEOUT_S,
                auth=ApiKeyTokenProvider({"api_key": key}) if key else TokenProvider({}),
                retry={"total": 0},
            )
        )
        self._silent_until = 0.0
        self._told = False

    def send(self, event: RunEvent) -> None:
        """Sends an event, unless the endpoint failed in the last minute; a failure is a warning, once."""
        if time.monotonic() < self._silent_until:
            return
        try:
            self._transport.emit(event)
        except Exception as error:  # a network's, a proxy's, a receiver's: none of them may stop a run
            self._silent_until = time.monotonic() + _PAUSE_S
            if not self._told:
                self._told = True
                logger.warning(
                    "the OpenLineage endpoint %s took no event (%s), and the run goes on without; check "
                    "HEADWATER_OPENLINEAGE_URL",
                    redact_urls(self.url),
                    type(error).__name__,
                )


@cache
def lineage_endpoint(url: str) -> LineageEndpoint:
    """Returns the endpoint of a URL, the same one in a process, so that a failure is told once."""
    return LineageEndpoint(url)
