"""A logged adapter as an MLflow model. This file is saved with it: it needs mlflow, transformers and peft only.

The adapter's folder names the pretrained weights that it belongs to (base.json): where they were on the machine that
trained it, or else a repository of the Hub and its commit.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline


class AdapterClassifier(PythonModel):
    """Answers texts with a label and its probability, as a logged pipeline of transformers does.

    Where texts can have several labels, there is a column for each label with its probability.
    """

    classify: Any
    several: bool

    def load_context(self, context: Any) -> None:
        """Load the base, and merge the adapter into it."""
        folder = context.artifacts["adapter"]
        base = json.loads((Path(folder) / "base.json").read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(
            **_place(base), config=config, ignore_mismatched_sizes=True, use_safetensors=True
        )
        merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
        self.classify = pipeline("text-classification", model=merged, tokenizer=AutoTokenizer.from_pretrained(folder))
        self.several = config.problem_type == "multi_label_classification"

    # MLflow takes type hints for a signature, and warns of those that it cannot read
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """A frame of answers. `model_input`: texts, or a frame of them (of pairs, text and text_pair)."""
        if isinstance(model_input, pd.DataFrame) and "text_pair" in model_input:
            texts = model_input[["text", "text_pair"]].to_dict("records")
        else:
            texts = list(model_input.iloc[:, 0] if isinstance(model_input, pd.DataFrame) else model_input)
        if not self.several:
            return pd.DataFrame(self.classify(texts, truncation=True))
        answers = self.classify(texts, truncation=True, top_k=None)
        return pd.DataFrame([{each["label"]: each["score"] for each in answer} for answer in answers])


def _place(base: dict[str, Any]) -> dict[str, Any]:
    """Where the base is: in the folder where it was, if it has the same weights still, or on the Hub."""
    files = sorted(Path(base["folder"]).glob("*.safetensors")) if base["folder"] else []
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    if files and digest.hexdigest().startswith(base["fingerprint"]):
        return {"pretrained_model_name_or_path": base["folder"]}
    return {"pretrained_model_name_or_path": base["checkpoint"], "revision": base["revision"]}


set_model(AdapterClassifier())
