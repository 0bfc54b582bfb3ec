"""What data cost: building batches beside a step, tokenising beside the tokenizers library."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks import text
from benchmarks.measure import Options, child, ratios, spread

ABOUT = "batches as a share of a step (under 0.01); tokenising beside encode_batch (to reach 0.9)"
NEEDS = "DATA for the English text of the shared sets"


def run(options: Options) -> dict[str, Any]:
    """Without workers training waits for exactly the time that batches take to build."""
    shares: dict[str, Any] = {}
    for family, frame, length in (("modernbert", "cls_sep", 128), ("llama", "start", 256)):
        made = text.text(options, frame=frame)
        settings = {"corpus": [str(made.prepared)], "family": family, "max_length": length}
        config = {"settings": settings, "seconds": options.seconds, "warm": 1.0 if options.smoke else 5.0}
        found = []
        for _ in range(options.pairs):
            built = child("arithmetic.loading", config, limit=options.limit)
            rate = child("ours.rate", config, limit=options.limit)["tokens a second"]
            found.append(built["seconds a step"] * rate / built["tokens a step"])
        shares[family] = asdict(spread(found))
        print(f"  {family}: batches take {spread(found)} of a step")
    source, label = text.source_files(options, "en")
    config = {"source": str(source), "tokenizer": str(made.tokenizer), "pairs": options.pairs,
              "characters": 200_000 if options.smoke else 20_000_000}  # fmt: skip
    rates = child("arithmetic.tokenizing", config, limit=options.limit)["bytes a second"]
    ratio = ratios(rates["ours"], rates["theirs"])
    print(f"  tokenising, ours / encode_batch: {ratio}")
    return {"text": label, "share of a step": shares, "tokenising": asdict(ratio), "bytes a second": rates}
