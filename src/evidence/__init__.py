"""What is kept and shown: run records, the MLflow store, the delivered model. The one home of MLflow."""

import os

# Read by MLflow on use. Records wait in an outbox, so a server that is down should be given up on soon.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
