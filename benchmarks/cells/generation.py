"""Our decoding beside stock ``generate`` on one causal model: tokens, distributions, speed."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import scipy.stats
import torch
import transformers

import pretune
from benchmarks.measure import Options, child
from pretune.generation import generator
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding

PROMPTS = (
    "The capital of France is", "Once upon a time there was a king who", "Water boils at a temperature of",
    "def fibonacci(n):\n    ", "The three primary colours are", "My favourite book is",
    "In 1969, the first man", "To make bread you need", "She opened the door and",
    "The law of gravity says that", "The quick brown fox", "A short list of animals:\n1.",
    "中国的首都是", "床前明月光，", "从前有一个国王，", "人工智能是", "水在一百度时", "今天天气很好，",
    "学习编程的第一步是", "北京是一座", "他打开门，", "春天来了，", "请用一句话介绍你自己：", "一、二、三、",
)  # fmt: skip
NEW = 64
DRAWS = 2000
SETTINGS = (
    Sampling(temperature=1.0, top_k=0, top_p=1.0),
    Sampling(temperature=0.7, top_k=40, top_p=1.0),
    Sampling(temperature=1.3, top_k=0, top_p=0.8),
    Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.05),
    Sampling(temperature=0.9, top_k=50, top_p=0.9, min_p=0.02, repetition_penalty=1.3),
)


def stock_settings(sampling: Sampling) -> dict[str, Any]:
    return {
        "do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k or None,
        "top_p": sampling.top_p, "min_p": sampling.min_p or None,
        "repetition_penalty": sampling.repetition_penalty,
    }  # fmt: skip


class Pair:
    """The same model twice."""

    def __init__(self, folder: Path) -> None:
        self.ours = pretune.load(folder)
        self.stock = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.reader = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.ends = set(self.ours.generation_config.eos_ids)

    def generate(self, prompts: list[str], **settings: Any) -> list[list[int]]:
        """What stock writes behind each prompt, without the end and what follows it."""
        inputs = self.reader(prompts, return_tensors="pt", padding=len(prompts) > 1)
        found = self.stock.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :].tolist()
        ends = [next((i for i, token in enumerate(row) if token in self.ends), len(row)) for row in found]
        return [row[:end] for row, end in zip(found, ends, strict=True)]

    def alike(self, wanted: list[list[int]], got: list[list[int]]) -> dict[str, int]:
        same = sum(a == b for a, b in zip(wanted, got, strict=True))
        return {"prompts": len(wanted), "equal": same, "tokens": sum(map(len, wanted))}


def greedy(pair: Pair) -> dict[str, Any]:
    settings = {"do_sample": False, "max_new_tokens": NEW}
    decoding = Decoding(max_new_tokens=NEW, sampling=Sampling(temperature=0))
    alone = [pair.generate([prompt], **settings)[0] for prompt in PROMPTS]
    one = [list(pair.ours.generate_batch([prompt], decoding)[0][0].tokens) for prompt in PROMPTS]
    every = [list(rows[0].tokens) for rows in pair.ours.generate_batch(PROMPTS, decoding)]
    padded = pair.generate(list(PROMPTS), **settings)
    found = {
        "alone": pair.alike(alone, one), "batched, against stock alone": pair.alike(alone, every),
        "batched, against stock batched": pair.alike(padded, every),
        "stock batched, against stock alone": pair.alike(alone, padded),
    }  # fmt: skip
    return {**found, "passed": found["alone"]["equal"] == len(PROMPTS)}


def beams(pair: Pair) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for width, penalty, early in ((3, 1.0, False), (2, 0.6, True)):
        prompts = PROMPTS[:5] + PROMPTS[12:17]
        settings = {
            "num_beams": width, "length_penalty": penalty, "early_stopping": early, "do_sample": False
        }  # fmt: skip
        decoding = Decoding(
            max_new_tokens=20, num_beams=width, length_penalty=penalty, early_stopping=early,
            sampling=Sampling(temperature=0),
        )  # fmt: skip
        wanted = [pair.generate([prompt], max_new_tokens=20, **settings)[0] for prompt in prompts]
        got = [list(rows[0].tokens) for rows in pair.ours.generate_batch(prompts, decoding)]
        found[f"{width} beams, penalty {penalty}, early {early}"] = pair.alike(wanted, got)
    return {**found, "passed": all(part["equal"] == part["prompts"] for part in found.values())}


def draws(pair: Pair) -> dict[str, Any]:
    """Our draws of a next token against stock's probabilities, and against draws from these (chi-square)."""
    found: dict[str, Any] = {}
    generator.MAX_BATCH_SIZE = 250
    torch.manual_seed(0)
    for prompt in (PROMPTS[1], PROMPTS[5], PROMPTS[12], PROMPTS[16]):
        for sampling in SETTINGS:
            inputs = pair.reader(prompt, return_tensors="pt")
            said = pair.stock.generate(
                **inputs, **stock_settings(sampling), max_new_tokens=1, output_scores=True,
                return_dict_in_generate=True,
            )  # fmt: skip
            share = said.scores[0][0].double().softmax(-1)
            stock = Counter(torch.multinomial(share, DRAWS, replacement=True).tolist())
            decoding = Decoding(max_new_tokens=1, num_return_sequences=DRAWS, sampling=sampling)
            drawn = [one.tokens for one in pair.ours.generate_batch([prompt], decoding)[0]]
            ours = Counter(
                tokens[0] if tokens else pair.ours.generation_config.eos_ids[0] for tokens in drawn
            )
            name = f"{prompt} {sampling.model_dump(exclude_defaults=True)}"
            found[name] = {"tokens": len(ours), "fit": fit(share, ours), "two samples": same(stock, ours)}
    values = [part[test] for part in found.values() for test in ("fit", "two samples")]
    return {**found, "smallest p": min(values), "passed": min(values) > 0.01 / len(values)}


def fit(share: torch.Tensor, counts: Counter[Any]) -> float:
    """The p of a chi-square test of counts; tokens that are expected less than five times are one."""
    frequent = torch.nonzero(share * DRAWS >= 5)[:, 0].tolist()
    expected = [float(share[token]) * DRAWS for token in frequent]
    observed = [counts[token] for token in frequent]
    impossible = sum(count for token, count in counts.items() if share[token] == 0)
    if impossible:
        return 0.0
    if DRAWS - sum(expected) > 1e-6:
        expected.append(DRAWS - sum(expected))
        observed.append(DRAWS - sum(observed))
    return 1.0 if len(expected) < 2 else float(scipy.stats.chisquare(observed, expected).pvalue)


def same(a: Counter[Any], b: Counter[Any]) -> float:
    """The p of the two-sample chi-square test; tokens seen less than ten times in all are one."""
    frequent = [key for key in a | b if a[key] + b[key] >= 10]
    table = [[counts[key] for key in frequent] for counts in (a, b)]
    for row, counts in zip(table, (a, b), strict=True):
        row.append(counts.total() - sum(row))
    if not any(row[-1] for row in table):
        table = [row[:-1] for row in table]
    return 1.0 if len(table[0]) < 2 else float(scipy.stats.chi2_contingency(table).pvalue)


def speed(pair: Pair, pairs: int = 10, new: int = 24) -> dict[str, Any]:
    """Tokens a second, batch 1, in interleaved pairs; and what reading the weights allows."""
    inputs = pair.reader(PROMPTS[1], return_tensors="pt")

    def stock(**settings: Any) -> None:
        pair.stock.generate(**inputs, **settings, max_new_tokens=new, min_new_tokens=new)

    def ours(sampling: Sampling) -> None:
        decoding = Decoding(max_new_tokens=new, min_new_tokens=new, sampling=sampling)
        pair.ours.generate_batch([PROMPTS[1]], decoding)

    drawn = Sampling(temperature=0.8, top_k=50, top_p=0.95)
    sides: dict[str, Callable[[], None]] = {
        "ours, greedy": lambda: ours(Sampling(temperature=0)),
        "stock, greedy": lambda: stock(do_sample=False),
        "ours, drawn": lambda: ours(drawn),
        "stock, drawn": lambda: stock(**stock_settings(drawn)),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    rates = {name: new / statistics.median(taken) for name, taken in times.items()}
    ratios = {
        kind: statistics.median(
            b / a for a, b in zip(times[f"ours, {kind}"], times[f"stock, {kind}"], strict=True)
        )
        for kind in ("greedy", "drawn")
    }
    weights = sum(p.numel() * p.element_size() for p in pair.ours.network.parameters())
    limit = bandwidth() / weights
    return {
        "threads": torch.get_num_threads(), "tokens a second": rates, "ours / stock": ratios,
        "weights can be read, times a second": limit, "share of that": rates["ours, greedy"] / limit,
    }  # fmt: skip


def bandwidth() -> float:
    """Bytes a second that a matrix-vector product reads, the best of several."""
    matrix, vector = torch.randn(16384, 8192), torch.randn(8192)
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        torch.mv(matrix, vector)
        best = max(best, matrix.nbytes / (time.perf_counter() - began))
    return best


PARTS: dict[str, Callable[[Pair], dict[str, Any]]] = {
    "greedy": greedy, "beams": beams, "draws": draws, "speed": speed
}  # fmt: skip


def measured(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that a config names, in a process of their own."""
    transformers.utils.logging.set_verbosity_error()
    torch.set_flush_denormal(True)
    pair = Pair(Path(config["model"]))
    return {name: PARTS[name](pair) for name in config["parts"]}


SIDES = {"measured": measured}
ABOUT = "tokens, distributions and speed of our decoding beside stock generate, on SmolLM2-135M-Instruct"
NEEDS = "MODELS with SmolLM2-135M-Instruct"


def run(options: Options) -> dict[str, Any]:
    """All parts; the smoke run makes greedy texts only."""
    model = options.models / "SmolLM2-135M-Instruct"
    if not (model / "config.json").exists():
        raise RuntimeError(f"{model}: no model there; give MODELS=folder that holds SmolLM2-135M-Instruct")
    config = {"model": str(model), "parts": ["greedy"] if options.smoke else list(PARTS)}
    found = child(
        "cells.generation.measured", config, limit=max(3600.0, options.limit), log=options.out / "log"
    )
    for name, part in found.items():
        if isinstance(part, dict):
            verdict = {True: "passed", False: "FAILED", None: ""}[
                part.get("passed")
            ]  # a speed passes nothing
            print(f"  {name}: {verdict}{part.get('ours / stock', '')}")
    return {"model": model.name, "parts": found}
