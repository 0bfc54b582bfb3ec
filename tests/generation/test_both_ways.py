"""A decoder trained by prefix_lm reads its prompt both ways, and what it writes from left to right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretune.errors import UsageError
from pretune.generation.decoder_state import HEAD, DecoderState, Prompt
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding
from pretune.model.model import Model
from pretune.registry import find, list_names
from pretune.types import Batch, Layout

GREEDY = Sampling(temperature=0)
DECODERS = [
    name for name in list_names("families") if find("families", name).TRAITS.architecture == "decoder"
]


@pytest.fixture(params=DECODERS)
def network(request: Any) -> nn.Module:
    family: ModuleType = find("families", request.param)
    torch.manual_seed(0)
    made: nn.Module = family.Network(family.tiny_config(), heads=(HEAD,)).eval()
    with torch.no_grad():  # at first values, places hardly heed each other
        for weight in made.parameters():
            weight.mul_(8 if weight.ndim > 1 else 1)
    return made


@torch.inference_mode()
def whole(network: nn.Module, text: Sequence[int], prefix: int) -> Tensor:
    """Logits (V,) of the token after a text, read alone in one pass as the objective lays it out."""
    layout = Layout(torch.tensor([len(text)]), prefix_lengths=torch.tensor([prefix]))
    batch = Batch(torch.tensor([text]), layout, positions={HEAD: torch.tensor([len(text) - 1])})
    logits: Tensor = network(batch, heads=(HEAD,)).logits[HEAD]
    return logits[0]


@pytest.mark.parametrize("caching", [True, False])
def test_each_token_is_told_as_in_one_pass_over_the_whole_row(network: nn.Module, caching: bool) -> None:
    prompts = [[7, 3, 9, 4, 8, 5, 6], [5, 8], [6]]
    asked = [Prompt(tokens, bidirectional=True) for tokens in prompts]
    with torch.inference_mode():
        reader = DecoderState(network, asked, max_length=40, use_cache=caching)
        logits = reader.prefill()
        for step in range(6):
            for row, text in enumerate(reader.texts):
                expected = whole(network, text, len(prompts[row]))
                torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)
            if step == 2:
                reader.select([2, 0, 0])
                prompts = [prompts[2], prompts[0], prompts[0]]
                logits = logits[[2, 0, 0]]
            logits = reader.append([10 + step, 20 + step, 30 + step])
    one_way = whole(network, prompts[1], 0) - whole(network, prompts[1], len(prompts[1]))
    assert one_way.abs().max() > 1e-2, "reading both ways makes a difference"


@pytest.mark.parametrize("caching", [True, False])
def test_what_is_read_anew_of_a_long_text_is_read_both_ways(network: nn.Module, caching: bool) -> None:
    """A row that outgrows what the network reads; the other keeps the prefix that it has."""
    asked = [
        Prompt([7, 3, 9, 4, 8], bidirectional=True),
        Prompt([5, 8], bidirectional=True),
        Prompt([5, 8, 6]),
    ]
    with torch.inference_mode():
        reader = DecoderState(network, asked, max_length=8, use_cache=caching)
        reader.prefill()
        for token in (11, 12, 13, 14):
            logits = reader.append([token, token, token])
    torch.testing.assert_close(
        logits[0], whole(network, reader.texts[0][-4:], 4), rtol=1e-4, atol=1e-5
    )  # fmt: skip
    torch.testing.assert_close(logits[1], whole(network, reader.texts[1], 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[2], whole(network, reader.texts[2], 0), rtol=1e-4, atol=1e-5)


def trained_both_ways(model: Model) -> Model:
    about = {**model.metadata, "objective": "prefix_lm"}
    return Model(
        model.family, model.config, model.network, model.tokenizer, model.head, metadata=about,
        generation_config=model.generation_config,
    )  # fmt: skip


@torch.inference_mode()
def written_by_stock(stock: Any, prompt: list[int], ends: Sequence[int]) -> Iterator[int]:
    """Stock's likeliest tokens, the whole text read anew for each with a mask made by hand."""
    text = list(prompt)
    for _ in range(24):
        size = len(text)
        seen = torch.ones(size, size, dtype=torch.bool).tril()
        seen[: len(prompt), : len(prompt)] = True
        mask = torch.zeros(1, 1, size, size).masked_fill(~seen, torch.finfo(torch.float32).min)
        token = int(stock(input_ids=torch.tensor([text]), attention_mask=mask).logits[0, -1].argmax())
        if token in ends:
            return
        text.append(token)
        yield token


def test_a_text_is_that_of_stock_under_the_same_mask(pair: Any) -> None:
    model, prompts = trained_both_ways(pair.ours), pair.prompts[::3]
    wanted = [
        list(written_by_stock(pair.stock, pair.reader(prompt)["input_ids"], model.generation_config.eos_ids))
        for prompt in prompts
    ]

    def ids(**settings: Any) -> list[list[int]]:
        decoding = Decoding(max_new_tokens=24, sampling=GREEDY, **settings)
        return [list(said[0].tokens) for said in model.generate_batch(prompts, decoding)]

    assert ids() == wanted
    assert ids(use_cache=False) == wanted
    left_to_right = [
        list(said[0].tokens)
        for said in pair.ours.generate_batch(prompts, Decoding(max_new_tokens=24, sampling=GREEDY))
    ]
    assert ids(bidirectional_prompt=False) == left_to_right
    assert left_to_right != wanted


def test_beams_begin_with_what_is_read_both_ways(pair: Any) -> None:
    """The score of a beam that is as long as it may be is its log-probability under the same mask."""
    model, prompt = trained_both_ways(pair.ours), pair.prompts[2]
    decoding = Decoding(max_new_tokens=6, num_beams=4, num_return_sequences=4, length_penalty=0.0)
    read = list(model._build_decoder().build_prompt(prompt).tokens)
    for said in model.generate_batch([prompt], decoding)[0]:
        logs = [
            whole(model.network, [*read, *said.tokens[:count]], len(read)).log_softmax(-1)
            for count in range(len(said.tokens) + 1)
        ]
        total = sum(float(log[token]) for log, token in zip(logs, said.tokens, strict=False))
        ended = [total + float(logs[-1][end]) for end in model.generation_config.eos_ids]
        possible = ended if said.finish_reason == "end" else [total]
        assert any(said.score == pytest.approx(value, rel=1e-4) for value in possible)


def test_an_encoder_decoder_is_not_told_how_to_read(pair: Any) -> None:
    family = find("families", "t5")
    settings = family.tiny_config().model_copy(update={"vocab_size": 512})
    network = family.Network(settings, heads=(HEAD,)).eval()
    about = {"objective": "prefix_lm"}
    model = Model(family, settings, network, pair.ours.tokenizer, HEAD, metadata=about)
    assert model.generate_batch(["渔夫"], Decoding(max_new_tokens=2, sampling=GREEDY))
    with pytest.raises(UsageError, match="bidirectional_prompt = False: an encoder-decoder always reads"):
        model.generate_batch(
            ["渔夫"], Decoding(max_new_tokens=2, sampling=GREEDY, bidirectional_prompt=False)
        )
