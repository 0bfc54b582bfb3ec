"""Settings as a tree of frozen models: read from YAML, overridden by ``key=value``, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import pydantic
import yaml

from pretune.errors import ConfigError, quote, suggestion


class Settings(pydantic.BaseModel):
    """Base of every settings model: frozen, and a key that it does not know is an error."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _reject_bool_for_number(cls, values: Any) -> Any:
        """Python takes True for 1; where a number is asked for it is a slip, and stock refuses it."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and _accepts_only_numbers(field.annotation):
                raise ValueError(f"{name} = {value}: must be a number")
        return values


S = TypeVar("S", bound=Settings)


def _accepts_only_numbers(annotation: Any) -> bool:
    """Takes a field numbers, or None, and nothing else?"""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    plain = {get_args(member)[0] if get_origin(member) is Annotated else member for member in members}
    return bool(plain & {int, float}) and plain <= {int, float, type(None)}


def build_settings(model: type[S], values: Mapping[str, Any], *, where: str = "config") -> S:
    """Validate ``values`` as ``model``.

    Raises:
        ConfigError: names each wrong key with its value, and the nearest known key.
    """
    try:
        return model.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_format_error(model, e, where) for e in error.errors())) from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds no mapping.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, found {type(values).__name__}")
    return values


def apply_overrides(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=value`` assignments; the value is read as YAML (``3e-4`` is a number too).

    ``a.0.b=value`` reaches into the first item of a list that is there.

    Raises:
        ConfigError: an assignment without ``=``, or one that goes through a value that is neither mapping nor
            list, or beyond the items of a list.
    """
    result = json.loads(json.dumps(values, default=str))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{quote(assignment)}: settings are given as key=value")
        *parents, last = key.strip().split(".")
        node: Any = result
        for parent in parents:
            if isinstance(node, dict):
                node = node.setdefault(parent, {})
            else:
                node = node[_list_index(node, parent, key)]
            if not isinstance(node, dict | list):
                raise ConfigError(f"{key}: {parent!r} is a single value, it has no keys below it")
        node[last if isinstance(node, dict) else _list_index(node, last, key)] = _parse_value(text)
    return dict(result)


def _list_index(items: list[Any], number: str, key: str) -> int:
    """The place in a list that a part of a key says."""
    if not number.isdecimal() or int(number) >= len(items):
        raise ConfigError(f"{key}: {number!r}: the list there has {len(items)} items, counted from 0")
    return int(number)


def to_yaml(settings: pydantic.BaseModel) -> str:
    """The settings as YAML, in the order in which they are declared."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def digest(value: Any) -> str:
    """SHA-256 (hex) of anything that JSON can hold, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two trees differ, each as ``a.b: old -> new``."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines


def unknown_keys(model: type[pydantic.BaseModel], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys of a tree of values, dotted, that the settings do not have."""
    known, found = _keys_at(model, []), []
    for key, value in values.items():
        if key not in known:
            found.append(f"{prefix}{key}")
        elif isinstance(value, Mapping) and (inner := _settings_of(model.model_fields[key].annotation)):
            found += unknown_keys(inner, value, f"{prefix}{key}.")
    return found


def _parse_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 3e-4 as a string
        except ValueError:
            return value
    return value


def _format_error(model: type[pydantic.BaseModel], error: Any, where: str) -> str:
    path = [str(item) for item in error["loc"]]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        siblings = _keys_at(model, path[:-1])
        nested = [key for key in _all_keys(model) if key.rpartition(".")[2] == path[-1]]
        # Of keys beside each other the last part alone is compared: what they share makes all of them near.
        near = (
            suggestion(nested[0], nested) if nested else suggestion(path[-1], siblings, ".".join(path[:-1]))
        )
        return f"{where}: there is no key {quote(name)}; {near}"
    if error["type"] == "missing":
        return f"{where}: {name!r} is needed and was not given"
    reason = error["msg"].removeprefix("Value error, ")
    return f"{where}: {name} = {quote(error.get('input'))}: {reason}"


def _all_keys(model: type[pydantic.BaseModel], prefix: str = "") -> list[str]:
    """Every key of a tree of settings, dotted."""
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        keys.append(prefix + name)
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys


def _keys_at(model: type[pydantic.BaseModel], path: list[str]) -> list[str]:
    for key in path:
        field = model.model_fields.get(key)
        inner = _settings_of(field.annotation) if field else None
        if inner is None:
            return sorted(model.model_fields)
        model = inner
    return sorted(model.model_fields)


def _settings_of(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The settings model that a field holds, alone or among other things."""
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel)), None)
