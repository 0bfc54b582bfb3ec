"""Next-token prediction: every token of a document but its first exactly once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretune.data.corpus.token_shards import write_corpus
from pretune.data.corpus.windows import Windows
from pretune.data.order import training_rng
from pretune.families import llama
from pretune.objectives.causal_lm import HEAD, Objective
from pretune.text.training import train_byte_bpe
from pretune.types import Feature, SpecialTokens

SPECIALS = SpecialTokens(vocabulary_size=100, pad_id=0, bos_id=4, eos_id=4, all_ids=(0, 4))


def test_targets_are_shifted() -> None:
    objective = Objective(llama.TRAITS, SPECIALS)
    feature = Feature(0, 0, (np.array([4, 10, 11, 12]),))
    row = objective.build(feature, training_rng(0, 0, 0)).rows[0]
    assert row.tokens.tolist() == [4, 10, 11]
    assert row.positions[HEAD].tolist() == [0, 1, 2]
    assert row.targets[HEAD].tolist() == [10, 11, 12]
    previous, target = Objective.ngram_contexts(
        feature, objective.build(feature, training_rng(0, 0, 0)), SPECIALS
    )
    assert previous.tolist() == [4, 10, 11]
    assert target.tolist() == [10, 11, 12]


def test_each_token_of_a_document_once(tmp_path: Path) -> None:
    texts = ["the king sent word " * 9, "人民法院应当依法审理案件。" * 7, "short"]
    tokenizer = train_byte_bpe(texts, 300).with_template("start")
    corpus = write_corpus(texts, tokenizer, tmp_path / "corpus")
    objective = Objective(llama.TRAITS, tokenizer.specials)
    windows = Windows.from_windowing(corpus, Objective.window_spec(tokenizer.specials, 8))
    assert int(objective.length_bounds(windows.lengths).max()) == 8
    for number in range(len(corpus)):
        mine = [windows[i] for i in range(len(windows)) if windows[i].record == number]
        scored = np.concatenate(
            [objective.build(f, training_rng(0, 0, 0)).rows[0].targets[HEAD] for f in mine]
        )
        assert scored.tolist() == [*corpus.document(number).tolist(), tokenizer.specials.eos_id]
