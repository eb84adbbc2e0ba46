"""A saved view of MLflow's table of runs: which runs, in which order, with which columns.

MLflow's own UI keeps such views as tags of the experiment (its *Views* menu); this writes one as it would.
"""

import base64
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from src.evidence.store import Store

TAG = "mlflow.sharedViewState."


@dataclass(frozen=True)
class Order:
    """Of the runs: by what, as MLflow names it."""

    by: str
    descending: bool


def save(store: Store, key: str, name: str, runs: str, order: Order, columns: Sequence[str]) -> None:
    """Keep the view `key`, called `name`: the runs that the filter `runs` finds, and `columns` as MLflow names them."""
    state = {
        "searchFilter": runs, "orderByKey": order.by, "orderByAsc": not order.descending, "startTime": "ALL",
        "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns), "columnOrder": [], "columnWidths": {}, "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False, "runListHidden": False, "isAccordionReordered": False,
        "useGroupedValuesInCharts": True, "hideEmptyCharts": True, "groupBy": None, "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }  # fmt: skip
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    view = {"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    store.client.set_experiment_tag(store.experiment_id, f"{TAG}{key}", json.dumps(view))


def path(store: Store, key: str) -> str:
    """Where the view is, below the address of MLflow's UI."""
    return f"#/experiments/{store.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"
