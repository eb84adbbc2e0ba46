"""Checks once whether the Hugging Face Hub answers: each of its libraries would try for half a minute."""

from functools import lru_cache

from src.core.errors import mask_secrets

TIMEOUT_SECONDS = 5.0  # to wait for an answer


@lru_cache
def why_unreachable() -> str | None:
    """Why the Hub cannot be reached; None if it can. If it cannot, its libraries are told to use their caches only."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set."
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # any error of the HTTP library
        import datasets

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return f"{mask_secrets(constants.ENDPOINT)} does not answer ({type(error).__name__})."
    return None
