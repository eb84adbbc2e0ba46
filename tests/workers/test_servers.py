"""An MLflow server as a team runs it: PostgreSQL behind it, artifacts on S3, passwords in front; and Optuna's proxy."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support import servers
from tests.support.commands import LETTERS, Place
from tests.support.data import write_letters

pytestmark = pytest.mark.cluster
boto3 = pytest.importorskip("boto3", reason="pip install -e '.[cluster]'")
PASSWORD = "a-long-password-of-one"


@dataclass(frozen=True)
class Team:
    database: str
    tracking: str
    s3: dict[str, str]  # how to get at the artifacts behind the server's back

    def environment(self, password: str = PASSWORD) -> dict[str, str]:
        """What a person and the workers have in theirs: nothing of S3, which is the server's."""
        return {"TRIALBOOK_STORAGE": f"{self.database}/studies", "MLFLOW_TRACKING_URI": self.tracking,
                "MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}  # fmt: skip


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    port = servers.free_port()
    s3 = {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "key",
          "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    secured = {**s3, "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32}
    with servers.postgres("studies", "mlflow") as database:
        bucket = servers.start(f"http://127.0.0.1:{port}", moto, page="moto-api/")
        client(s3).create_bucket(Bucket="runs")
        url, command = servers.command_for(folder, database=f"{database}/mlflow", artifacts="s3://runs/of-the-team")
        mlflow = servers.start(url, [*command, "--app-name", "basic-auth"], secured)
        try:
            yield Team(database, url, s3)
        finally:
            servers.stop(mlflow)
            servers.stop(bucket)


def client(s3: dict[str, str]) -> "boto3.client":
    return boto3.client(
        "s3", endpoint_url=s3["MLFLOW_S3_ENDPOINT_URL"], region_name=s3["AWS_DEFAULT_REGION"],
        aws_access_key_id=s3["AWS_ACCESS_KEY_ID"], aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


@pytest.fixture
def letters(tmp_path: Path) -> Place:
    write_letters(tmp_path / "letters.csv")
    return Place(tmp_path)


def test_a_study_with_records_behind_passwords_and_artifacts_on_s3(
    team: Team, letters: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = letters.sweep(
        *LETTERS, "storage=postgresql", "tracking=server", "study.name=team", "worker.cpus=1", "study.rungs=[0.5,1.0]",
        f"worker.home='{letters.folder}/homes/${{worker.index}}'", env=team.environment(),
    )  # fmt: skip
    assert done.code == 0, done.err + done.out
    assert "all 3 trials are done" in done.out
    assert PASSWORD not in done.out + done.err
    for name, value in team.environment().items():
        monkeypatch.setenv(name, value)
    runs = MlflowClient(team.tracking).search_runs(["1"], "tags.study = 'team'")
    assert sum(run.data.tags["kind"] == "trial" for run in runs) == 3
    listed = client(team.s3).list_objects_v2(Bucket="runs", Prefix="of-the-team/1/")["Contents"]
    assert any(result["Key"].endswith("model.safetensors") for result in listed)
    kept = [result["Key"] for result in listed if "/studies/" in result["Key"]]
    assert any("/material/" in key for key in kept)
    assert not any("test.parquet" in key for key in kept)
    for file in letters.folder.rglob("*"):
        if file.is_file() and file.suffix in (".yaml", ".json", ".jsonl", ".log", ".txt"):
            assert PASSWORD not in file.read_text(errors="ignore"), file


def test_a_wrong_password_is_one_sentence(team: Team, letters: Place) -> None:
    done = letters.sweep(*LETTERS, "tracking=server", env=team.environment("not-the-password"))
    assert done.code == 2
    assert done.err.startswith(f"The MLflow store at {team.tracking} (tracking.uri, or MLFLOW_TRACKING_URI, or the ")
    assert "401" in done.err
    assert "Traceback" not in done.err
    assert not (letters.folder / "mlruns" / "studies").exists()


def test_a_page_of_another_host_is_not_served(team: Team) -> None:
    """MLflow's own middleware: a name that the server was not told of (DNS rebinding) is turned away."""
    request = urllib.request.Request(
        f"{team.tracking}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 403


def test_a_study_through_optunas_proxy(team: Team, letters: Place) -> None:
    pytest.importorskip("grpc")
    port = servers.free_port()
    serve = (
        "from optuna.storages import RDBStorage, run_grpc_proxy_server; "
        f"run_grpc_proxy_server(RDBStorage('{team.database}/studies'), host='127.0.0.1', port={port})"
    )
    proxy = subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        done = letters.sweep(*LETTERS, f"storage.url=grpc://127.0.0.1:{port}", "study.name=proxied")
    finally:
        proxy.kill()
        proxy.wait()
    assert done.code == 0, done.err + done.out
    assert "all 3 trials are done" in done.out
    gone = letters.sweep(*LETTERS, f"storage.url=grpc://127.0.0.1:{port}", "study.name=proxied")
    assert gone.code == 2
    assert gone.err.startswith(f"storage.url is grpc://127.0.0.1:{port}, and it could not be opened: ")
