"""Names that earlier versions of Trialbook stored in a study's config, and what they are called now."""

MODULES = {
    "src.text": "src.data",  # data.path=pkg://src.text/starter
    "src.search.halving": "src.search.asha",  # pruner._target_
}


def current_name(name: str) -> str:
    """The present dotted name for one that may be old."""
    for old, new in MODULES.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name
