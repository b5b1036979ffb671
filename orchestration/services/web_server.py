"""Dagster's web UI behind our guard: `python -m orchestration.services.web_server WORKSPACE [options]`."""

import sys

import uvicorn
from dagster import DagsterInstance

# Dagster's public interface has no application to put anything in front of; its version is pinned.
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context

from orchestration.services.web_data_docs import data_docs_route
from orchestration.services.web_guard import WebAccess, WebGuard
from orchestration.services.web_mlflow import mlflow_routes
from orchestration.settings import Settings


def build_web_application(settings: Settings, context: WorkspaceProcessContext) -> WebGuard:
    """Returns Dagster's web UI, Data Docs and MLflow's pages, behind the guard.

    Args:
        settings: The path prefix, the names and the password.
        context: The code servers that Dagster shows.

    Raises:
        ServiceError: Other machines could reach the web UI, and there is no password.
    """
    access = WebAccess.of_settings(settings)
    application = create_app_from_workspace_process_context(context, settings.web_path_prefix)
    # Before Dagster's own, which answer every other path with the web UI's page.
    application.router.routes[:0] = [
        data_docs_route(settings.data_docs_folder, settings.data_docs_url),
        *mlflow_routes(settings.training_place, settings.mlflow_url),
    ]
    return WebGuard(application, access)


def serve_web_ui(settings: Settings, workspace: str) -> None:
    """Serves the web UI until the process is told to stop.

    Args:
        settings: The address, the port, and what `build_web_application` reads.
        workspace: A workspace file that names the code server.

    Raises:
        ServiceError: Other machines could reach the web UI, and there is no password.
    """
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace])) as context,
    ):
        uvicorn.run(
            build_web_application(settings, context),
            host=str(settings.web_address),
            port=settings.web_port,
            log_level="warning",
            server_header=False,
        )


if __name__ == "__main__":
    workspace_file, *log_format = sys.argv[1:]
    configure_loggers(formatter="json" if log_format == ["--log-format", "json"] else "colored")
    serve_web_ui(Settings(), workspace_file)
