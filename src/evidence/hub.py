"""Sending a folder to the Hugging Face Hub. The token comes from the environment or the login, and is never shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import Refusal, first_line, masked

OURS = ("figures/*", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.*", "merges.txt", "*.model")
"""What an earlier version may have left in the repository, and goes with it."""


@dataclass(frozen=True)
class Sent:
    """Where it is now."""

    url: str
    commit: str


def check_name(repo: str) -> None:
    """Raises Refusal if `repo` is no <owner>/<name>."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        bad = "" if repo.count("/") == 1 else "it has no owner"
    except HFValidationError as error:
        bad = first_line(error)
    if bad:
        raise Refusal(f"repo is {repo!r}; it is <owner>/<name> on the Hub, such as repo=me/starter-minilm ({bad}).")


def files(folder: Path) -> Sequence[tuple[str, int]]:
    """What would go: paths in the repository, and bytes."""
    return [(str(f.relative_to(folder)), f.stat().st_size) for f in sorted(folder.rglob("*")) if f.is_file()]


def send(folder: Path, repo: str, private: bool, message: str) -> Sent:
    """Make the repository if need be, and commit everything in `folder` to it.

    Files that are there already are not sent again, so a second call completes one that broke off. Raises Refusal.
    """
    from huggingface_hub import HfApi, constants, get_token

    if constants.is_offline_mode():
        raise Refusal("HF_HUB_OFFLINE is set, so nothing can be published; unset it, or use publish.dry_run=true.")
    token = get_token()
    if token is None:
        raise Refusal(
            "There is no token to publish with. Put one that may write into HF_TOKEN, or log in once: hf auth login. "
            "Without one, publish.dry_run=true lists what would go."
        )
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        _check_privacy(api, repo, private)
        done = api.upload_folder(folder_path=folder, repo_id=repo, commit_message=message, delete_patterns=list(OURS))
    except Refusal:
        raise
    except Exception as error:  # the client raises what its HTTP library raises, and RuntimeError for a broken upload
        raise Refusal(_why(error, repo, masked(api.endpoint)).replace(token, "***")) from None
    return Sent(masked(str(url)), str(done.oid))


def _check_privacy(api: Any, repo: str, private: bool) -> None:
    if private and api.model_info(repo).private is False:
        raise Refusal(
            f"The repository {repo} is there already, and public. To publish into it, say publish.private=false; "
            "otherwise choose another repo."
        )


def _why(error: Exception, repo: str, endpoint: str) -> str:
    """An error of the Hub or on the way to it, and what to do."""
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == 401:
        return (
            f"The Hub at {endpoint} refused the token (HF_TOKEN, or the login's): it is not valid, or not any more. "
            "Nothing was published. Make a new one that may write, and log in again: hf auth login."
        )
    if status == 403:
        return (
            f"The token (HF_TOKEN, or the login's) may not write to {repo} at {endpoint}. Nothing was published. Use "
            f"one that may, or a repository of your own. The Hub says: {first_line(error)}"
        )
    said = first_line(cause if isinstance(cause, Exception) else error).rstrip(".")
    return (
        f"Publishing to {repo} at {endpoint} broke off: {said}. What has arrived is kept there; the same command sends "
        "the rest."
    )
