"""One, two and four processes that train one model: the same steps, the same losses, the same checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import scenes
import torch
from safetensors.torch import load_file

import pretune
from pretune.errors import ConfigError
from pretune.runtime.distributed import World

HERE = Path(__file__).parent
SOURCE = str(Path(pretune.__file__).parents[1])


def together(number: int, folder: Path, *names: str) -> None:
    """Let ``number`` processes play the scenes; what each says lies in ``folder/said``."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    ended = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number),
            "--log-dir", str(folder / "said"), "--redirects", "3",
            str(HERE / "scenes.py"), str(folder), *names,
        ],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + "".join(said(folder, r, "stderr") for r in range(number))


def said(folder: Path, rank: int, stream: str) -> str:
    """What a rank wrote to ``stdout`` or ``stderr``."""
    return "".join(path.read_text() for path in folder.glob(f"said/*/attempt_0/{rank}/{stream}.log"))


def log_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def newest(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint."""
    folder = max((run / "checkpoints").glob("step-*"))
    return {f"{p.name}/{k}": t for p in folder.glob("*.safetensors") for k, t in load_file(p).items()}


@pytest.fixture(scope="module")
def two(
    one_thread: None, texts: Any, classifier_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What two processes left, started once for all scenes."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("whole", "resumed", "chain", "commands", "parts"):
        (folder / name).mkdir()
    scenes.trained(folder / "chain" / "run", "muon", World(), until=2, dropout=False)
    (folder / "chain" / "chain.json").write_text(json.dumps([["ddp", 4], ["fsdp", 6], ["ddp", 8]]))
    (folder / "commands" / "commands.json").write_text(
        json.dumps(_commands(folder, texts, classifier_source))
    )
    together(2, folder, "talk", "sums", "whole_step", "parts", "whole", "resumed", "chain", "commands")
    return folder


def _commands(folder: Path, texts: Any, source: Path) -> list[list[str]]:
    run = folder / "commands"
    return [
        ["pretrain", str(texts.corpus), "--family", "bert", "--out", str(run / "model"), *_small("8 steps")],
        ["pretrain", str(texts.corpus), "--out", str(run / "timed"), *_small("5s"), "training.parallel=fsdp"],
        ["finetune", str(source), "--train", str(texts.train), "--test", str(texts.test), "--budget",
         "1 epoch", "--out", str(run / "classifier"), "training.parallel=fsdp"],
        ["pretrain", str(folder / "nothing.jsonl"), "--out", str(run / "missing"), *_small("8 steps")],
        ["pretrain", str(texts.corpus), "--out", str(run / "wrong"), "training.parallell=ddp"],
        ["predict", str(source), "--text", "The king"],
    ]  # fmt: skip


def _small(budget: str) -> list[str]:
    sizes = ("hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2")
    return [
        "--budget", budget, "vocabulary_size=350", "max_length=32", *(f"model.{size}" for size in sizes),
        "training.batch_tokens=256", "training.evaluations=2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def classifier_source(bert: Path) -> Path:
    return bert


@pytest.fixture(scope="module")
def one(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of ``whole`` and ``chain``, of one process."""
    folder = tmp_path_factory.mktemp("one")
    for kind in scenes.KINDS:
        scenes.trained(folder / kind, kind, World(), dropout=False)
    return folder


def batches_of(made: Any, world: World) -> Any:
    """The batches of one rank, of the run that ``made`` trains."""
    return scenes.small.DataLoader(
        made.dataloader.store, made.dataloader.objective, made.model_io.family.TRAITS, made.settings,
        made.dataloader.max_length, world,
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", scenes.KINDS)
def test_ranks_divide_a_step_and_never_decide_what_is_in_it(kind: str, size: int, tmp_path: Path) -> None:
    objective, family, settings = scenes.KINDS[kind]
    alone = scenes.small.trainer(tmp_path / "alone", objective, family=family, **settings)
    ranks = [batches_of(alone, World(rank, size)) for rank in range(size)]
    seen: Counter[int] = Counter()
    for step in range(int(alone.dataloader.steps_per_epoch)):
        expected = Counter(i for part in alone.dataloader(step) for i in part.features)
        shares = [rank(step) for rank in ranks]
        found = Counter(i for share in shares for part in share if part.has_targets for i in part.features)
        assert found == expected
        assert len({len(share) for share in shares}) == 1, "equally many micro-batches"
        assert all(len(share) for share in shares)
        seen += found
    assert max(seen.values()) == 1, "each feature once an epoch"
    assert len(seen) > 30, "of 40"


def test_a_rank_may_have_nothing(tmp_path: Path) -> None:
    objective, family, settings = scenes.KINDS["uneven"]
    made = scenes.small.trainer(tmp_path / "run", objective, family=family, **settings)
    last = batches_of(made, World(3, 4))
    assert all(last(step) and not any(part.has_targets for part in last(step)) for step in range(12))


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", scenes.KINDS)
def test_two_processes_learn_what_one_does(kind: str, way: str, one: Path, two: Path) -> None:
    expected, found = scenes.small.losses(one / kind), scenes.small.losses(two / "whole" / f"{kind}-{way}")
    assert len(expected) == 12
    assert found == pytest.approx(expected, rel=1e-5)
    if kind == "adafactor":
        return  # it divides gradients that are only rounding by their own size
    weights, theirs = newest(one / kind), newest(two / "whole" / f"{kind}-{way}")
    assert {name: t.shape for name, t in theirs.items()} == {name: t.shape for name, t in weights.items()}
    apart = {n: (theirs[n] - t).abs().max() for n, t in weights.items() if n.startswith("model")}
    assert max(apart.values()) < 1e-3


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_signal_to_one_rank_stops_all_and_the_resume_is_exact(way: str, two: Path) -> None:
    folder = two / "resumed"
    assert log_of(folder / f"stopped-{way}") == log_of(folder / f"whole-{way}")
    expected, found = newest(folder / f"whole-{way}"), newest(folder / f"stopped-{way}")
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.alone
@pytest.mark.slow
def test_checkpoints_pass_between_numbers_of_ranks_and_ways(one: Path, two: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two / "chain" / "run", tmp_path / "run")
    assert max(int(p.name[5:]) for p in (run / "checkpoints").iterdir()) == 9
    scenes.trained(run, "muon", World(), dropout=False)
    assert scenes.small.losses(run) == pytest.approx(scenes.small.losses(one / "muon"), rel=1e-5)


@pytest.mark.alone
@pytest.mark.slow
def test_four_processes(one: Path, two: Path, tmp_path: Path) -> None:
    """They go on where two stopped, and one goes on from there; two of them have nothing in ``uneven``."""
    shutil.copytree(two / "chain" / "run", tmp_path / "chain" / "run")
    (tmp_path / "chain" / "chain.json").write_text(json.dumps([["fsdp", 9], ["ddp", 10]]))
    together(4, tmp_path, "chain", "uneven")
    run = tmp_path / "chain" / "run"
    assert max(int(p.name[5:]) for p in (run / "checkpoints").iterdir()) == 11
    scenes.trained(run, "muon", World(), dropout=False)
    assert scenes.small.losses(run) == pytest.approx(scenes.small.losses(one / "muon"), rel=1e-5)
    for way in ("ddp", "fsdp"):
        found = scenes.small.losses(tmp_path / "uneven" / f"uneven-{way}")
        assert found == pytest.approx(scenes.small.losses(one / "uneven"), rel=1e-5)


@pytest.mark.alone
@pytest.mark.slow
def test_rank_0_speaks_for_all(two: Path) -> None:
    out, err = (said(two, 0, stream) for stream in ("stdout", "stderr"))
    assert out.count("held-out loss") == 2
    assert out.count("# exit 2") == 2
    assert err.count("nothing.jsonl") == 1
    assert err.count("did you mean 'training.parallel'") == 1
    assert "predict: is done by one process" in err
    assert "Traceback" not in err
    for stream in ("stdout", "stderr"):
        others = [line for line in said(two, 1, stream).splitlines() if not line.startswith("#")]
        assert others == []
    assert not (two / "commands" / "missing").exists()


@pytest.mark.alone
@pytest.mark.slow
def test_what_the_commands_leave_is_a_run_like_any_other(two: Path) -> None:
    folder = two / "commands"
    for name in ("model", "timed", "classifier"):
        plan = json.loads((folder / name / "plan.json").read_text())
        assert plan["machine"].endswith("2 processes")
        assert json.loads((folder / name / "summary.json").read_text())["steps"] == len(
            scenes.small.losses(folder / name)
        )
    assert pretune.load(folder / "model").fill("The [MASK] saw")
    assert pretune.load(folder / "classifier").classify(["The soldier saw the castle"])[0].value in (
        "war",
        "farm",
    )


def test_the_environment_says_which_world_it_is() -> None:
    assert World.from_environment({}) == World()
    assert World.from_environment({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == World(1, 2, 1)
    for wrong in ({"WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
                  {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}):  # fmt: skip
        with pytest.raises(ConfigError, match="RANK"):
            World.from_environment(wrong)


def test_a_world_of_one_talks_to_nobody() -> None:
    world = World()
    assert world.any_rank(True)
    assert not world.any_rank(False)
    assert world.sum_counts({"a": 2}) == {"a": 2}
    assert world.on_main(lambda: 3) == world.broadcast(3) == 3
    assert not torch.distributed.is_initialized()
