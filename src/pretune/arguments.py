"""Arguments of the public functions, compared with their annotations before anything is done."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
from collections.abc import Callable
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

import pydantic

from pretune.errors import UsageError, quote

P = ParamSpec("P")
R = TypeVar("R")


def _check_path(path: str | Path) -> str | Path:
    if path == "":
        raise ValueError("must not be empty")
    if "\0" in str(path):
        raise ValueError("must hold no zero character")
    if max(len(os.fsencode(name)) for name in (*Path(path).parts, "")) > MAX_NAME_BYTES:
        raise ValueError(f"must be a name of at most {MAX_NAME_BYTES} bytes")
    return path


MAX_NAME_BYTES = 255
"""Bytes of the name of a file, on every file system that is in common use."""
FilePath = Annotated[str | Path, pydantic.AfterValidator(_check_path)]
"""The name of a file or folder."""
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
"""What a generator of random numbers takes."""
NonNegativeInt = Annotated[int, pydantic.Field(ge=0, lt=2**31)]
PositiveFloat = Annotated[float, pydantic.Field(gt=0, le=1e9)]
PositiveInt = Annotated[int, pydantic.Field(ge=1, lt=2**31)]
"""A number of things, one at least."""

_CONFIG = pydantic.ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
_PLAIN_TYPES = (str, bytes, numbers.Number, list, tuple)


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, which raises a UsageError that names the argument where one is of another type.

    Numbers, texts and lists are handed on as the annotation says (a list where a tuple is asked for becomes
    one); any other object, such as a model or a reporter, as it is.
    """
    signature = inspect.signature(function)

    @functools.cache
    def adapters() -> dict[str, pydantic.TypeAdapter[Any]]:
        hints = get_type_hints(function, include_extras=True)  # at the first call: all modules are there
        # In a tuple, since a class of pydantic by itself takes no config.
        hint_tuples: dict[str, Any] = {name: GenericAlias(tuple, (hint,)) for name, hint in hints.items()}
        return {
            name: pydantic.TypeAdapter(hint_tuples[name], config=_CONFIG)
            for name, parameter in signature.parameters.items()
            if name in hint_tuples and parameter.kind is not parameter.VAR_KEYWORD
        }

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            adapter = adapters().get(name)
            if adapter is not None:
                bound.arguments[name] = _validate(function.__name__.strip("_"), name, value, adapter)
        return function(*bound.args, **bound.kwargs)

    return wrapper


def _validate(function: str, name: str, value: Any, adapter: pydantic.TypeAdapter[Any]) -> Any:
    try:
        validated = adapter.validate_python((value,))[0]
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)
        where = "".join(f"[{index}]" for index in first[0]["loc"][1:] if isinstance(index, int))
        reasons = " or ".join(dict.fromkeys(_format_reason(detail["msg"]) for detail in first))
        given = first[0]["input"] if where else value
        raise UsageError(f"{function}: {name}{where} = {quote(given)}: {reasons}") from None
    return validated if isinstance(value, _PLAIN_TYPES) else value


def _format_reason(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return "a Path" if text.startswith("Input is not a valid path") else text
