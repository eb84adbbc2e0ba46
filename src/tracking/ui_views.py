"""Saves views of MLflow's table of runs: which runs, in which order, with which columns.

MLflow's UI stores such views as tags of the experiment (its *Views* menu); this writes the same tags.
"""

import base64
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from src.tracking.store import TrackingStore

TAG = "mlflow.sharedViewState."


@dataclass(frozen=True)
class SortOrder:
    """The order of the runs: by which column, as MLflow names it."""

    by: str
    descending: bool


def save_view(store: TrackingStore, key: str, name: str, runs: str, order: SortOrder, columns: Sequence[str]) -> None:
    """Save a view of the runs' table.

    Args:
        store: whose experiment gets the view.
        key: identifies the view; saving it again replaces it.
        name: shown in MLflow's *Views* menu.
        runs: MLflow's filter of the runs.
        order: of the runs.
        columns: that are shown, by MLflow's names.
    """
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


def view_path(store: TrackingStore, key: str) -> str:
    """The view's path below the address of MLflow's UI."""
    return f"#/experiments/{store.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"
