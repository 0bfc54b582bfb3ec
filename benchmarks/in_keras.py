"""Do folders that pretune writes load in KerasHub, on TensorFlow, and say the same there?

Two steps, as TensorFlow is no dependency of ours: the first in pretune's environment, the second in one that
has ``tensorflow-cpu`` and ``keras-hub``; it imports nothing of ours::

    python -m benchmarks.in_keras OUT           # writes a model of each family, tokens, and what stock says
    python benchmarks.in_keras.py OUT           # reads them in KerasHub, and compares
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = {"bert": "next_sentence", **dict.fromkeys(("gpt2", "llama", "t5", "bart"), "causal_lm")}
FORMS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_act": "gelu_new"},  # KerasHub's BERT knows no other
    "llama": {"model_type": "llama"},
}
TEXTS = ("The king sent word to the city.", "人民法院应当依法审理案件。The end.")
TOLERANCE = 1e-3
"""Of numbers of order one to ten, in fp32: two programs add up in other orders."""


def write(out: Path) -> None:
    """A model of each family, away from its first values, and what stock transformers makes of texts."""
    import torch
    import transformers

    from pretune.model.model import Model
    from pretune.text.tokenizer import template_for
    from pretune.text.training import train_tokenizer

    trained = train_tokenizer(TEXTS * 50, 300)
    for family, head in FAMILIES.items():
        torch.manual_seed(0)
        model = Model.create(family, FORMS.get(family, {}), trained, head, max_length=64, seed=0)
        traits = model.family.TRAITS
        model.tokenizer = trained.with_template(template_for(traits), segments=traits.has_segment_embeddings)
        with torch.no_grad():
            for name, parameter in model.network.named_parameters():
                if name != "heads.causal_lm.decoder.bias":  # BART's, which KerasHub leaves out
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        folder = model.save(out / family)
        reader = transformers.AutoTokenizer.from_pretrained(folder)
        inputs = reader(list(TEXTS), return_tensors="pt", padding=True, padding_side="right")
        found = {"tokens": inputs["input_ids"], "mask": inputs["attention_mask"]}
        with torch.no_grad():
            if family == "bert":
                stock: Any = transformers.BertModel.from_pretrained(folder)
                found["said"] = stock(**inputs).last_hidden_state
            elif traits.architecture == "decoder":
                stock = transformers.AutoModelForCausalLM.from_pretrained(folder)
                found["said"] = stock(found["tokens"], attention_mask=found["mask"]).logits
            else:
                stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
                found["said"] = stock(
                    input_ids=found["tokens"], attention_mask=found["mask"], decoder_input_ids=found["tokens"]
                ).logits
        np.savez(out / f"{family}.npz", **{name: tensor.numpy() for name, tensor in found.items()})
        print(f"{family}: {model.num_parameters:,} parameters, written")


def compare(out: Path) -> dict[str, str]:
    """What KerasHub makes of each folder: the largest difference at real places, or what it said."""
    found = {}
    for family in FAMILIES:
        told = np.load(out / f"{family}.npz")
        try:
            said = in_keras(family, str(out / family), told["tokens"].astype("int32"), told["mask"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found[family] = f"{type(error).__name__}: {str(error)[:300]}"
            continue
        real = told["mask"].astype(bool)
        difference = float(np.abs(said[real] - told["said"][real]).max())
        verdict = "equal" if difference < TOLERANCE else "DIFFERENT"
        largest = np.abs(told["said"]).max()
        found[family] = f"{verdict}: largest difference {difference:.1e}, of numbers up to {largest:.1f}"
    return found


def in_keras(family: str, folder: str, tokens: Any, mask: Any) -> Any:
    """(B, T, V) logits of KerasHub's model, or (B, T, D) hidden states of its BERT."""
    import keras_hub

    models = keras_hub.models
    if family == "bert":
        network = models.Backbone.from_preset(folder)
        inputs = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": mask}
        return np.asarray(network.predict(inputs, verbose=0)["sequence_output"])
    if family in ("gpt2", "llama"):
        network = models.CausalLM.from_preset(folder, preprocessor=None)
        inputs = {"token_ids": tokens, "padding_mask": mask}
    else:
        network = models.Seq2SeqLM.from_preset(folder, preprocessor=None)
        inputs = {f"{side}_token_ids": tokens for side in ("encoder", "decoder")}
        inputs |= {f"{side}_padding_mask": mask for side in ("encoder", "decoder")}
    return np.asarray(network.predict(inputs, verbose=0))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if __package__:  # started with -m, in pretune's environment
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
    else:
        print(json.dumps(compare(folder), indent=1, ensure_ascii=False))
