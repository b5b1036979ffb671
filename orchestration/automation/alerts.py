"""Alerts about failed runs: sent to a webhook, to a program, or to both."""

import json
import subprocess
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class FailureAlert:
    """The receivers of an alert about a failed run: a webhook, a program, or both.

    Attributes:
        webhook: A URL that the alert is posted to as JSON; it often holds a key.
        command: A program with its arguments that gets the same JSON on standard input; no shell runs it.
    """

    webhook: SecretStr | None = None
    command: tuple[str, ...] = ()

    @property
    def is_configured(self) -> bool:
        """True if there is a webhook or a program."""
        return self.webhook is not None or bool(self.command)

    def send(self, failure: dict[str, str]) -> None:
        """Sends an alert to the webhook and the program; the program gets it even if the webhook fails.

        Raises:
            ExceptionGroup: Sending failed; the errors do not name the address of the webhook.
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
            raise ExceptionGroup("the alert about a failed run could not be sent", faults)
