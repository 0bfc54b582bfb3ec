"""Published checkpoints: hidden states, texts and perplexity beside stock, one text at a time."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import pretune
from benchmarks.measure import Options, child
from benchmarks.text import source_files
from pretune.data.packing import collate, pack
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding
from pretune.types import Example, Row

ABOUT = "published checkpoints: hidden states, texts and perplexity equal stock transformers'"
NEEDS = "MODELS: folders in Hugging Face layout, or .gguf files; DATA for other text than the package's own"
DOCUMENTS, CHARACTERS = 24, {"en": 2500, "zh": 900}
"""Of a language, each cut so that it is one window."""
PROMPTS = (
    "The capital of France is", "Once upon a time there was a king who", "To make bread you need",
    "She opened the door and", "中国的首都是", "从前有一个国王，", "水在一百度时", "春天来了，",
)  # fmt: skip
NEW = 24
ROW = 512
"""Tokens of a row in which texts are packed for their hidden states."""
DIGITS = 1e-4
"""Relative difference of two perplexities that agree to four digits."""
CLOSE = 1e-4
"""Relative difference of hidden states, by norm, in fp32: two programs add up in other orders."""


def texts(path: str, language: str) -> list[str]:
    """The first documents of a file, cut."""
    with Path(path).open(encoding="utf-8") as lines:
        found = [json.loads(line)["text"] for line, _ in zip(lines, range(DOCUMENTS), strict=False)]
    return [text[: CHARACTERS[language]] for text in found]


def stock(path: Path, kind: Any) -> tuple[Any, Any]:
    """(network, tokenizer) as transformers reads a folder or a GGUF file."""
    folder, more = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
    network = kind.from_pretrained(folder, dtype=torch.float32, **more).eval()
    return network, transformers.AutoTokenizer.from_pretrained(folder, **more)


@torch.inference_mode()
def hidden(model: pretune.Model, network: Any, documents: list[str]) -> dict[str, Any]:
    """The last hidden states of texts packed in rows, or padded where none are, against each alone."""
    room = min(ROW, model.max_length)
    rows = [np.asarray(e.ids[:room], np.int64) for e in model.tokenizer.encode_batch(documents)]
    examples = [Example(k, (Row(ids, {}, {}),)) for k, ids in enumerate(rows)]
    packs = model.family.TRAITS.supports_packing
    groups = pack(np.array([len(ids) for ids in rows]), room) if packs else [[k] for k in range(len(rows))]
    apart = total = 0.0
    for start in range(0, len(groups), 4):
        members = groups[start : start + 4]
        batch = collate(
            [[examples[k] for k in group] for group in members],
            pad_id=model.tokenizer.specials.pad_id,
            heads=(),
        )
        found = model.network(batch).hidden  # (B, T, D)
        for line, group in enumerate(members):
            begin = 0
            for k in group:
                alone = network.base_model(input_ids=torch.from_numpy(rows[k])[None])[0][0]  # (T, D)
                ours = found[line, begin : begin + len(rows[k])]
                apart += float((ours - alone).square().sum())
                total += float(alone.square().sum())
                begin += len(rows[k])
    difference = math.sqrt(apart / total)
    return {
        "texts": len(rows),
        "rows": len(groups),
        "relative difference": difference,
        "passed": difference < CLOSE,
    }


@torch.inference_mode()
def perplexity(path: Path, network: Any, reader: Any, documents: list[str]) -> dict[str, Any]:
    """`pretune.evaluate` against a loop over texts, each framed by its start and end and read alone."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "text.jsonl"
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
        file.write_text("".join(lines), encoding="utf-8")
        ours = pretune.evaluate(path, data=file)["scores"]["perplexity"]
    nats, count = 0.0, 0
    for text in documents:
        inner = reader(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[reader.bos_token_id, *inner, reader.eos_token_id]])
        logits = network(input_ids=ids).logits[0, :-1]  # (T, V)
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(inner) + 1
    theirs = math.exp(nats / count)
    same = ours["n"] == count and abs(ours["value"] / theirs - 1) < DIGITS
    return {"ours": ours["value"], "stock": theirs, "tokens": [ours["n"], count], "passed": same}


def continued(model: pretune.Model, network: Any, reader: Any) -> dict[str, Any]:
    """Greedy texts, ours of all prompts in a batch, stock's one by one."""
    decoding = Decoding(max_new_tokens=NEW, sampling=Sampling(temperature=0))
    ours = [rows[0].text for rows in model.generate_batch(PROMPTS, decoding)]
    theirs = []
    for prompt in PROMPTS:
        inputs = reader(prompt, return_tensors="pt")
        found = network.generate(**inputs, do_sample=False, max_new_tokens=NEW)[
            0, inputs["input_ids"].shape[1] :
        ]
        theirs.append(reader.decode(found, skip_special_tokens=True))
    equal = sum(a.strip() == b.strip() for a, b in zip(ours, theirs, strict=True))
    said = dict(zip(PROMPTS, ours, strict=True))
    return {"texts": said, "equal": equal, "of": len(PROMPTS), "passed": equal == len(PROMPTS)}


def compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that a checkpoint can be asked, in a process of its own."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_flush_denormal(True)
    path = Path(config["model"])
    model = pretune.load(path)
    decoder = model.family.TRAITS.architecture == "decoder"
    network, reader = stock(path, transformers.AutoModelForCausalLM if decoder else transformers.AutoModel)
    documents = {language: texts(file, language) for language, file in config["files"].items()}
    every = [text for part in documents.values() for text in part]
    found = {
        "family": model.family.__name__.rpartition(".")[2],
        "hidden states": hidden(model, network, every),
    }
    if decoder:
        for language, part in documents.items():
            found[f"perplexity, {language}"] = perplexity(path, network, reader, part)
        found["greedy texts"] = continued(model, network, reader)
    return found


def run(options: Options) -> dict[str, Any]:
    """Every checkpoint that lies in MODELS."""
    paths = [
        p for p in sorted(options.models.glob("*")) if p.suffix == ".gguf" or (p / "config.json").exists()
    ]
    if not paths:
        raise RuntimeError(f"no checkpoint in {options.models}; give MODELS=folder")
    files = {language: source_files(options, language)[0] for language in ("en", "zh")}
    held = {k: str(test if (test := f.with_name("test.jsonl")).exists() else f) for k, f in files.items()}
    found: dict[str, Any] = {"text": source_files(options, "en")[1], "checkpoints": {}}
    for path in paths[:1] if options.smoke else paths:
        result = child("cells.checkpoints.compared", {"model": str(path), "files": held}, limit=options.limit)
        found["checkpoints"][path.name] = result
        for name, part in result.items():
            if isinstance(part, dict):
                told = {k: v for k, v in part.items() if k not in ("passed", "texts")}
                print(
                    f"  {path.name}, {name}: {'equal' if part['passed'] else 'DIFFERENT'} {told}", flush=True
                )
    return found


SIDES = {"compared": compared}
