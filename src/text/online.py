"""Whether the Hugging Face Hub answers, asked once: its libraries would each try for half a minute."""

from functools import lru_cache

from src.errors import masked

SECONDS = 5.0  # to wait for an answer


@lru_cache
def problem() -> str | None:
    """Why the Hub cannot be asked, in words; its libraries then look into their caches only. None: it answers."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set."
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # whatever the HTTP library raises
        import datasets

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return f"{masked(constants.ENDPOINT)} does not answer ({type(error).__name__})."
    return None
