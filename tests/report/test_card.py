"""The model card: front matter that a hub reads, Markdown that no value breaks."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import yaml

from pretune.errors import ConfigError
from pretune.report.card import PIPELINES, Card, CardScore, DataSource, model_card
from pretune.types import Score

EVIL = "x\n---\nlicense: mit # <b>| `code` [a](b) *no*\n```\n## heading"


def card(text: str = "a model", **changes: Any) -> Card:
    score = Score("accuracy", 0.714, 1200, f"exact match, {text}", interval=(0.69, 0.737))
    values: dict[str, Any] = {
        "name": text,
        "summary": f"{text}\n\n{text}",
        "head": "masked_lm",
        "languages": ("en", "zh", "no"),
        "family": text,
        "parameters": 5_300_000,
        "base_model": text,
        "teacher": text,
        "license": text,
        "tags": (text, "pretune"),
        "example": text,
        "sources": (DataSource(text, text, text), DataSource(text)),
        "settings": ((text, text),),
        "scores": (CardScore(text, score, ((text, 0.616),)),),
        "limits": (text,),
    }
    return Card(**values | changes)


def parts(text: str) -> tuple[dict[str, Any], str]:
    empty, front, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def test_front_matter_is_what_the_hub_expects() -> None:
    front, body = parts(model_card(card(license="apache-2.0", base_model="", tags=("law",))))
    assert front == {
        "language": ["en", "zh", "no"],
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["pretune", "law"],
    }
    assert "0.714" in body
    assert "0.690 – 0.737" in body
    assert "a model 0.616" in body
    assert "exact match" in body


def test_no_value_breaks_the_yaml_or_the_markdown() -> None:
    front, body = parts(model_card(card(EVIL)))
    assert front["license"] == front["tags"][1] == " ".join(EVIL.split())
    plain = parts(model_card(card("a")))[1]

    def shape(markdown: str) -> list[str]:
        text = re.sub(r"(`{3,})(\w*)\n.*?\n\1", r"CODE \2", markdown, flags=re.DOTALL)
        text = re.sub(r"\\.", "", text)  # what is escaped is text
        return re.findall(r"^#+ |`+|^CODE.*|^- |^---|[<\[*]|\|", text, re.MULTILINE)

    assert shape(body) == shape(plain)


@pytest.mark.parametrize("start", ["# a", "- a", "1. a", "12) a", "+ a", "> a", "=== a"])
def test_a_text_opens_no_list_or_heading(start: str) -> None:
    body = model_card(card(summary=start))
    line = next(line for line in body.splitlines() if line.replace("\\", "") == start)
    assert "\\" in line


@pytest.mark.parametrize("head", [*PIPELINES, "unheard-of"])
def test_the_snippet_is_python_for_every_head(head: str) -> None:
    front, body = parts(model_card(card('他说："it\'s" \\ 好', head=head)))
    assert front.get("pipeline_tag", "") == PIPELINES.get(head, ("", ""))[0]
    match = re.search(r"```python\n(.*?)\n```", body, re.DOTALL)
    assert match
    ast.parse(match[1])


def test_what_is_missing_is_said() -> None:
    body = model_card(Card(name="m", summary="s", head="causal_lm"))
    for sentence in ("not recorded", "not been evaluated", "No limits are recorded"):
        assert sentence in body


def test_a_card_speaks_chinese() -> None:
    body = model_card(card("法律模型", language="zh"))
    for heading in ("模型简介", "使用方法", "训练数据", "评测", "局限"):
        assert f"## {heading}" in body
    with pytest.raises(ConfigError, match="'fr'"):
        model_card(card(language="fr"))
