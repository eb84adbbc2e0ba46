"""Runs optuna-dashboard on a study's storage. Installed by the extra `ui`."""

import importlib.util
import os
import sys
from pathlib import Path

from src.config.settings import StorageSettings
from src.search.storages.connect import open_storage

STORAGE = "TRIALBOOK_DASHBOARD_STORAGE"  # environment variable, since the URL may contain a password


def available() -> bool:
    """Whether optuna-dashboard is installed."""
    return importlib.util.find_spec("optuna_dashboard") is not None


def serve(url: str | None, folder: Path, port: int) -> None:
    """Serve the storage at `url`, or the journal in `folder`, on localhost until the process is ended."""
    import optuna_dashboard

    optuna_dashboard.run_server(open_storage(StorageSettings(url), folder), host="127.0.0.1", port=port)


if __name__ == "__main__":
    serve(os.environ.get(STORAGE), Path(sys.argv[1]), int(sys.argv[2]))
