"""Logs as JSON, a line a record: of runs in a file of their own, of Dagster's services in theirs."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Of a failure Dagster says what the exception said, and that can quote a document.
_QUOTING = {"STEP_FAILURE", "STEP_UP_FOR_RETRY", "RUN_FAILURE", "ENGINE_EVENT"}


class JsonLogFormatter(logging.Formatter):
    """A record of a run as one JSON object: time, level, logger, message, run id, job, step, asset, event.

    Of an exception only the class is told, and of a materialization or a check no metadata: both can hold
    text of documents. The web UI has the rest, behind its run id.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", None) or {}
        event = meta.get("dagster_event")
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": meta.get("orig_message") or record.getMessage(),
            "run_id": meta.get("run_id"),
            "job": meta.get("job_name"),
            "step": meta.get("step_key"),
            "asset": None,
            "event": None,
        }
        if event is not None:
            line["event"] = event.event_type_value
            line["step"] = line["step"] or event.step_key
            line["asset"] = event.asset_key.to_user_string() if event.asset_key else None
            if event.event_type_value in _QUOTING:
                error = getattr(event.event_specific_data, "error", None)
                cause = (error.cause or error) if error else None
                line["error"] = cause.cls_name if cause else None
                line["message"] = event.event_type_value
        elif record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        # An asset's step has its key, with two underscores for the stroke.
        if line["asset"] is None and "__" in (line["step"] or ""):
            line["asset"] = line["step"].replace("__", "/")
        return json.dumps({name: value for name, value in line.items() if value is not None})


def run_log_settings(file: Path) -> dict[str, object]:
    """`python_logs` of `dagster.yaml`: every record of every run also goes to a file, as `JsonLogFormatter`.

    The file is opened anew when a rotation moved it.
    """
    return {
        "dagster_handler_config": {
            "formatters": {"json": {"()": f"{JsonLogFormatter.__module__}.{JsonLogFormatter.__qualname__}"}},
            "handlers": {
                "runs": {
                    "class": "logging.handlers.WatchedFileHandler",
                    "filename": str(file),
                    "encoding": "utf-8",
                    "formatter": "json",
                    "level": "INFO",
                }
            },
        }
    }
