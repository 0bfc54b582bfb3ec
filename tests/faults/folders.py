"""Model folders of every family, damaged in thousands of ways: each is refused, equal, or as stock says."""

from __future__ import annotations

import json
import os
import random
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import small
from harness import Row, Setting, check

from pretune import registry
from pretune.model.model import Model
from pretune.runtime import atomic_files
from pretune.types import Traits

HERE = Path(__file__).parent
SECONDS, BYTES = 20.0, 1 << 30
"""What a damaged folder may take beyond the good one."""
FINE = {"refused", "equal", "as stock", "not compared"}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WRAPPED = ("electra", "opt")
"""Stock model types that the wrapper reads."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 5, 2**31, 2**31 - 1, 2**32, 10**9, 10**30, 0.5, -0.5, 1e308, float("nan"),
    float("inf"), "", "x", "\ud800", "a\0b", "../../etc/passwd", "x" * 200_000, [], [1], [[]], ["x"], {},
    {"x": 1}, {"0": "x"}, [None], [2**31], "gelu", "float16", "to_dict", "\u202e人",
)  # fmt: skip
KEYS = ("to_dict", "attribute_map", "__class__", "rope_scaling", "rope_parameters", "quantization_config",
        "auto_map", "id2label", "problem_type", "is_decoder", "torch_dtype", "num_labels",
        "chunk_size_feed_forward", "pruned_heads", "task_specific_params", "vocab_size", "x")  # fmt: skip
STEPS: tuple[dict[str, Any], ...] = (
    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"},
    {"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 500},
    {"type": "Replace", "pattern": {"Regex": "((a+)+)+$"}, "content": ""},
    {"type": "Prepend", "prepend": "y" * 3000},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    {"type": "Split", "pattern": {"Regex": "(?:a{999}){999}"}, "behavior": "Isolated", "invert": False},
    {"type": "Nonsense"},
)  # fmt: skip


def damaged_folders(setting: Setting, tries: int) -> list[Row]:
    """``tries`` mutations, evenly over the folders."""
    row = Row("a file of a model folder damaged", "refused by name, equal outputs, or those of stock")
    home = setting.folder / "folders"
    goods = good_folders(home, few=tries < 500)
    judge = Judge()
    for number in range(tries):
        draw = random.Random(number)
        good = goods[number % len(goods)]
        bad = home / "bad"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        what = mutate(bad, draw)
        with row.trying(f"{number}: {good.name}: {what}"):
            found = judge.ask(bad, good)
            row.saw(found["what"])
            check(found["what"] in FINE, f"{found['what']}: {found['why']}")
            check(found["seconds"] < SECONDS and found["bytes"] < BYTES, found)
    judge.close()
    shutil.rmtree(home, ignore_errors=True)
    return [row]


def good_folders(home: Path, few: bool = False) -> list[Path]:
    """A folder of each family and head, as another program would have written it."""
    found = []
    for name in registry.list_names("families"):
        family = registry.find("families", name)
        both = family.TRAITS.architecture == "encoder-decoder"  # of these the judge asks two types of heads
        heads = [h for h, made in family.HEADS.items() if not both or made.type in ("vocabulary", "sequence")]
        found += [saved(home, name, head, family.TRAITS) for head in (heads[:1] if few else heads)]
    if not few:
        found += [saved(home, f"hf:{name}", None, None) for name in WRAPPED]
    return found


def saved(home: Path, name: str, head: str | None, traits: Traits | None) -> Path:
    """A tiny model, without the manifest that would find every damage."""
    folder = home / f"{name.replace(':', '-')}-{head}"
    family = registry.find("families", name)
    traits, head = traits or family.TRAITS, head or family.TRAITS.heads[0]
    shape = SHAPE if not name.startswith("hf:") else {
        key: value for key, value in family.tiny_config().model_dump().items()
        if key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "ffn_dim",
                   "embedding_size", "word_embed_proj_dim")
    }  # fmt: skip
    is_labeled = family.HEADS[head].is_labeled
    labels = ("a", "b") if is_labeled else ()
    tokenizer = small.tokenizer(traits)
    Model.create(name, shape, tokenizer, head, max_length=32, seed=1, labels=labels).save(folder)
    for extra in (atomic_files.MANIFEST, "pretune.json"):
        (folder / extra).unlink()
    return folder


class Judge:
    """The child that loads folders; one that died or hangs is begun anew."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def ask(self, folder: Path, good: Path) -> dict[str, Any]:
        """What came of a folder."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, HERE / "folder_judge.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
            )  # fmt: skip
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps({"folder": str(folder), "good": str(good)}) + "\n")
            child.stdin.flush()
            with selectors.DefaultSelector() as waiting:
                waiting.register(child.stdout, selectors.EVENT_READ)
                line = child.stdout.readline() if waiting.select(6 * SECONDS) else None
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            if answer["bytes"] > BYTES // 4:
                self.close()  # the next one's growth must show
            return answer
        self.close()
        why = f"no answer in {6 * SECONDS:.0f} s" if line is None else f"exit code {child.returncode}"
        return {"what": "hangs" if line is None else "aborts", "why": why, "seconds": 0.0, "bytes": 0}

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


# -- damage ---------------------------------------------------------------------------------------


def mutate(folder: Path, draw: random.Random) -> str:
    """Damage one file; says what was done."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    weights = {"config.json": 4, "tokenizer.json": 4, "tokenizer_config.json": 2}
    file = draw.choices(files, [weights.get(path.name, 1) for path in files])[0]
    kinds: list[Callable[[Path, random.Random], str]] = [_bytes, _cut, _other_kind]
    if file.suffix == ".json":
        kinds += [_leaf] * 8 + [_key] * 3 + [_deep]
    if file.name == "tokenizer.json":
        kinds += [_steps] * 4 + [_ids] * 3
    if file.suffix == ".safetensors":
        kinds += [_header] * 4
    return f"{file.name}: {draw.choice(kinds)(file, draw)}"


def _bytes(file: Path, draw: random.Random) -> str:
    content = bytearray(file.read_bytes())
    places = [draw.randrange(len(content)) for _ in range(draw.choice((1, 1, 4)))]
    for at in places:
        content[at] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))
    return f"bits at {places}"


def _cut(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    at = draw.randrange(len(content))
    longer = draw.random() < 0.3
    file.write_bytes(content + content[:at] if longer else content[:at])
    return f"{at} of {len(content)} bytes {'again behind it' if longer else 'kept'}"


def _other_kind(file: Path, draw: random.Random) -> str:
    file.unlink()
    kind = draw.choice(("missing", "pipe", "folder", "device", "link", "large"))
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind in ("device", "link"):
        file.symlink_to("/dev/zero" if kind == "device" else file.name)
    elif kind == "large":
        with file.open("wb") as written:
            written.truncate(1 << 40)
    return kind


def _leaf(file: Path, draw: random.Random) -> str:
    value = json.loads(file.read_text())
    path, holder = [], value
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return _cut(file, draw)
        key = draw.choice(keys)
        path.append(key)
        if not isinstance(holder[key], dict | list) or draw.random() < 0.25:
            break
        holder = holder[key]
    new = draw.choice(VALUES)
    holder[key] = new
    file.write_text(json.dumps(value))
    return f"{path} = {str(new)[:40]!r}"


def _key(file: Path, draw: random.Random) -> str:
    value = json.loads(file.read_text())
    key, new = draw.choice(KEYS), draw.choice(VALUES)
    if draw.random() < 0.4:
        key = draw.choice(list(value))
        del value[key]
        file.write_text(json.dumps(value))
        return f"without {key}"
    file.write_text(json.dumps(value | {key: new}))
    return f"{key} = {str(new)[:40]!r}"


def _deep(file: Path, draw: random.Random) -> str:
    depth = draw.choice((100, 900, 10**5))
    text, deep = file.read_text().rstrip()[:-1], "[" * depth + "]" * depth
    file.write_text(f'{text}, "x": {deep}}}' if draw.random() < 0.7 else deep)
    return f"{depth} deep"


def _steps(file: Path, draw: random.Random) -> str:
    value = json.loads(file.read_text())
    part = draw.choice(("normalizer", "pre_tokenizer", "decoder", "post_processor"))
    key = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    steps = [draw.choice(STEPS)] * draw.choice((1, 2, 5, 20, 60))
    value[part] = {"type": "Sequence", key.get(part, "processors"): steps}
    file.write_text(json.dumps(value))
    return f"{part}: {len(steps)} {steps[0]['type']} ({str(steps[0])[:80]})"


def _ids(file: Path, draw: random.Random) -> str:
    value = json.loads(file.read_text())
    id = draw.choice((-1, 0, 10**6, 10**9, 2**31, 2**32 - 1, 2**32, 2**64, 1.5, "1", None))
    place = draw.choice(("vocab", "added", "post"))
    if place == "vocab":
        value["model"]["vocab"][draw.choice(list(value["model"]["vocab"]))] = id
    elif place == "added":
        draw.choice(value["added_tokens"])["id"] = id
    else:
        specials = value["post_processor"].get("special_tokens") or {}
        for token in specials.values():
            token["ids"] = [id]
    file.write_text(json.dumps(value))
    return f"{place}: id {id}"


def _header(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = draw.choice([key for key in header if key != "__metadata__"])
    field = draw.choice(("dtype", "shape", "data_offsets", "size", "name"))
    new = draw.choice((*VALUES, "BF16", "I64", "F8_E4M3", "BOOL", [0, 2**62], [2**40, 2**40], [0, 10**15]))
    if field == "name":
        header[str(draw.choice(KEYS))] = header.pop(name)
    elif field != "size":
        header[name][field] = new
    packed = json.dumps(header).encode()
    length = draw.choice((0, 1, 2**40, 2**63, 10**8)) if field == "size" else len(packed)
    file.write_bytes(length.to_bytes(8, "little") + packed + rest)
    return f"header: {name}.{field} = {str(new)[:40]!r}"
