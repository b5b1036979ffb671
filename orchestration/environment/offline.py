"""Keeps libraries from sending telemetry or downloading; after set-up nothing needs the network.

`orchestration/__init__.py` calls this before any library is imported, because each reads its switch only
once.
"""

import os

OFFLINE_SWITCHES = {
    "DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Models are named by local path: a name that is none fails at once instead of asking a hub.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
"""Environment variables by library; child processes inherit them."""


def go_offline() -> None:
    """Sets the environment variables that switch off libraries' network use, unless the user has set them."""
    for name, value in OFFLINE_SWITCHES.items():
        os.environ.setdefault(name, value)
