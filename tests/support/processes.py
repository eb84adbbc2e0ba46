"""Processes of tests: each forks from one that has done the imports."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.studies", "mlflow.store.tracking.sqlalchemy_store"])
