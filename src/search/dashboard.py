"""optuna-dashboard over a study's own storage, with its own locks; the extra `ui` brings it."""

import importlib.util
import os
import sys
from pathlib import Path

from src.search.storage import open_storage
from src.settings import StorageSettings

STORAGE = "TRIALBOOK_DASHBOARD_STORAGE"  # in the environment, for it may hold a password


def available() -> bool:
    return importlib.util.find_spec("optuna_dashboard") is not None


def serve(url: str | None, folder: Path, port: int) -> None:
    """Serve the storage at `url`, or the journal in `folder`, on this machine alone, until the process is ended."""
    import optuna_dashboard

    optuna_dashboard.run_server(open_storage(StorageSettings(url), folder), host="127.0.0.1", port=port)


if __name__ == "__main__":
    serve(os.environ.get(STORAGE), Path(sys.argv[1]), int(sys.argv[2]))
