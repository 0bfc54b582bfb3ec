"""A pytest plugin that writes what the suite found of each family: ``-p table --table docs``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

CLASSIFIER = "test_a_classifier_says_and_learns_what_stock_does"
SPAN = "test_a_span_head_says_and_learns_what_stock_does"
"""Of an encoder-decoder: outputs, gradients and weights in one test."""
HEADS = {
    "outputs": (
        "test_a_stock_model_says_the_same_in_our_network",
        "test_our_network_says_the_same_in_a_stock_model",
        CLASSIFIER,
        SPAN,
    ),
    "attention": ("test_attention_weights_are_those_of_stock",),
    "gradients": (
        "test_gradients_are_those_of_stock",
        "test_a_gradient_reaches_every_parameter",
        CLASSIFIER,
        SPAN,
    ),
    "weights": (
        "test_the_map_of_weights_goes_both_ways",
        "test_another_head_or_none_leaves_the_head_new",
        "test_a_wrong_tensor_is_named_and_nothing_is_loaded",
        CLASSIFIER,
        SPAN,
    ),
    "places": ("test_heads_at_some_places_are_heads_on_the_whole_grid_there",),
    "chunks": ("test_the_loss_in_chunks_is_the_plain_cross_entropy", "test_the_loss_is_that_of_stock"),
    "padding": ("test_padding_changes_nothing", "test_padding_of_source_and_target_changes_nothing"),
    "packing": ("test_packing_changes_neither_logits_nor_gradients",),
    "cache": (
        "test_a_cache_changes_nothing",
        "test_equal_rows_decode_a_token_at_a_time",
    ),
    "bfloat16": (
        "test_bfloat16_changes_rounding_only",
        "test_half_precision_says_about_the_same",
    ),
}
"""Column of a head's row -> the tests that fill it; what none tested stands empty."""
OBJECTIVES = {
    "learns": ("test_one_batch_is_learnt_by_heart",),
    "resumes": ("test_resumed_equals_uninterrupted",),
    "accumulates": ("test_accumulation_and_packing_change_rounding_only",),
    "two processes": ("test_two_processes_learn_what_one_does",),
}
WORDS = {"passed": "yes", "skipped": "–", "failed": "**no**"}
"""A family that declares that it lacks something is skipped."""

Found = dict[tuple[str, str], dict[str, list[str]]]
"""(family or model type, head or objective) -> column -> outcomes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--table FOLDER``"""
    parser.addoption("--table", type=Path, help="write what the suite found of each family into this folder")


class Table:
    """Collects outcomes, and writes the pages at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of: dict[str, tuple[str, tuple[str, str], bool]] = {}
        """Test -> (its function, its row, whether that is a row of the objectives)."""
        self.heads: Found = defaultdict(lambda: defaultdict(list))
        self.objectives: Found = defaultdict(lambda: defaultdict(list))

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        """Note which row a test belongs to."""
        for item in items:
            found = row_of(getattr(getattr(item, "callspec", None), "params", {}))
            if found is not None:
                self.of[item.nodeid] = (getattr(item, "originalname", item.name), *found)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how it ended."""
        if report.nodeid not in self.of or (report.when != "call" and report.passed):
            return
        function, row, trains = self.of[report.nodeid]
        columns, found = (OBJECTIVES, self.objectives) if trains else (HEADS, self.heads)
        for column, functions in columns.items():
            if function in functions:
                found[row][column].append(report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write the pages."""
        grids = {
            "heads": grid("model type, head", self.heads, tuple(HEADS)),
            "objectives": grid("family, objective", self.objectives, tuple(OBJECTIVES)),
        }
        for path, page in (("architectures.md", ENGLISH), ("zh-CN/architectures.md", CHINESE)):
            (self.folder / path).write_text(page.format(**grids), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Collect, if the pages are asked for."""
    folder = config.getoption("--table")
    if folder is not None:
        config.pluginmanager.register(Table(folder))


def row_of(params: Mapping[str, Any]) -> tuple[tuple[str, str], bool] | None:
    """(model type, head) of a test's parameters, or (family, objective); and whether it is the second."""
    if "case" in params:
        case = params["case"]
        if hasattr(case, "head"):
            return (case.model_type, case.head), False
        return (case.config.to_hugging_face("causal_lm")["model_type"], "causal_lm"), False
    if "model_type" in params and "head" in params:
        return (params["model_type"], params["head"]), False
    if "family_name" in params and "objective_name" in params:
        return (params["family_name"], params["objective_name"]), True
    if "family" in params and "kind" in params:
        return (params["family"], params["kind"]), True
    return None


ENGLISH = """# Architectures

[中文](zh-CN/architectures.md)

Written by `make conformance`, from what its tests found: yes, all tests of the cell passed; –, the family
has no such thing, and says so; empty, there is nothing to test; **no**, a test failed.

## Heads

Against stock `transformers`, on small models with random weights: **outputs** both ways, **attention**
weights, **gradients** (and that one reaches every parameter), **weights** by their names both ways. Of a
model alone: heads read at some **places**, losses in **chunks**, **padding**, **packing** and a **cache**
that change nothing, **bfloat16** that changes no more than rounding.

{heads}

## Objectives

**learns** one batch by heart, **resumes** bit for bit wherever it was stopped, **accumulates** and packs with
the same gradients but for rounding, is learnt by **two processes** as by one (losses within 1e-5).

{objectives}
"""
CHINESE = """# 模型结构

[English](../architectures.md)

由 `make conformance` 根据测试结果写成：yes 为该格的测试全部通过；– 为该模型族没有此项，并已声明；
空格为无可测试；**no** 为有测试失败。

## 输出头

以随机权重的小模型与原版 `transformers` 比较：双向的输出（outputs）、注意力权重（attention）、
梯度（gradients，且每个参数都有梯度）、按名称双向对应的权重（weights）。单就模型自身：
只在部分位置上计算输出头（places）、分块计算损失（chunks），以及补齐（padding）、拼接（packing）、缓存（cache）
都不改变结果，bfloat16 只带来舍入误差。

{heads}

## 目标

能把一批数据背下来（learns），在任何地方停下都能逐位一致地继续（resumes），梯度累积与拼接只带来舍入误差（accumulates），
两个进程训练与一个进程的损失一致，相差不超过 1e-5（two processes）。

{objectives}
"""


def grid(title: str, found: Found, columns: tuple[str, ...]) -> str:
    """A Markdown table, a line a row of ``found``."""
    lines = [f"| {title} | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for (family, name), cells in sorted(found.items()):
        lines.append(f"| `{family}`, {name} | {' | '.join(cell(cells.get(c, [])) for c in columns)} |")
    return "\n".join(lines)


def cell(outcomes: list[str]) -> str:
    """What the outcomes of a cell's tests come to: the worst of them."""
    worst = next((o for o in ("failed", "skipped", "passed") if o in outcomes), "")
    return WORDS.get(worst, "")
