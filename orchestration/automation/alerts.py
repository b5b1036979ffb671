"""Tells somebody of a run that failed: a webhook, a program, or both."""

import json
import subprocess
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class FailureAlert:
    """Where a failure is told.

    Attributes:
        webhook: A URL that it is posted to as JSON; it often holds a key.
        command: A program with arguments that is given the same on its standard input; no shell sees it.
    """

    webhook: SecretStr | None = None
    command: tuple[str, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told."""
        return self.webhook is not None or bool(self.command)

    def send(self, failure: dict[str, str]) -> None:
        """Tells everybody, the program even where the webhook fails.

        Raises:
            ExceptionGroup: What went wrong, without the webhook's address.
        """
        faults: list[Exception] = []
        if self.webhook is not None:
            try:
                reply = httpx.post(self.webhook.get_secret_value(), json=failure, timeout=_TIMEOUT_S)
                if reply.is_error:
                    faults.append(RuntimeError(f"the alert webhook answered HTTP {reply.status_code}"))
            except httpx.HTTPError as error:
                faults.append(RuntimeError(f"the alert webhook can not be reached: {type(error).__name__}"))
        if self.command:
            try:
                subprocess.run(
                    self.command, input=json.dumps(failure), text=True, timeout=_TIMEOUT_S, check=True
                )
            except (OSError, subprocess.SubprocessError) as error:
                faults.append(error)
        if faults:
            raise ExceptionGroup("a failed run could not be told", faults)
