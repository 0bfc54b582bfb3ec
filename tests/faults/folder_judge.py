"""A child that loads one model folder after another and says what came of each, a JSON line in, one out."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pretune.errors import PretuneError
from pretune.model.model import Model
from pretune.types import Batch, Layout, add_special_tokens

TEXTS = ("the king sent word to the city", "人民法院 1 应当", "Ｆ ﷺ  ï\t😀")
STOCK = {
    "causal_lm": "AutoModelForCausalLM", "masked_lm": "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "next_sentence": "AutoModelForNextSentencePrediction",
}  # fmt: skip
"""What reads a head's folder beside pretune; what is not named is compared with the good folder only."""
TOLERANCE = 1e-4

Outputs = list[tuple[list[int], torch.Tensor]]
"""Of each text the ids, and the logits."""


def outputs(folder: Path) -> tuple[Model, Outputs]:
    """What pretune makes of the texts."""
    model = Model.load(folder)
    if model.family.TRAITS.architecture == "encoder-decoder" and model.head == "classification":
        shares = [dict([(p.value, p.confidence), *p.alternatives]) for p in model.classify(TEXTS)]
        return model, [([], torch.tensor([share[label] for label in model.labels])) for share in shares]
    return model, [_said(model, text) for text in TEXTS]


def _said(model: Model, text: str) -> tuple[list[int], torch.Tensor]:
    specials = model.tokenizer.specials
    room = model.max_length - len(add_special_tokens(specials, ((),))[0])  # cut where stock cuts
    tokens, segments = add_special_tokens(specials, (model.tokenizer.encode(text).ids[:room],))
    row, lengths = torch.from_numpy(tokens)[None], torch.tensor([len(tokens)])
    traits, start = model.family.TRAITS, model.generation_config.decoder_start_id
    layout = Layout(
        lengths, segments=torch.from_numpy(segments)[None] if traits.has_segment_embeddings else None
    )
    if traits.architecture == "encoder-decoder" and model.head == "causal_lm":
        batch = Batch(torch.tensor([[start]]), Layout(torch.tensor([1])), positions={model.head: None},
                      source_tokens=row, source_layout=layout)  # fmt: skip
    else:
        place = 0 if traits.pooling == "first" else len(tokens) - 1
        alone = model.family.HEADS[model.head].type in ("sequence", "choice")
        batch = Batch(row, layout, positions={model.head: torch.tensor([place]) if alone else None})
    with torch.inference_mode():
        logits: torch.Tensor = model.network(batch, heads=(model.head,)).logits[model.head]
    return tokens.tolist(), logits.float()


def stock_outputs(folder: Path, model: Model) -> Outputs | None:
    """What transformers makes of the texts; None where it has no class for the head."""
    import transformers

    both = model.family.TRAITS.architecture == "encoder-decoder"
    if model.head not in STOCK or (both and model.head == "classification"):
        return None
    name = "AutoModelForSeq2SeqLM" if both else STOCK[model.head]
    network = getattr(transformers, name).from_pretrained(folder, local_files_only=True).eval()
    reader = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found: Outputs = []
    for text in TEXTS:
        ids = reader(text, return_tensors="pt", truncation=True, max_length=model.max_length)
        inputs = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}
        if both:
            inputs["decoder_input_ids"] = torch.tensor([[model.generation_config.decoder_start_id]])
        with torch.inference_mode():
            found.append((ids["input_ids"][0].tolist(), network(**inputs).logits.flatten(0, -2).float()))
    return found


def alike(a: Outputs, b: Outputs) -> bool:
    """The same ids and, but for rounding, the same logits."""
    return all(
        ids == others and x.shape == y.shape and torch.allclose(x, y, TOLERANCE, TOLERANCE, equal_nan=True)
        for (ids, x), (others, y) in zip(a, b, strict=True)
    )


def judge(folder: Path, good: Outputs) -> tuple[str, str, float]:
    """(what came of it, more of that, seconds that the processor worked for pretune)."""
    began = time.process_time()
    try:
        model, said = outputs(folder)
        seconds = time.process_time() - began
    except PretuneError as error:
        return "refused", str(error), time.process_time() - began
    except Exception as error:  # noqa: BLE001  it is what is looked for
        return "traceback", f"{type(error).__name__}: {error}"[:300], 0.0
    if model.untrained:
        return "refused", "when it is used: its head is not trained", seconds
    if alike(said, good):
        return "equal", "", seconds
    try:
        theirs = stock_outputs(folder, model)
    except Exception as error:  # noqa: BLE001  transformers raises anything
        return "stock refuses", f"{type(error).__name__}: {error}"[:300], seconds
    if theirs is None:
        return "not compared", "", seconds
    if alike(said, theirs):
        return "as stock", "", seconds
    return "differs", "from the good folder and from stock", seconds


def main() -> None:
    torch.set_num_threads(1)
    good: dict[str, Outputs] = {}
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        if asked["good"] not in good:
            good[asked["good"]] = outputs(Path(asked["good"]))[1]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        what, why, seconds = judge(Path(asked["folder"]), good[asked["good"]])
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        answer = {"what": what, "why": why, "seconds": seconds, "bytes": grown}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
