"""A tokenizer that cuts long texts by itself. This file is saved with every logged model: it needs transformers only.

A text-classification pipeline cuts texts only if each call says truncation=True. MLflow keeps that argument for its
pyfunc flavor, not for mlflow.transformers.load_model: that pipeline would read more of a text than was judged, or fail.
"""

from typing import Any

from transformers import PreTrainedTokenizerFast


class TruncatingTokenizer(PreTrainedTokenizerFast):
    """Any fast tokenizer; texts are cut at `model_max_length` tokens unless a call says otherwise."""

    def __call__(self, *args: Any, truncation: Any = None, **kwargs: Any) -> Any:
        """Encode texts, as PreTrainedTokenizerFast does, with truncation=True by default."""
        return super().__call__(*args, truncation=True if truncation is None else truncation, **kwargs)


TruncatingTokenizer.register_for_auto_class("AutoTokenizer")
