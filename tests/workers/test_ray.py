"""Workers on a Ray cluster: a head and two nodes with addresses and folders of their own, and one that loses power."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support import servers
from tests.support.commands import LETTERS, clean_environment, wait_until
from tests.support.data import write_letters

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(800)]
pytest.importorskip("ray", reason="pip install -e '.[ray]'")


TOKEN = "a-token-that-all-nodes-share-as-ray-wants-it"


@dataclass(frozen=True)
class Cluster:
    folder: Path
    database: str
    tracking: str
    sessions: str  # where Ray keeps its own files: not where a developer's own cluster has them

    def start(self, node: str, *command: str) -> subprocess.Popen[str]:
        """A command on a node, in that node's own folder."""
        place = self.folder / node
        place.mkdir(exist_ok=True)
        own = {
            "NODE_HOME": str(place / "home"), "TRIALBOOK_STORAGE": self.database, "MLFLOW_TRACKING_URI": self.tracking,
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
            "RAY_TMPDIR": self.sessions,
            "RAY_worker_niceness": "0",  # 15 by default: beside other tests the workers would get next to no time
            "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000",
            "RAY_grpc_client_keepalive_time_ms": "5000", "RAY_grpc_client_keepalive_timeout_ms": "5000",
        }  # fmt: skip
        return subprocess.Popen(
            ["ip", "netns", "exec", node, *command], cwd=place, env=clean_environment() | own, text=True,
            stdin=subprocess.DEVNULL, stdout=(place / "out.txt").open("a"), stderr=(place / "err.txt").open("a"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    ray = str(Path(sys.executable).with_name("ray"))
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as sessions,  # a short path: for sockets
        servers.nodes("head", "one", "two") as address,
        servers.postgres("studies", address=servers.OUTSIDE) as base,
    ):
        url, command = servers.command_for(folder, host=servers.OUTSIDE)
        process = servers.start(url, command)
        cluster = Cluster(folder, f"{base}/studies", url, sessions)
        common = ["--block", "--disable-usage-stats", "--object-store-memory=100000000"]
        head = f"{address['head']}:6379"
        try:
            cluster.start("head", ray, "start", "--head", f"--node-ip-address={address['head']}", "--port=6379",
                       "--num-cpus=0", "--include-dashboard=false", *common)  # fmt: skip
            wait_until(lambda: "Ray runtime started" in (folder / "head" / "out.txt").read_text())
            for node in ("one", "two"):
                here = f"--node-ip-address={address[node]}"
                cluster.start(node, ray, "start", f"--address={head}", here, "--num-cpus=1", *common)
                wait_until(lambda node=node: "Ray runtime started" in (folder / node / "out.txt").read_text())
            yield cluster
        finally:
            servers.stop(process)


def test_a_node_that_loses_power_loses_no_work(cluster: Cluster) -> None:
    write_letters(cluster.folder / "head" / "letters.csv")
    command = [
        sys.executable, "-m", "src.sweep", "-m", "launcher=ray", "storage=postgresql", "tracking=server",
        *LETTERS, "study.name=ray", "workers=2",
        "worker.home='${oc.env:NODE_HOME}'", "study.rungs=[0.25,0.5,1.0]", "study.rung_examples=null",
        "trainer.num_train_epochs=60", "space.trainer.num_train_epochs.low=40", "pruner=none",
        "space.trainer.num_train_epochs.high=60",
    ]  # fmt: skip
    sweep = cluster.start("head", *command)
    kept = cluster.folder / "files"
    wait_until(lambda: len(list(kept.rglob("trials/000*/training/manifest.json"))) > 1)  # both nodes have sent one
    servers.unplug("one")
    assert sweep.wait(600) == 0, (cluster.folder / "head" / "err.txt").read_text()[-3000:]
    out = (cluster.folder / "head" / "out.txt").read_text()
    assert "all 3 trials are done" in out
    client = MlflowClient(cluster.tracking)
    runs = client.search_runs(["1"], "tags.study = 'ray' and tags.kind = 'trial'")
    assert sorted(run.info.run_name for run in runs) == ["trial-0000", "trial-0001", "trial-0002"]
    for run in runs:
        steps = Counter(params.step for params in client.get_metric_history(run.info.run_id, "train/loss"))
        assert set(steps.values()) == {1}, run.info.run_name
    for node in ("one", "two"):  # each was brought the data and the weights once, and the sealed split never
        assert len(list((cluster.folder / node).rglob("train.parquet"))) == 1
        assert not list((cluster.folder / node).rglob("test.parquet"))
    assert not list((cluster.folder / "head").glob("home"))
    assert list((cluster.folder / "head").rglob("trials/*/training/best/model.safetensors"))
