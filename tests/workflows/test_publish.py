"""A champion to the Hub: a real client against a small server that speaks the Hub's calls."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from transformers import pipeline

from src.config.groups import CONF_DIR
from src.config.reader import read_publication_settings
from src.config.settings import PublicationSettings
from src.core.errors import InvalidInput
from src.core.paths import Paths
from src.workflows import publish
from tests.support.commands import Place
from tests.support.hub import Hub

TOKEN = "hf_secretsecretsecret"
READER = "hf_readerreaderreader"
TOKENS = {TOKEN: "write", READER: "read"}
FIGURES = {f"figures/{name}.png" for name in ("contenders", "slices", "calibration", "changes")}


def asked(repo: str = "me/letters", private: bool = True, dry_run: bool = False, version: str | None = None,
          model: str | None = None) -> PublicationSettings:  # fmt: skip
    return PublicationSettings(
        repo=repo, registry=model, tracking_uri=None, version=version, private=private, dry_run=dry_run
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that this process's client talks to, with a token that may write."""
    with Hub(TOKENS) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.mark.long
def test_a_published_champion_loads_by_its_id_and_answers_as_in_the_registry(promoted: Paths, tmp_path: Path) -> None:
    place = Place(promoted.root)
    with Hub(TOKENS) as hub:
        done = place.run("src.publish", "repo=me/letters", env=hub.environment(tmp_path, HF_TOKEN=TOKEN))
        assert done.code == 0, done.err + done.out
        files = hub.files("me/letters")
        assert ("model", "me/letters") in hub.private
    assert set(files) == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", *FIGURES,
    }  # fmt: skip
    commit = hub.commits["model", "me/letters"][-1][0]
    assert f"Published version 1 of letters: {hub.url}/me/letters at commit {commit}" in done.out
    folder = tmp_path / "downloaded"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    local = place.run("src.predict", "aaa bbb", "xyz xyz").out.splitlines()
    answers = pipeline("text-classification", model=str(folder), device="cpu")(["aaa bbb", "xyz xyz"])
    assert [line.split()[0] for line in local] == [a["label"] for a in answers]
    assert [float(line.split()[1]) for line in local] == pytest.approx([a["score"] for a in answers], abs=1e-4)
    card = ModelCard(files["README.md"].decode())
    assert 'pipeline("text-classification", model="me/letters")' in card.content
    assert {r.metric_type for r in card.data.eval_results} == {"accuracy", "f1", "precision", "recall", "loss"}
    version = MlflowClient(f"sqlite:///{promoted.root}/mlflow.db").get_model_version("letters", "1")
    assert (version.tags["hub.repo"], version.tags["hub.commit"]) == ("me/letters", commit)
    everything = [done.out, done.err, *(f.read_bytes().decode(errors="replace") for f in written(place.folder))]
    assert not any(TOKEN in text for text in everything)


def written(folder: Path) -> list[Path]:
    return [
        f for f in folder.rglob("*") if f.is_file() and f.suffix in (".db", ".json", ".yaml", ".log", ".md", ".jsonl")
    ]


def test_a_dry_run_lists_what_would_go_and_needs_no_token(
    hub: Hub, promoted: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    publish.publish(asked(dry_run=True), promoted)
    out = capsys.readouterr().out
    assert "model.safetensors" in out
    assert "README.md" in out
    assert "the card names no licence" in out
    assert "Would publish version 1 of letters as me/letters, private; publish.dry_run=true: nothing was sent." in out
    assert hub.log == []


def test_licence_and_language_stand_on_the_card_if_they_are_said(
    hub: Hub, promoted: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        overrides = ["repo=me/letters", "publish.license=apache-2.0", "publish.language=en"]
        settings = read_publication_settings(compose("publish", overrides=overrides))
    publish.publish(settings, promoted)
    assert "licence" not in capsys.readouterr().out
    card = ModelCard(hub.files("me/letters")["README.md"].decode())
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])


def test_a_second_call_finds_everything_there_and_commits_nothing(hub: Hub, promoted: Paths) -> None:
    publish.publish(asked(), promoted)
    publish.publish(asked(), promoted)
    assert len(hub.commits["model", "me/letters"]) == 2  # the empty one, and ours
    assert sum(line.startswith("PUT /large/") for line in hub.log) == 5  # weights and figures, once


def test_what_an_earlier_version_left_goes_and_what_others_put_there_stays(hub: Hub, promoted: Paths) -> None:
    claimed = {"notes.txt": b"mine", "results.json": b"{}"}
    old = {"figures/old.png": b"x", "vocab.txt": b"y", "model-00001-of-00002.safetensors": b"z"}
    hub.add("model", "me/letters", claimed | old, private=True)
    publish.publish(asked(), promoted)
    files = hub.files("me/letters")
    assert claimed.items() <= files.items()
    assert not old.keys() & files.keys()
    assert "model.safetensors" in files


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_connection_dropped_in_the_commit_is_said_and_a_second_call_completes(
    hub: Hub, promoted: Paths, cut: str
) -> None:
    hub.fault("POST", "/commit/main", cut=cut)
    with pytest.raises(
        InvalidInput, match=r"Publishing to me/letters at http://127\.0\.0\.1:.* broke off: .*the same command"
    ):
        publish.publish(asked(), promoted)
    publish.publish(asked(), promoted)
    assert {"README.md", "model.safetensors"} <= set(hub.files("me/letters"))
    assert len(hub.commits["model", "me/letters"]) == 2
    assert sum(line.startswith("PUT /large/") for line in hub.log) == 5


@pytest.mark.long
def test_an_upload_that_breaks_off_again_and_again_is_said_and_a_second_call_completes(
    hub: Hub, promoted: Paths
) -> None:
    hub.fault("PUT", "/large/", cut="before", times=30)
    with pytest.raises(
        InvalidInput, match=r"broke off: .* What has arrived is kept there; the same command sends the rest\."
    ):
        publish.publish(asked(), promoted)
    hub.faults.clear()
    publish.publish(asked(), promoted)
    assert {"README.md", "model.safetensors"} <= set(hub.files("me/letters"))


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("hf_unknownunknown", r"refused the token \(HF_TOKEN, or the login's\).*Nothing was published\."),
        (READER, r"The token \(HF_TOKEN, or the login's\) may not write to me/letters"),
    ],
)
def test_a_refused_token_is_said_and_never_shown(
    hub: Hub, promoted: Paths, monkeypatch: pytest.MonkeyPatch, token: str, says: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InvalidInput, match=says) as caught:
        publish.publish(asked(), promoted)
    assert token not in str(caught.value)
    assert hub.large == {}


@pytest.mark.usefixtures("hub")
def test_without_a_token_or_offline_it_says_what_to_do(
    promoted: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match=r"There is no token to publish with\..*hf auth login"):
        publish.publish(asked(), promoted)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidInput, match="HF_HUB_OFFLINE is set"):
        publish.publish(asked(), promoted)


def test_an_existing_public_repository_takes_a_word_of_consent(hub: Hub, promoted: Paths) -> None:
    hub.add("model", "me/letters", {"README.md": b"mine"})
    with pytest.raises(
        InvalidInput, match=r"is there already, and public\. To publish into it, say publish\.private=false"
    ):
        publish.publish(asked(), promoted)
    assert hub.files("me/letters") == {"README.md": b"mine"}
    publish.publish(asked(private=False), promoted)
    assert "model.safetensors" in hub.files("me/letters")


@pytest.mark.parametrize(
    ("asked_for", "says"),
    [
        (asked(repo="letters"), "repo is 'letters'; it is <owner>/<name> on the Hub"),
        (asked(repo="me/a b"), "repo is 'me/a b'; it is <owner>/<name> on the Hub"),
        (asked(version="9"), "The version asked for is 9; the registered model letters has 1."),
        (asked(model="other"), "The registered model other has no champion"),
    ],
)
def test_what_cannot_be_published_is_refused(
    hub: Hub, promoted: Paths, asked_for: PublicationSettings, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        publish.publish(asked_for, promoted)
    assert hub.log == []


def test_a_version_without_a_card_is_not_published(hub: Hub, promoted: Paths) -> None:
    client = MlflowClient(f"sqlite:///{promoted.root}/mlflow.db")
    source = client.get_model_version("letters", "1").source
    bare = client.create_registered_model("bare").name
    version = client.create_model_version(bare, f"{source}/nothing-here")
    try:
        with pytest.raises(
            InvalidInput, match="Version 1 of bare has no card with it, and nothing is published without"
        ):
            publish.publish(asked(model="bare", version=str(version.version)), promoted)
    finally:
        client.delete_registered_model("bare")
    assert hub.log == []


def test_without_a_champion_the_challenger_is_named(hub: Hub, promoted: Paths) -> None:
    client = MlflowClient(f"sqlite:///{promoted.root}/mlflow.db")
    source = client.get_model_version("letters", "1").source
    young = client.create_registered_model("young").name
    client.set_registered_model_alias(young, "challenger", client.create_model_version(young, source).version)
    try:
        with pytest.raises(InvalidInput, match=r"has no champion .* name one, its challenger: publish\.version=1\."):
            publish.publish(asked(model="young"), promoted)
    finally:
        client.delete_registered_model("young")
    assert hub.log == []


def test_the_card_attached_to_the_version_is_the_studys(promoted: Paths) -> None:
    client = MlflowClient(f"sqlite:///{promoted.root}/mlflow.db")
    source = Path(client.get_model_version("letters", "1").source.removeprefix("file://"))
    result = json.loads((source / "card" / "findings.json").read_text())
    verdict = json.loads((promoted.comparison_dir("letters") / "verdict.json").read_text())
    assert {**result["verdict"], "schema": result["schema"]} == verdict
    assert {f"figures/{f.name}" for f in (source / "card" / "figures").iterdir()} == FIGURES
    own = f"models:/{source.parent.name}"  # not an alias: this version may never become the champion
    assert f'mlflow.transformers.load_model("{own}")' in (source / "card" / "README.md").read_text()
