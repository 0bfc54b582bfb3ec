"""A way in for explanation: embeddings are replaced, layers' outputs read and overwritten, as in stock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from pretune import registry
from pretune.checkpoint import hub, weights
from pretune.families import weight_operations
from pretune.types import Batch, Layout, SpecialTokens

LENGTH, SOURCE_LENGTH = 9, 7
SPECIALS = SpecialTokens(vocabulary_size=96, pad_id=0, bos_id=1, eos_id=2)
# fp32, two layers: the order of summation differs between kernels, no more.
PARITY: Any = {"atol": 1e-4, "rtol": 1e-4}


@dataclass(frozen=True)
class Body:
    """A network without a head beside the stock one with the same weights."""

    family: ModuleType
    network: Any
    stock: Any

    @property
    def has_source(self) -> bool:
        return str(self.family.TRAITS.architecture) == "encoder-decoder"

    @property
    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(7)
        tokens = torch.randint(3, 96, (2, LENGTH), generator=generator)
        source = torch.randint(3, 96, (2, SOURCE_LENGTH), generator=generator)
        batch = Batch(tokens, Layout(torch.tensor([LENGTH, LENGTH])))
        if not self.has_source:
            return batch
        source_layout = Layout(torch.tensor([SOURCE_LENGTH, SOURCE_LENGTH]))
        return Batch(tokens, batch.layout, source_tokens=source, source_layout=source_layout)

    def run_stock(self, **options: Any) -> Any:
        batch = self.batch
        if not self.has_source:
            return self.stock(**(options or {"input_ids": batch.tokens}), output_hidden_states=True)
        inputs = options or {"input_ids": batch.source_tokens, "decoder_input_ids": batch.tokens}
        return self.stock(**inputs, output_hidden_states=True)

    @property
    def stock_layers(self) -> list[nn.Module]:
        """The stock layers in the order in which they are computed."""
        depths = {len(self.network.layers)}
        if self.has_source:
            depths = {len(self.network.encoder.layers), len(self.network.decoder.layers)}
        found = [m for m in self.stock.modules() if isinstance(m, nn.ModuleList) and len(m) in depths]
        stacks = [m for m in found if not any(m is not o and m in o.modules() for o in found)]
        return [layer for stack in stacks for layer in stack]


@contextmanager
def hooked(modules: list[nn.Module], hooks: list[Callable[..., Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, hook in zip(modules, hooks, strict=True):
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def content(output: Any) -> Tensor:
    """A layer's hidden states: the last of its streams, where it has several."""
    found: Tensor = output[-1] if isinstance(output, tuple) else output
    return found


def stock_content(output: Any) -> Tensor:
    """Stock's layers return them first, before attention weights."""
    found: Tensor = output[0] if isinstance(output, tuple | list) else output
    return found


def bodies() -> list[Any]:
    names = [(n, registry.find("families", n)) for n in registry.list_names("families")]
    return [
        pytest.param(family, model_type, id=model_type)
        for _, family in names
        for model_type in family.MODEL_TYPES
    ]


@pytest.fixture
def body(request: pytest.FixtureRequest, tmp_path: Path) -> Body:
    family, model_type = request.param
    tiny = family.tiny_config()
    head = next(iter(family.HEADS))
    if family.TRAITS.architecture == "encoder-decoder":
        known = {"model_type": model_type, "tie_word_embeddings": model_type != "mt5"}
        config = type(tiny)(
            **{**tiny.model_dump(), **{k: v for k, v in known.items() if k in type(tiny).model_fields}}
        )
    else:
        config = family.Config.from_hugging_face({**tiny.to_hugging_face(head), "model_type": model_type})
    torch.manual_seed(0)
    network = family.Network(config, heads=(head,)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    operations = weight_operations(family, config, (head,))
    hub.write_model(
        tmp_path, config.to_hugging_face(head, specials=SPECIALS), weights.export_weights(network, operations)
    )
    return Body(family, network, transformers.AutoModel.from_pretrained(tmp_path).eval())


each = pytest.mark.parametrize(
    "body", [one.values for one in bodies()], ids=[str(one.id) for one in bodies()], indirect=True
)


@each
@torch.no_grad()
def test_a_tensor_stands_in_for_the_embedding(body: Body) -> None:
    generator = torch.Generator().manual_seed(3)
    width = body.network.config.hidden_size
    by_length = {n: torch.randn(2, n, width, generator=generator) for n in (LENGTH, SOURCE_LENGTH)}

    def replace(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return by_length[inputs[0].shape[1]]

    before = body.network(body.batch, heads=()).hidden
    with hooked([body.network.embed], [replace]):
        ours = body.network(body.batch, heads=()).hidden
    assert (ours - before).abs().max() > 0.1
    options = {"inputs_embeds": by_length[LENGTH]}
    if body.has_source:
        # Marian's encoder takes them scaled, its decoder scales them.
        scale = body.stock.get_encoder().embed_scale if body.stock.config.model_type == "marian" else 1.0
        options = {
            "inputs_embeds": by_length[SOURCE_LENGTH] * scale,
            "decoder_inputs_embeds": by_length[LENGTH],
        }
    torch.testing.assert_close(ours, body.run_stock(**options).last_hidden_state, **PARITY)


@each
@torch.no_grad()
def test_each_layer_is_read(body: Body) -> None:
    read: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        read.append(content(output))

    layers = list(body.network.layers)
    with hooked(layers, [keep] * len(layers)):
        hidden = body.network(body.batch, heads=()).hidden
    theirs: list[Tensor] = []

    def keep_stock(module: nn.Module, inputs: Any, output: Any) -> None:
        values = stock_content(output)
        is_time_first = values.shape[0] == LENGTH  # XLNet's are (T, B, D)
        theirs.append(values.transpose(0, 1) if is_time_first else values)

    with hooked(body.stock_layers, [keep_stock] * len(layers)):
        outputs = body.run_stock()
    assert len(read) == len(theirs) == len(layers)
    for ours, expected in zip(read, theirs, strict=True):
        torch.testing.assert_close(ours, expected, **PARITY)
    torch.testing.assert_close(hidden, outputs.last_hidden_state, **PARITY)
    named = outputs.decoder_hidden_states if body.has_source else outputs.hidden_states
    torch.testing.assert_close(read[-2], named[-2], **PARITY)


@each
@torch.no_grad()
def test_each_layer_is_overwritten(body: Body) -> None:
    before = body.network(body.batch, heads=()).hidden

    def change(values: Tensor) -> Tensor:
        return values.flip(-1) * 0.5

    def ours_hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        changed = change(content(output))
        return (*output[:-1], changed) if isinstance(output, tuple) else changed

    def stock_hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        changed = change(stock_content(output))
        return (changed, *output[1:]) if isinstance(output, tuple | list) else changed

    for layer, stock_layer in zip(body.network.layers, body.stock_layers, strict=True):
        with hooked([layer], [ours_hook]):
            ours = body.network(body.batch, heads=()).hidden
        with hooked([stock_layer], [stock_hook]):
            theirs = body.run_stock().last_hidden_state
        assert (ours - before).abs().max() > 0.05
        torch.testing.assert_close(ours, theirs, **PARITY)


@pytest.mark.parametrize(("family", "model_type"), bodies())
def test_the_last_norm_has_one_name(family: ModuleType, model_type: str) -> None:
    network = family.Network(family.tiny_config(), heads=())
    assert isinstance(network.norm, nn.Module)
    assert isinstance(network.heads, nn.ModuleDict)
