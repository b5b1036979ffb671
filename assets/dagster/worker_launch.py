"""Runs a worker for the asset that is being made: its log and figures are the run's (Dagster Pipes)."""

import warnings
from collections.abc import Mapping, Sequence

import dagster as dg

from inference.engines.protocol import EngineError


def launch_by_pipes(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a worker until it ends. What it reports becomes metadata of the asset's materialization.

    Raises:
        EngineError: It fails, or can't be started.
    """
    context = dg.AssetExecutionContext.get()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's own code, in the terminal
            ended = dg.PipesSubprocessClient().run(context=context, command=command, env=environment)
    except OSError as error:
        raise EngineError(f"the worker {command[0]} can not be started: {error}") from error
    except Exception as error:  # Dagster's error of a process that failed has no public name
        raise EngineError(f"the worker failed ({error}): the run's log says why") from error
    for result in ended.get_results():
        if result.metadata:
            context.add_asset_metadata({f"worker_{name}": value for name, value in result.metadata.items()})
