"""Logs as JSON, one line per record: of runs in `runs.jsonl`, of Dagster's services in their logs."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Dagster quotes the message of the exception in these, and that can quote a document.
_QUOTING = {"STEP_FAILURE", "STEP_UP_FOR_RETRY", "RUN_FAILURE", "ENGINE_EVENT"}


class JsonLogFormatter(logging.Formatter):
    """Formats a log record as a JSON object: time, level, logger, message, run id, job, step, asset, event.

    Of an exception it has only the class, of a materialization or a check no metadata, because both can quote
    documents. The web UI shows the rest, by the run id.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the JSON of a record, without a line break."""
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
        # The step of an asset is named by its key, with two underscores for the slash.
        if line["asset"] is None and "__" in (line["step"] or ""):
            line["asset"] = line["step"].replace("__", "/")
        return json.dumps({name: value for name, value in line.items() if value is not None})


def run_log_settings(file: Path) -> dict[str, Any]:
    """Returns the setting `python_logs` of `dagster.yaml` that also writes every record of a run to a file.

    The format is that of `JsonLogFormatter`. The file is opened again after a log rotation.
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
