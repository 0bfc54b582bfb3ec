"""A checkpoint's tensors from their names (transformers) to ours and back, both from one list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pretune.errors import CheckpointError

StateDict = dict[str, Tensor]

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""What weights may be stored as."""


class Operation(Protocol):
    """One step of the way; ``read`` moves tensors from theirs to ours, ``write`` back."""

    def read(self, theirs: StateDict, ours: StateDict) -> None: ...

    def write(self, theirs: StateDict, ours: StateDict) -> None: ...


@dataclass(frozen=True)
class Alias:
    """Another name under which a tensor may be found (a regular expression); never written."""

    pattern: str
    name: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for old in list(theirs):
            new = re.sub(self.pattern, self.name, old)
            if new != old:
                theirs[new] = theirs.pop(old)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        pass


@dataclass(frozen=True)
class Ignore:
    """A tensor that carries nothing we need, such as a buffer; never written."""

    theirs: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, _ in _match_template(self.theirs, theirs):
            del theirs[name]

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        pass


@dataclass(frozen=True)
class Rename:
    """One tensor under two names; ``{}`` stands for a number, ``{word}`` for a part without dots."""

    ours: str
    theirs: str

    def matches(self, theirs: Mapping[str, Tensor]) -> list[str]:
        """The names of theirs that it reads."""
        return [name for name, _ in _match_template(self.theirs, theirs)]

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, fields in _match_template(self.theirs, theirs):
            ours[_fill_template(self.ours, fields)] = theirs.pop(name)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        for name, fields in _match_template(self.ours, ours):
            theirs[_fill_template(self.theirs, fields)] = ours.pop(name)


@dataclass(frozen=True)
class RenameGroup:
    """Tensors under two names each, where all of them are there: what one is called depends on the others."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        _rename_group(self.theirs, theirs, self.ours, ours)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        _rename_group(self.ours, ours, self.theirs, theirs)


@dataclass(frozen=True)
class Transpose:
    """A matrix of ours that theirs holds transposed (GPT-2's Conv1D); stands after its `Rename`."""

    ours: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, _ in _match_template(self.ours, ours):
            if ours[name].ndim != 2:
                raise CheckpointError(f"{name}: shape {tuple(ours[name].shape)}, where a matrix belongs")
            ours[name] = ours[name].transpose(-2, -1).contiguous()

    write = read


@dataclass(frozen=True)
class Flatten:
    """What theirs holds as (..., H, K) is (..., H * K) here; stands after its `Rename`.

    ``like`` is a tensor of ours whose shape ends in H and K.
    """

    ours: str
    like: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, _ in _match_template(self.ours, ours):
            ours[name] = ours[name].flatten(-2)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        for name, fields in _match_template(self.ours, ours):
            heads = ours[_fill_template(self.like, fields)].shape[-2:]
            ours[name] = ours[name].reshape(*ours[name].shape[:-1], *heads)


@dataclass(frozen=True)
class Squeeze:
    """A vector of ours that theirs holds as a matrix of one row; stands after its `Rename`."""

    ours: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, _ in _match_template(self.ours, ours):
            ours[name] = ours[name].flatten()

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        for name, _ in _match_template(self.ours, ours):
            ours[name] = ours[name][None]


@dataclass(frozen=True)
class Split:
    """One tensor of theirs that is several of ours, equal parts along ``dim``."""

    ours: tuple[str, ...]
    theirs: str
    dim: int = 0

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, fields in _match_template(self.theirs, theirs):
            fused = theirs.pop(name)
            if fused.shape[self.dim] % len(self.ours):
                raise CheckpointError(f"{name}: {tuple(fused.shape)} is not {len(self.ours)} equal parts")
            for ours_name, piece in zip(self.ours, fused.chunk(len(self.ours), self.dim), strict=True):
                ours[_fill_template(ours_name, fields)] = piece.contiguous()

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        for _, fields in _match_template(self.ours[0], ours):
            pieces = [ours.pop(_fill_template(name, fields)) for name in self.ours]
            theirs[_fill_template(self.theirs, fields)] = torch.cat(pieces, self.dim)


@dataclass(frozen=True)
class Share:
    """One tensor of theirs that several heads of ours read through the same module."""

    ours: tuple[str, ...]
    theirs: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name, fields in _match_template(self.theirs, theirs):
            tensor = theirs.pop(name)
            ours.update((_fill_template(ours_name, fields), tensor) for ours_name in self.ours)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        for template in self.ours:
            for name, fields in _match_template(template, ours):
                theirs[_fill_template(self.theirs, fields)] = ours.pop(name)


@dataclass(frozen=True)
class Tie:
    """One tensor that theirs may hold under a second name; ``name`` is the one that they compute with."""

    name: str
    copy: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        if self.copy in theirs:
            theirs.setdefault(self.name, theirs.pop(self.copy))

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        if self.name in theirs:
            theirs[self.copy] = theirs[self.name].clone()


@dataclass(frozen=True)
class Duplicate:
    """A tensor that theirs may hold once more under another name; never written."""

    name: str
    source: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        duplicate = theirs.pop(self.name, None)
        if (
            duplicate is not None
            and self.source in theirs
            and not torch.equal(duplicate, theirs[self.source])
        ):
            raise CheckpointError(f"{self.name} differs from {self.source}, and the family has one for both")
        if duplicate is not None:
            theirs.setdefault(self.source, duplicate)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        pass


def _identity(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Default:
    """A tensor that theirs may leave out, and what it then is, made of one that they have."""

    name: str
    source: str
    make: Callable[[Tensor], Tensor] = _identity

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        if self.source in theirs and self.name not in theirs:
            theirs[self.name] = self.make(theirs[self.source])

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        pass


@dataclass(frozen=True)
class OtherPrefix:
    """The beginning of the body's names in theirs, where one class has another than the others."""

    usual: str
    own: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        _replace_prefix(theirs, self.own, self.usual)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        _replace_prefix(theirs, self.usual, self.own)


def _replace_prefix(tensors: StateDict, old: str, new: str) -> None:
    for name in [name for name in tensors if name.startswith(old)]:
        tensors[new + name.removeprefix(old)] = tensors.pop(name)


@dataclass(frozen=True)
class Prefix:
    """All but a head stands under a ``prefix`` in theirs where it has that head; the first operation."""

    prefix: str
    head: str
    """What the names of that head begin with."""

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        for name in [name for name in theirs if name.startswith(self.prefix)]:
            theirs[name.removeprefix(self.prefix)] = theirs.pop(name)

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        body = [name for name in theirs if not name.startswith(self.head)]
        if len(body) < len(theirs):
            for name in body:
                theirs[self.prefix + name] = theirs.pop(name)


def from_hugging_face(state: StateDict, ops: Sequence[Operation]) -> StateDict:
    """Tensors by their names to tensors by ours.

    Raises:
        CheckpointError: names the tensors that no operation knows.
    """
    theirs, ours = dict(state), StateDict()
    for op in ops:
        op.read(theirs, ours)
    if theirs:
        raise CheckpointError(
            f"the family has no place for {_format_names(theirs)}; is it another architecture?"
        )
    return ours


def to_hugging_face(state: StateDict, ops: Sequence[Operation]) -> StateDict:
    """Tensors by our names to tensors by theirs.

    Raises:
        CheckpointError: names the tensors that stock transformers has no place for.
    """
    theirs, ours = StateDict(), dict(state)
    for op in reversed(ops):
        op.write(theirs, ours)
    if ours:
        raise CheckpointError(f"stock transformers has no place for {_format_names(ours)}")
    return theirs


def export_weights(network: nn.Module, ops: Sequence[Operation]) -> StateDict:
    """The parameters of a network under their names, each shared one once."""
    return to_hugging_face({name: p.detach() for name, p in network.named_parameters()}, ops)


@torch.no_grad()
def load_weights(network: nn.Module, tensors: StateDict, ops: Sequence[Operation]) -> list[str]:
    """Copy a checkpoint's tensors into a network; nothing is changed unless all of them fit.

    Tensors of heads (``heads.<name>.*`` in ours) that the network was built without are left out.

    Returns:
        The names (ours) of head parameters that the checkpoint does not have: they keep their values.

    Raises:
        CheckpointError: names a tensor that is unknown, of another shape, missing outside the heads, or
            different from the one that it is tied to.
    """
    ours = from_hugging_face(tensors, ops)
    _check_dtypes(ours, tensors)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    surplus = [n for n in ours if n not in parameters and not _is_absent_head(n, parameters)]
    if surplus:
        raise CheckpointError(
            f"the network has no place for {_format_names(surplus)}; config.json says otherwise"
        )
    assigned: dict[nn.Parameter, str] = {}
    for name, parameter in parameters.items():
        if name not in ours:
            continue
        if ours[name].shape != parameter.shape:
            shapes = f"{tuple(ours[name].shape)}, not {tuple(parameter.shape)} as config.json says"
            raise CheckpointError(f"{name}: shape {shapes}")
        first = assigned.setdefault(parameter, name)
        if first != name and not torch.equal(ours[first], ours[name]):
            raise CheckpointError(
                f"{name} differs from {first}; set tie_word_embeddings to false in config.json"
            )
    missing = [name for name, parameter in network.named_parameters() if parameter not in assigned]
    missing_outside_heads = [name for name in missing if not name.startswith("heads.")]
    if missing_outside_heads:
        raise CheckpointError(
            f"the checkpoint lacks {_format_names(missing_outside_heads)}; fetch or save it again"
        )
    for parameter, name in assigned.items():
        parameter.copy_(ours[name])
    return missing


def _check_dtypes(ours: StateDict, theirs: StateDict) -> None:
    """See that weights are stored as numbers with a fraction, which need no scale to mean something.

    Raises:
        CheckpointError: names one that is not.
    """
    for name, tensor in ours.items():
        if tensor.dtype not in WEIGHT_DTYPES:
            stored = next((key for key, other in theirs.items() if other is tensor), name)
            dtype_name = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{stored}: stored as {dtype_name}: that is no weight, but what a quantisation made of "
                "one; fetch "
                "the model in float32, bfloat16 or float16"
            )


def _is_absent_head(name: str, parameters: dict[str, nn.Parameter]) -> bool:
    module, *rest = name.split(".")
    prefix = f"heads.{rest[0]}." if rest else ""
    return module == "heads" and not any(known.startswith(prefix) for known in parameters)


def _match_template(template: str, state: Mapping[str, Tensor]) -> list[tuple[str, dict[str, str]]]:
    """The names that fit a template, each with what stands for its fields."""
    fields = [match[1] for match in re.finditer(r"\{(\w*)\}", template)]
    pattern = re.escape(template)
    for field in fields:
        pattern = pattern.replace(re.escape("{" + field + "}"), r"([^.]+)" if field else r"(\d+)", 1)
    matches = ((name, re.fullmatch(pattern, name)) for name in state)
    return [(name, dict(zip(fields, match.groups(), strict=True))) for name, match in matches if match]


def _rename_group(names: Sequence[str], old: StateDict, others: Sequence[str], new: StateDict) -> None:
    for _, fields in _match_template(names[0], old):
        pairs = {
            _fill_template(name, fields): _fill_template(other, fields)
            for name, other in zip(names, others, strict=True)
        }
        if pairs.keys() <= old.keys():
            new.update((other, old.pop(name)) for name, other in pairs.items())


def _fill_template(template: str, fields: dict[str, str]) -> str:
    for field, text in fields.items():
        template = template.replace("{" + field + "}", text)
    return template


def _format_names(names: Sequence[str] | StateDict, max_names: int = 5) -> str:
    names = sorted(names)
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more
