"""Sending a folder to the Hugging Face Hub. The token comes from the environment or the login, and is never shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.core.errors import InvalidInput, first_line, mask_secrets

DELETE_PATTERNS = (
    "figures/*",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "base.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
)
"""Files of an earlier version that are deleted from the repository."""


@dataclass(frozen=True)
class PublishedCommit:
    """The commit that was made."""

    url: str
    commit: str


def check_repo_name(repo: str) -> None:
    """Raise InvalidInput if `repo` is not <owner>/<name>."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        bad = "" if repo.count("/") == 1 else "it has no owner"
    except HFValidationError as error:
        bad = first_line(error)
    if bad:
        raise InvalidInput(
            f"repo is {repo!r}; it is <owner>/<name> on the Hub, such as repo=me/starter-minilm ({bad})."
        )


def list_files(folder: Path) -> Sequence[tuple[str, int]]:
    """The files that would be uploaded: paths in the repository, and their bytes."""
    return [(str(f.relative_to(folder)), f.stat().st_size) for f in sorted(folder.rglob("*")) if f.is_file()]


def upload(folder: Path, repo: str, private: bool, message: str) -> PublishedCommit:
    """Commit everything in `folder` to the repository, which is created if need be.

    Files that are there already are not sent again, so a second call completes an interrupted one.

    Raises:
        InvalidInput: the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi, constants, get_token

    if constants.is_offline_mode():
        raise InvalidInput("HF_HUB_OFFLINE is set, so nothing can be published; unset it, or use publish.dry_run=true.")
    token = get_token()
    if token is None:
        raise InvalidInput(
            "There is no token to publish with. Put one that may write into HF_TOKEN, or log in once: hf auth login. "
            "Without one, publish.dry_run=true lists what would go."
        )
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        _check_privacy(api, repo, private)
        done = api.upload_folder(
            folder_path=folder, repo_id=repo, commit_message=message, delete_patterns=list(DELETE_PATTERNS)
        )
    except InvalidInput:
        raise
    # the client raises its HTTP library's errors, and RuntimeError for an interrupted upload
    except Exception as error:
        raise InvalidInput(_explain(error, repo, mask_secrets(api.endpoint)).replace(token, "***")) from None
    return PublishedCommit(mask_secrets(str(url)), str(done.oid))


def _check_privacy(api: Any, repo: str, private: bool) -> None:
    if private and api.model_info(repo).private is False:
        raise InvalidInput(
            f"The repository {repo} is there already, and public. To publish into it, say publish.private=false; "
            "otherwise choose another repo."
        )


def _explain(error: Exception, repo: str, endpoint: str) -> str:
    """An error of the Hub or of the connection, and what to do."""
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
    cause_text = first_line(cause if isinstance(cause, Exception) else error).rstrip(".")
    return (
        f"Publishing to {repo} at {endpoint} broke off: {cause_text}. What has arrived is kept there; the same "
        "command sends the rest."
    )
