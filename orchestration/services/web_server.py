"""Dagster's web UI behind our guard: `python -m orchestration.services.web_server WORKSPACE [options]`."""

import sys

import uvicorn
from dagster import DagsterInstance

# Dagster's public interface has no application to put anything in front of; its version is pinned.
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context

from orchestration.services.web_guard import WebAccess, WebGuard
from orchestration.settings import Settings


def serve_web_ui(settings: Settings, workspace: str) -> None:
    """Serves the web UI until the process is told to stop.

    Args:
        settings: The port, the names and the password.
        workspace: A workspace file that names the code server.
    """
    access = WebAccess.on_loopback(settings.web_port, settings.web_hosts, settings.web_password)
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace])) as context,
    ):
        application = WebGuard(create_app_from_workspace_process_context(context), access)
        uvicorn.run(
            application, host="127.0.0.1", port=settings.web_port, log_level="warning", server_header=False
        )


if __name__ == "__main__":
    workspace_file, *log_format = sys.argv[1:]
    configure_loggers(formatter="json" if log_format == ["--log-format", "json"] else "colored")
    serve_web_ui(Settings(), workspace_file)
