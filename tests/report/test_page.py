"""The page opens anywhere, says what it was given, and lets no text out of its place."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from pretune.errors import ConfigError, PretuneError
from pretune.report import charts
from pretune.report.page import (
    Command,
    Curve,
    Facts,
    MistakeRow,
    Mistakes,
    Page,
    SampleRow,
    Samples,
    ScoreRow,
    Scores,
    Section,
    Series,
    Table,
    Text,
    Verdict,
    VerdictItem,
    render,
    write,
)
from pretune.report.words import TRANSLATIONS, translations

EVIL = "<script>alert('1')</script>\" onload=\"x &amp; 恶意"
VOID = {"meta", "br", "hr", "img", "input", "link"}


def sections(text: str = "text", number: float = 0.5) -> tuple[Section, ...]:
    """One section of every kind, with ``text`` wherever a text can stand."""
    series = (Series(text, (0, 10, 20), (9.0, 6.0, 5.0)), Series(text, (0, 20), (9.0, 4.9), dashed=True))
    rows = (
        ScoreRow(text, 0.4, role="baseline"),
        ScoreRow(text, number, 0.45, 0.55, detail=text, seed_values=(0.49, 0.51)),
        ScoreRow(text, 0.8, role="reference"),
    )
    return (
        Verdict(text, tuple(VerdictItem(s, text) for s in ("good", "bad", "neutral")), text),
        Curve(text, series, ((text, 6.9), (text, 5.2)), text, text, text),
        Scores(text, rows, text, text),
        Mistakes(text, (MistakeRow(text, text, text, 0.97), MistakeRow(text, text, text)), text),
        Samples(text, (SampleRow(text, text, text), SampleRow(text, text, "", ((text, 0.4),), text)), text),
        Facts(text, ((text, text),), text),
        Command(text, text, text),
        Table(text, (text, text), ((text, "1,000"), (text, "-2.5 %")), text),
        Text(text, (text,), text),
    )


def page(text: str = "text", language: str = "en", number: float = 0.5) -> Page:
    return Page(text, text, language, sections(text, number), ((text, text),))  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Checks that tags are balanced and ids unique, and collects what the page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@pytest.mark.parametrize("language", sorted(TRANSLATIONS))
def test_the_page_is_balanced_and_reaches_for_nothing_outside(language: str) -> None:
    html = render(page("中文 text", language))
    reader = read(html)
    assert "script" not in reader.tags
    assert not [value for _, _, value in reader.attributes if "//" in value]
    assert "//" not in html.split("<style>")[1].split("</style>")[0]
    for _, name, value in reader.attributes:
        assert name not in ("src", "action")
        if name in ("href", "xlink:href"):
            assert value.startswith("#")


def test_ids_are_unique_and_every_reference_finds_one() -> None:
    html = render(Page("t", "s", "en", sections() + sections()))
    reader = read(html)
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    values = [(name, value) for _, name, value in reader.attributes]
    used = {value[1:] for name, value in values if name == "href"}
    used |= {value for name, value in values if name == "aria-labelledby"}
    used |= set(re.findall(r"url\(#(.+?)\)", html))
    assert used
    assert used <= set(ids)


@pytest.mark.parametrize("language", sorted(TRANSLATIONS))
def test_a_text_stays_a_text(language: str) -> None:
    plain, evil = read(render(page("a", language))), read(render(page(EVIL, language)))
    assert evil.tags == plain.tags
    assert [(t, n) for t, n, _ in evil.attributes] == [(t, n) for t, n, _ in plain.attributes]
    assert "".join(evil.words).count(EVIL) > 30


def test_what_no_html_may_hold_is_replaced(tmp_path: Path) -> None:
    html = write(page("a\x00\x1b\ud800b"), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b" in html
    assert "\x00" not in html


def test_the_same_page_gives_the_same_bytes() -> None:
    assert render(page("中文")) == render(page("中文"))


def test_numbers_stand_beside_the_charts_as_text() -> None:
    text = "".join(read(render(page())).words)
    for number in ("0.500", "0.450 – 0.550", "0.400", "5.00", "4.90", "6.90", "97%", "40%"):
        assert number in text


def test_charts_have_names() -> None:
    reader = read(render(page("loss of the run")))
    roles = [tag for tag, name, value in reader.attributes if (name, value) == ("role", "img")]
    assert roles == ["svg", "svg"]  # the wide and the narrow one
    assert reader.tags.count("title") == 3


def test_empty_sections_are_left_out() -> None:
    nothing = float("nan")
    empty: tuple[Section, ...] = (
        Verdict("gone", ()),
        Curve("gone", (Series("s", (), ()), Series("s", (1,), (nothing,))), (("level", 5.0),)),
        Scores("gone", ()),
        Mistakes("gone", ()),
        Samples("gone", ()),
        Facts("gone", ()),
        Command("gone", " "),
        Table("gone", ("a",), ()),
        Text("gone", ("", " ")),
    )
    html = render(Page("title", "", "en", (*empty, Text("kept", ("kept",)))))
    assert html.count("<section") == 1
    assert "gone" not in html


def test_numbers_that_are_not_finite_and_single_points_are_drawn() -> None:
    nan, inf = float("nan"), float("inf")
    shown: tuple[Section, ...] = (
        Curve("loss", (Series("s", (0, 1, 2), (9.0, nan, inf)),), (("level", nan), ("", 3.0))),
        Scores("scores", (ScoreRow("a", nan, nan, inf, seed_values=(nan,)), ScoreRow("b", 0.5))),
        Scores("one", (ScoreRow("b", 0.0),)),
        Mistakes("mistakes", (MistakeRow("t", "a", "b", nan), MistakeRow("t", "a", "b", 0.99999))),
    )
    text = "".join(read(render(Page("t", "", "en", shown))).words)
    assert "100%" not in text  # never rounded up to certainty
    coordinates = re.findall(r'(?:cx|cy|x\d|x|y)="([^"]*)"', render(Page("t", "", "en", shown)))
    assert not [value for value in coordinates if "nan" in value or "inf" in value]


def test_very_many_points_become_a_line_with_a_band_that_the_legend_explains() -> None:
    def drawn(count: int) -> str:
        series = Series("training", tuple(range(count)), tuple(5 + n % 7 for n in range(count)))
        return render(Page("t", "", "en", (Curve("loss", (series,)),)))

    band = translations("en")["band"]
    assert band not in drawn(charts.MAX_LINE_POINTS)
    assert band in drawn(20_000)
    assert len(drawn(20_000)) < 100_000


def test_labels_of_levels_do_not_cover_each_other() -> None:
    levels = (("unigram", 6.9), ("bigram", 6.85), ("shuffled", 6.8))
    section = Curve("loss", (Series("s", (0, 50, 100), (9.0, 5.5, 5.0)),), levels)
    labels = charts.draw_curve(section, "c", 820, 330).text_labels[2:]
    places = sorted((label.x, label.y) for label in labels)
    assert len(labels) == 3
    assert all(x1 - x0 > 60 or y1 - y0 > 9 for (x0, y0), (x1, y1) in pairwise(places))


def test_write_replaces_the_old_page_whole(tmp_path: Path) -> None:
    path = tmp_path / "run" / "report.html"
    write(page("old"), path)
    assert write(page("new"), path) == path
    assert path.read_text(encoding="utf-8") == render(page("new"))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(PretuneError, match=r"report\.html: the report cannot be written"):
        write(page(), tmp_path / "file" / "report.html")


def test_both_languages_have_the_same_words() -> None:
    keys = {language: sorted(entries) for language, entries in TRANSLATIONS.items()}
    assert keys["en"] == keys["zh"]
    assert all(text.strip() for entries in TRANSLATIONS.values() for text in entries.values())


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigError, match="'fr'"):
        translations("fr")
    with pytest.raises(ConfigError, match="'fr'"):
        render(page(language="fr"))
