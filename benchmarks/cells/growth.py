"""What a token costs as the text grows: preparation and thirty steps."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import text
from benchmarks.measure import Options, child

ABOUT = "seconds a token and peak memory from 1 MB to 1 GB of text (prepare + 30 steps); to stay flat"
NEEDS = "4 GB of disk and an hour; DATA for the English text of the shared sets"
MEGABYTES = (1, 10, 100, 1000)


def run(options: Options) -> dict[str, Any]:
    """One run a size; each cell has its time limit, and what passes it ends the series, said so."""
    made = text.text(options)
    source, label = text.source_files(options, "en")
    rows: list[dict[str, Any]] = []
    for size in MEGABYTES[:1] if options.smoke else MEGABYTES:
        corpus = options.scratch / f"grown-{size}.jsonl"
        grow(source, corpus, size * 1_000_000)
        config = {"corpus": str(corpus), "tokenizer": str(made.tokenizer), "scratch": str(options.scratch)}
        try:
            rows.append({"megabytes": size} | child(
                "ours.prepared", config, limit=max(options.limit, 4.0 * size), log=options.out / f"{size}.log"
            ))  # fmt: skip
        except RuntimeError as error:
            rows.append({"megabytes": size, "failed": str(error)[:500]})
            break
        finally:
            corpus.unlink(missing_ok=True)
        print(f"  {size} MB: {rows[-1]['microseconds a token']:.1f} us a token, "
              f"{rows[-1]['peak bytes'] / 1e6:,.0f} MB", flush=True)  # fmt: skip
    return {"text": f"{label}, repeated with changes", "rows": rows}


def grow(source: Path, target: Path, size: int) -> None:
    """Documents of ``source`` over and over, numbered, their words turned round by the turn."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("w", encoding="utf-8") as out:
        for turn in count():
            with source.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    words = json.loads(line)["text"].split(" ")
                    shift = turn % max(1, len(words))
                    changed = " ".join([*words[shift:], *words[:shift]])
                    row = json.dumps({"text": f"{turn}.{number} {changed}"}, ensure_ascii=False) + "\n"
                    out.write(row)
                    written += len(row.encode())
                    if written >= size:
                        return
