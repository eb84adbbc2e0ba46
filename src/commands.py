"""What all commands share: how a refusal or an early end reaches the person, and the exit code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from src.errors import Refusal, StudyEnded


@contextmanager
def answered() -> Iterator[None]:
    """A refusal is printed and exits 2, a study that ended early exits 1; traces only with HYDRA_FULL_ERROR=1."""
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped. Everything trained so far is kept; the same command continues it.", file=sys.stderr)
        raise SystemExit(130) from None
    except (Refusal, StudyEnded) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stdout.flush()
        print(f"\n{error}" if isinstance(error, StudyEnded) else str(error), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, Refusal) else 1) from None
