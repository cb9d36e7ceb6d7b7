"""The report as a file: what stands in it, what may not, and which dialogues it holds."""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import yaml

from calibration import Pairing
from judge import load_judgments
from judge.report import charts, load_run
from judge.report.page import digits, interval, json_block, write_report
from judge.report.tables import People, interval_of, published_table
from judge.report.texts import Interval, Key, asset, in_chinese, label, load_texts, short, visible
from judge.scoring.rationales import by_dialogue, select
from judge.scoring.run_folder import item_ids
from tests.helpers.chatanime import LEVELS, SCHEME
from tests.helpers.commands import read, refused, typed
from tests.helpers.pairs import metric
from tests.helpers.paths import RATINGS
from tests.helpers.reports import HOSTILE, dialogue, score, write_rationales


class Page(HTMLParser):
    """A page's elements with their attributes and text, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within = tag
        for kept in {"script": [self.scripts], "style": [self.styles]}.get(tag, []):
            kept.append("")

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within in ("script", "style"):
            (self.scripts if self.within == "script" else self.styles)[-1] += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def data(self) -> dict[str, Any]:
        """What the script reads."""
        return json.loads(self.scripts[0])

    def of_class(self, name: str) -> int:
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.elements)


def report(run: Path, out: Path, *options: object) -> Page:
    result = typed("report", run, "--out", out, *options, cwd=out.parent)
    assert result.returncode == 0, result.stderr
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(scored: tuple[Path, CompletedProcess[str]]) -> Path:
    (folder,) = (scored[0] / "results").iterdir()
    return folder


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(run, tmp_path_factory.mktemp("report") / "people.html", "--annotations", RATINGS)


@pytest.fixture(scope="module")
def small(short_rubric: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three dialogues, of which the second has an empty answer."""
    folder = tmp_path_factory.mktemp("small")
    few = [dialogue("a", 1), dialogue("a", 2, answer=""), dialogue("a", 3)]
    return score(folder, few, "--prompts", short_rubric, code=1)


@pytest.fixture
def own_run(small: Path, tmp_path: Path) -> Path:
    """The same run with its data, to be changed."""
    shutil.copytree(small.parent, tmp_path, dirs_exist_ok=True)
    manifest = (tmp_path / "run" / "manifest.json").read_text(encoding="utf-8")
    (tmp_path / "run" / "manifest.json").write_text(manifest.replace(str(small.parent), str(tmp_path)), "utf-8")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def hostile_run(short_rubric: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every text is hostile to a page."""
    dialogues = [{**dialogue(text, number), "profile": text} for number, text in enumerate(HOSTILE)]
    return score(tmp_path_factory.mktemp("hostile"), dialogues, "--prompts", short_rubric)


def test_score_leaves_a_report_in_the_run(run: Path, scored: tuple[Path, CompletedProcess[str]]) -> None:
    assert f"report: results/{run.name}/report.html" in scored[1].stdout
    assert len(Page((run / "report.html").read_text(encoding="utf-8")).data["dialogues"]) == 72


def test_a_report_that_fails_does_not_lose_the_run(run: Path) -> None:
    with mock.patch("judge.report.page.write_report", side_effect=MemoryError("no room")):
        result = typed("score", "--run", run, "--judge", "stand-in", cwd=run)
    assert result.returncode == 0
    assert "no report.html (MemoryError: no room); try esrp-judge report" in result.stdout


def test_the_page_loads_nothing_and_its_policy_lets_only_its_own_scripts_run(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "link", "object", "embed", "audio", "video", "base"), tag
        assert not {"src", "srcset", "action", "style", "ping"} & set(attributes), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), attributes
        assert not any(name.startswith("on") for name in attributes), attributes
    assert all("url(" not in style and "@import" not in style for style in page.styles)
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none';")
    for text in (*page.scripts[1:], *page.styles):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert len(page.scripts) == 3 and len(page.styles) == 1


def test_hostile_text_is_text(hostile_run: Path, tmp_path: Path) -> None:
    page = report(hostile_run, tmp_path / "hostile.html")
    assert len(page.scripts) == 3, "text ended a script"
    assert {"img", "b"}.isdisjoint(tag for tag, _ in page.elements)
    assert not any("onerror" in attributes or "onmouseover" in attributes for _, attributes in page.elements)
    shown = page.data["dialogues"]
    assert {one["turns"][0][1] for one in shown} == {visible(text) for text in HOSTILE}
    assert {one["source"] for one in shown} == {visible(dialogue(text, 0)["source"]) for text in HOSTILE}
    assert "\u202e" not in page.text + page.scripts[0] and "[U+202E]gnp.exe" in page.text


def test_charts_get_names_that_plotly_shows_letter_by_letter(hostile_run: Path, tmp_path: Path) -> None:
    figures = report(hostile_run, tmp_path / "hostile.html").data["figures"]
    rows = figures["sources"]["plots"][""]["data"][0]["y"]
    assert label("s <img src=x onerror=alert(1)>") in rows
    assert not any("<" in row or ">" in row for row in rows)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<a&b>", "&lt;a&amp;b&gt;"),
        ("$x$", "&#36;x&#36;"),
        ("x\u202ey", "x[U+202E]y"),
        ("two\n lines", "two lines"),
        ("\x00", "[U+0000]"),
    ],
)
def test_a_label_shows_what_stands_in_the_data(text: str, escaped: str) -> None:
    assert label(text) == escaped


def test_names_on_axes_are_short_and_name_the_character() -> None:
    assert short("《海贼王》的路飞") == "路飞"
    assert short("a" * 40) == "a" * 17 + "…"


def test_json_in_a_page_cannot_end_its_element_and_takes_no_nan() -> None:
    text = json_block({"a": "".join(HOSTILE)})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"a": "".join(HOSTILE)}
    with pytest.raises(ValueError):
        json_block({"a": float("nan")})


def test_what_is_missing_is_shown_as_missing(small: Path, tmp_path: Path) -> None:
    page = report(small, tmp_path / "missing.html")
    empty = next(one for one in page.data["dialogues"] if one["scenario"].startswith("2"))
    assert set(empty["error"]) == {"empty_answer"}
    assert "p" not in empty and "score" not in empty
    assert "9 empty_answer" in page.text
    assert [digits(None), digits(float("nan")), interval(Interval(None)), interval(None)] == ["–"] * 4


def test_numbers_are_written_with_what_is_known_of_them() -> None:
    assert interval(Interval(0.5)) == "0.50"
    assert interval(Interval(-0.5, -1.0, 0.25)) == "-0.50 [-1.00, 0.25]"
    assert (digits(1200), digits(2.347), digits(-0.001)) == ("1,200", "2.35", "0.00")


def test_a_number_is_rounded_once() -> None:
    """-0.00496 is -0.00, and by way of four decimals it would be -0.01."""
    found = {"agreement": {"spearman": -0.0123, "intervals": {"spearman": [-0.04, -0.00496]}}}
    assert interval(interval_of(found, "agreement", "spearman")) == "-0.01 [-0.04, 0.00]"


def test_published_metrics_stand_in_the_order_of_the_page() -> None:
    columns = ("sources", "decided", "alike", "p_value", "spearman", "pearson")
    names = ["response_diversity", "demand_matching", "consistency", "fluency"]
    table = published_table(pd.DataFrame([{"metric": name, **dict.fromkeys(columns, 1.0)} for name in names]), SCHEME)
    shown = [row[0].key for row in table.rows if isinstance(row[0], Key)]
    assert shown == [f"metric.{name}" for name in ("fluency", "consistency", "demand_matching", "response_diversity")]


def test_every_metric_has_its_verdict_in_a_sentence(page: Page) -> None:
    assert page.of_class("verdict") == 13
    assert page.text.count("STAND-IN 在") == len(verdict_sentences(page)) == 13
    assert "Krippendorff alpha" in page.text and "替身评分器" in page.text


def verdict_sentences(page: Page) -> list[str]:
    """The verdicts in English, as they stand beside the Chinese ones."""
    said = (attributes.get("data-en") or "" for tag, attributes in page.elements if tag == "span")
    return [text for text in said if text.startswith("On ") and "STAND-IN" in text]


OPTIONS_OF_AGREE = [
    ["--annotators", "illustrative-a,illustrative-b", "--scale", "1-5", "--judge", "STAND-IN"],
    ["--raters", "slots", "--generalise", "characters"],
    ["--scoring", "accuracy", "--epsilon", "0.35", "--annotator-kind", "crowd"],
]


@pytest.fixture(scope="module")
def with_options(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Page]:
    """A page by each of ``OPTIONS_OF_AGREE``."""
    folder = tmp_path_factory.mktemp("options")
    options = enumerate(OPTIONS_OF_AGREE)
    return [report(run, folder / f"{number}.html", "--annotations", RATINGS, *given) for number, given in options]


@pytest.mark.parametrize("number", range(len(OPTIONS_OF_AGREE)), ids=lambda number: " ".join(OPTIONS_OF_AGREE[number]))
def test_a_report_states_what_agree_states_with_the_same_options(
    run: Path, with_options: list[Page], number: int
) -> None:
    options, page = OPTIONS_OF_AGREE[number], with_options[number]
    agreed = read(typed("agree", run, "--annotations", RATINGS, "--json", *options, cwd=run.parent))
    assert verdict_sentences(page) == [one["sentence"] for one in agreed["metrics"].values()]
    assert set(agreed["remarks"]) <= {attributes.get("data-en") for _, attributes in page.elements}
    test = agreed["metrics"]["fluency"]["alt_test"]
    shown = [digits(test[name]) for name in ("winning_rate", "advantage_probability", "epsilon")]
    assert f"流畅性{''.join(shown)}" in page.text, "the test's figures beside the metric, in one row"


def test_options_of_agree_change_what_a_report_states(page: Page, with_options: list[Page], run: Path) -> None:
    assert all(verdict_sentences(other) != verdict_sentences(page) for other in with_options[:2])
    for one, epsilon in ((page, "0.20"), (with_options[2], "0.35")):
        assert re.search(rf"流畅性\d\.\d\d\d\.\d\d{re.escape(epsilon)}", one.text), "in the alternative annotator test"
    refused(typed("report", run, "--epsilon", "2", cwd=run), "--epsilon 2.0: give a number from 0 to 1")


def test_without_ratings_the_page_says_how_to_get_some(run: Path, tmp_path: Path) -> None:
    page = report(run, tmp_path / "plain.html")
    assert page.of_class("verdict") == 0
    steps = (f"plan {run}", "import-annotations", f"agree {run} --annotations", f"report {run} --annotations")
    assert all(f"esrp-judge {step}" in page.text for step in steps)
    assert "agreement" not in page.data["figures"]
    assert "人的均值" not in page.text, "no column is explained that is not there"


def test_ratings_stand_beside_the_dialogue_they_are_of(page: Page) -> None:
    ratings = pd.read_csv(RATINGS, dtype={"scenario": str})
    one = page.data["dialogues"][0]
    key = ["source", "character", "scenario"]
    mine = ratings[(ratings[key] == [one[name] for name in key]).all(axis=1)]
    fluency = mine[mine["metric"] == "fluency"]
    assert dict(one["ratings"][0]) == dict(zip(fluency["annotator"], fluency["score"], strict=True))


def test_the_leaderboard_is_that_of_the_run(page: Page, run: Path) -> None:
    board = pd.read_csv(run / "leaderboard.csv")
    overall = board[board["metric"] == "overall"]
    for row in overall.to_dict("records"):
        assert f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in page.text


def test_of_very_many_dialogues_a_page_shows_a_sample_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_run, "MOST", 40)
    some = load_run.read_run(run)
    assert some.sampled == some.judgments["item_id"].nunique()
    assert 20 <= some.sampled < 60
    scenarios = [set(own["character"] + own["scenario"]) for _, own in some.judgments.groupby("source")]
    assert scenarios[0] == scenarios[1]
    pd.testing.assert_frame_equal(some.leaderboard, pd.read_csv(run / "leaderboard.csv"))
    rated = load_judgments(run).assign(item_id=item_ids)["item_id"].unique()
    assert load_run.read_run(run, rated).sampled == len(rated) == 72
    text = write_report(run, out=tmp_path / "some.html").read_text(encoding="utf-8")
    assert re.search(f"of all 72 dialogues. Ranks, distributions, .* are of {some.sampled} of them", text)
    assert re.search(f"来自全部 72 段对话。名次、分布、.*来自其中的 {some.sampled} 段", text)


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    result = typed("report", Path("results") / run.name, "--out", tmp_path / "again.html", cwd=run.parents[1])
    assert result.returncode == 0
    assert (tmp_path / "again.html").read_bytes() == (run / "report.html").read_bytes()


def test_texts_that_changed_or_went_are_left_out_and_it_is_said(own_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    (own_run / "dialogues.parquet").unlink()  # as in a run of a version that kept none
    data.write_text(data.read_text(encoding="utf-8").replace('"character": "a"', '"character": "b"', 1), "utf-8")
    page = report(own_run, tmp_path / "changed.html", "--language", "en")
    assert ["turns" in one for one in page.data["dialogues"]] == [False, True, True]
    assert "1 have no text" in page.text
    data.unlink()
    page = report(own_run, tmp_path / "gone.html", "--language", "en")
    assert not any("turns" in one for one in page.data["dialogues"])
    assert "3 have no text" in page.text and "no such file" in page.text


def test_rationales_are_shown_where_the_run_has_some_of_what_it_judged(own_run: Path, tmp_path: Path) -> None:
    write_rationales(own_run, "<b>像\u202e")
    page = report(own_run, tmp_path / "r.html")
    assert page.data["dialogues"][0]["rationale"] == {"role_playing": "<b>像[U+202E]"}
    (own_run / "rationales.jsonl").write_text("{}\n", encoding="utf-8")
    refused(typed("report", own_run, cwd=tmp_path), "rationales.jsonl", "fix or remove it")


def test_a_run_without_tables_is_not_finished(own_run: Path, tmp_path: Path) -> None:
    (own_run / "leaderboard.csv").unlink()
    refused(typed("report", own_run, cwd=tmp_path), "leaderboard.csv", "not finished")


def test_checks_are_shown_and_those_of_another_judge_are_told(own_run: Path, tmp_path: Path) -> None:
    mine = json.loads((own_run / "manifest.json").read_text(encoding="utf-8"))["judge"]
    rows = [
        {"family": "<order>", "change": 0.25, "low": -0.5, "high": 1.0, "auc": 0.5, "auc_low": None, "auc_high": None}
    ]
    attack = {"judge": "other", "judge_id": "x", "families": rows, "remarks": ["look & see"], "missing": {}}
    (own_run / "attack.json").write_text(json.dumps(attack), encoding="utf-8")
    (own_run / "probe.json").write_text(json.dumps({**attack, "judge_id": mine["judge_id"]}), encoding="utf-8")
    (own_run / "layouts.csv").write_text("variant,metric,mass\nprefill,overall,0.875\nprefill,fluency,1\n", "utf-8")
    page = report(own_run, tmp_path / "checks.html", "--language", "en")
    assert page.text.count("These results are of another judge (other)") == 1
    assert page.text.count("does not say which judge") == 1
    assert page.text.count("0.25 [-0.50, 1.00]") == 2 and page.text.count("<order>") == 2
    assert page.text.count("look & see") == 2 and "0.88" in page.text and "auc_low" not in page.text
    (own_run / "probe.json").write_text("[", encoding="utf-8")
    refused(typed("report", own_run, cwd=tmp_path), "probe.json", "write it again or remove it")


# Which dialogues


def judged(scores: dict[str, float], metrics: tuple[str, ...] = ("fluency",), **more: Any) -> pd.DataFrame:
    """Judgments sure of a whole score each."""
    rows = [
        {"item_id": item, "source": item[0], "character": "c", "metric": one, "score": score, "error": None,
         "suspicious": None, **{f"p{level}": float(level == score) for level in LEVELS}, **more}
        for item, score in scores.items()
        for one in metrics
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_all_dialogues_are_held_where_they_fit() -> None:
    dialogues = by_dialogue(judged({"a1": 1, "b1": 5}))
    assert select(dialogues, 2) == {"a1": [], "b1": []}


def test_the_telling_dialogues_are_chosen_and_a_sample_fills_the_rest() -> None:
    dialogues = by_dialogue(judged({f"{source}{number:02}": 3 for source in "ab" for number in range(60)}))
    dialogues.loc["a07", "score"], dialogues.loc["b09", "score"] = 1.0, 5.0
    dialogues.loc["a11", "spread"], dialogues.loc["b13", "dispute"] = 1.5, 2.0
    dialogues.loc["a17", "suspicious"], dialogues.loc["b19", "missing"] = True, True
    chosen = select(dialogues, 12)
    assert len(chosen) == 12 and list(chosen) == sorted(chosen)
    reasons = {
        "a07": "worst",
        "b09": "best",
        "a11": "uncertain",
        "b13": "disputed",
        "a17": "suspicious",
        "b19": "missing",
    }
    assert all(reason in chosen[item] for item, reason in reasons.items())
    sample = [item for item, why in chosen.items() if "sample" in why]
    assert {item[0] for item in sample} == {"a", "b"}


def test_dialogues_with_rationales_are_among_the_chosen() -> None:
    items = [f"{source}{number:02}" for source in "ab" for number in range(60)]
    chosen = select(by_dialogue(judged(dict.fromkeys(items, 3.0)), explained={"a31", "b47"}), 12)
    assert {item for item, why in chosen.items() if "explained" in why} == {"a31", "b47"}


def test_the_choice_does_not_hang_on_the_order_of_rows() -> None:
    dialogues = by_dialogue(judged({f"a{number:02}": 1 + number % 5 for number in range(90)}))
    shuffled = dialogues.sample(frac=1, random_state=1)
    assert select(shuffled, 20) == {item: why for item, why in select(dialogues, 20).items()}


def test_dispute_is_the_mean_distance_from_people() -> None:
    human = pd.DataFrame({"item_id": ["a1", "a1"], "metric": ["fluency", "coherency"], "human": [2.0, 5.0]})
    dialogues = by_dialogue(judged({"a1": 4, "b1": 4}, ("fluency", "coherency")), human)
    assert dialogues.loc["a1", "dispute"] == pytest.approx(1.5)  # |4 - 2| and |4 - 5|
    assert np.isnan(dialogues.loc["b1", "dispute"])


# Beside people


def beside(judge: list[float], human: list[float]) -> People:
    paired = metric(judge, human, groups=[f"g{i}" for i in range(len(judge))])
    pairing = Pairing("j", {"fluency": paired}, pd.DataFrame(), pd.DataFrame(), {}, ())
    found = mock.Mock()
    found.to_dict.return_value = {"metrics": {}, "discriminant": None}
    return People(pairing, found, pd.DataFrame())


def test_bias_and_limits_of_agreement_by_hand() -> None:
    people = beside([2, 3, 4, 5], [1, 2, 4, 5])  # differences 1, 1, 0, 0: mean .5, SD .5
    figure = charts.agreement_figures(people, None)[-1]
    assert figure.table.rows == [
        [Key("metric.fluency"), 4, 0.5, round(0.5 - 1.96 * 0.5, 2), round(0.5 + 1.96 * 0.5, 2)]
    ]


def test_reliability_before_and_after_calibration() -> None:
    people = beside([1.0] * 5 + [2.0] * 5, [3.0] * 5 + [5.0] * 5)
    items = people.pairing.metrics["fluency"].items
    calibrated = pd.DataFrame({"item_id": items, "metric": "fluency", "calibrated": [3.0] * 5 + [5.0] * 5})
    reliability = charts.agreement_figures(people, calibrated)[-2]
    cells = [(row[1].key, row[2], row[3], row[4].value) for row in reliability.table.rows]
    assert cells == [
        ("calibration.before", 5, 1.0, 3.0),
        ("calibration.before", 5, 2.0, 5.0),
        ("calibration.after", 5, 3.0, 3.0),
        ("calibration.after", 5, 5.0, 5.0),
    ]


# Both languages

LATIN = re.compile(r"[A-Za-z][A-Za-z'’-]*(?:[\s,;:]+[A-Za-z][A-Za-z'’-]*){2,}")
"""Three Latin words or more in a row: no name is that long in the example, so it is English."""


class Shown(HTMLParser):
    """What a reader sees or hears of a page before any script runs, without code, names of data and scripts."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.within: list[bool] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            data = "data" in (dict(attrs).get("class") or "").split()
            self.within.append(data or tag in ("script", "style", "code", "title"))
        self.texts.append(dict(attrs).get("aria-label") or "")

    def handle_endtag(self, tag: str) -> None:
        self.within.pop()

    def handle_data(self, data: str) -> None:
        if not any(self.within):
            self.texts.append(data)


def english_in(page: str) -> list[str]:
    return [found[0] for text in Shown(page).texts for found in LATIN.finditer(text)]


def test_the_chinese_page_has_no_english_sentence(
    page: Page, with_options: list[Page], own_run: Path, tmp_path: Path
) -> None:
    assert english_in('<p>这里<b class="data">not this one</b><i>but this one</i></p>') == ["but this one"]
    for one in (page, *with_options, report(own_run, tmp_path / "plain.html")):
        assert english_in(one.source) == []
    assert [text for text in page.data["texts"]["zh"].values() if LATIN.search(text)] == []


TITLES = {"fluency": "流畅性", "empathy": "共情"}


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("Nobody rated fluency, empathy.", "没有人评过流畅性、共情。"),
        ("1,200 judgments are missing and left out.", "有 1,200 条判断缺失，未计入。"),
        (
            "fluency, empathy: The alternative annotator test was not done: one annotator rated.",
            "流畅性、共情：没有做替代评分者检验：只有一人评分。",
        ),
        ("There are no intervals: 5 groups, of 8 needed.", "没有置信区间：只有 5 个组，需要 8 个。"),
        (
            "On empathy, a b should not be used: 1 rated group of at least 8 say too little. Over 1 item its Spearman "
            "correlation with the mean rating is undefined (under 3 items), its mean absolute difference 0.80 (the "
            "constant predictor's: 0.70).",
            "a b 在共情上不应使用：只有 1 个被评过的组，至少要 8 个。在 1 条上，它与平均评分的 Spearman 相关为 无法计算"
            "（不足 3 条），平均绝对差 0.80（常数预测：0.70）。",
        ),
        (
            "fluency: notices a, b (from medium on); c: not noticed (AUC .55; length alone: AUC .85); d: a bag of "
            "characters alone: AUC .83, so this proves nothing.",
            "流畅性：能看出 a, b（从 medium 起）；c：看不出（AUC .55；单凭长度：AUC .85）；d：单凭用字统计：AUC .83，"
            "所以什么也证明不了。",
        ),
        ("rubric in the other language: mean change: not given, as under 20 dialogues",
         "评分标准换成另一种语言：平均变化：没有给出，因为不足 20 段对话"),
        ("look, see: nothing known", "look, see: nothing known"),
        ("{0} {x}", "{0} {x}"),
        ("a: " * 3000, "a: " * 3000),
    ],
)  # fmt: skip
def test_a_sentence_is_put_into_chinese_with_its_numbers_and_names(english: str, chinese: str) -> None:
    assert in_chinese(english, TITLES) == chinese


NOT_ON_THE_PAGE = (
    "do not use", "the same rating", "at most one apart", "more than one apart", "ratings and scores",
    "dij,di,dj->d", "kd,kd,kd->d", "vd,vd,vd->d",
    "among the scores and", "among the ratings; make them the same", "among the ratings; make them equal",
    "; give it one",
    "has two inclusion probabilities on", "every score of a rated metric is missing; judge them again",
    "no item of a metric with a mean was scored by all of",
    "no item in common; check how item_id is written in both", "no metric in common (human ratings:",
)  # fmt: skip
"""Texts of three words or more that name columns, shapes and tables, or that are of an error."""


def sentences_in(module: ModuleType) -> Iterator[str]:
    """What a module may say in English that is no error: the literal parts of its texts, of three words or more."""
    tree = ast.parse(inspect.getsource(module))
    errors_and_docstrings = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in errors_and_docstrings:
            text = node.value.strip()
            if LATIN.search(text) and text not in NOT_ON_THE_PAGE:
                yield text


SPEAKING = ["calibration.pairing", *(f"calibration.agreement.{name}" for name in
            ("assess", "reliability", "alt_test", "metrics", "single_ratings")),
            *(f"calibration.stats.{name}" for name in ("correlation", "intervals", "krippendorff")),
            "calibration.calibrators.panel", "judge.robustness.attack_analysis",
            "judge.robustness.probe_analysis"]  # fmt: skip
"""Modules whose sentences are shown on the page."""


@pytest.mark.parametrize("name", SPEAKING)
def test_every_sentence_that_reaches_the_page_has_its_chinese(name: str) -> None:
    known = [pair["en"] for pair in yaml.safe_load(asset("sentences.yaml"))]
    said = list(sentences_in(import_module(name)))
    assert [text for text in said if not any(text in english for english in known)] == [], "sentences.yaml lacks them"


def test_every_pattern_stands_once_and_fills_what_it_takes() -> None:
    pairs = [(pair["en"], pair["zh"]) for pair in yaml.safe_load(asset("sentences.yaml"))]
    assert len({english for english, _ in pairs}) == len(pairs)
    for english, chinese in pairs:
        assert set(re.findall(r"{(\w+)}", english)) == set(re.findall(r"{(\w+)}", chinese)), english
        assert not LATIN.search(re.sub(r"{\w+}", "", chinese)), chinese


def test_both_languages_say_the_same_things() -> None:
    zh, en = (load_texts(SCHEME, "zh")[language] for language in ("zh", "en"))
    assert set(zh) == set(en) and all(zh.values()) and all(en.values())
    for key in zh:
        assert set(re.findall(r"{\w+}", zh[key])) == set(re.findall(r"{\w+}", en[key])), key


def test_every_text_the_page_asks_for_is_there_and_none_is_idle() -> None:
    keys = {key for key in load_texts(SCHEME, "zh")["en"] if not key.startswith("metric.")}
    sources = [asset("page.html.j2"), asset("report.js")]
    folder = Path(charts.__file__).parent
    sources += [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    text = "\n".join(sources)
    asked = set(re.findall(r'(?:\bt|both|named|plain|Key|text)\("([a-z_. ]+)"[,)]', text))
    assert asked <= keys
    stems = ("figure.", "statistic.", "verdict.", "filter.", "flag.", "order.", "diversity.", "quantile.", "check.",
             "calibration.", "of.", "training.")  # fmt: skip
    idle = {key for key in keys - asked if not key.startswith(stems) and f'"{key}"' not in text}
    assert not idle


def test_a_title_is_neither_a_placeholder_nor_markup() -> None:
    hostile = replace(SCHEME, rubric="own", titles={**SCHEME.titles, "fluency": '{x} <a href="http://h">y</a>'})
    for language in ("zh", "en"):
        assert load_texts(hostile, "zh")[language]["metric.fluency"] == '｛x｝ ＜a href="http://h"＞y＜/a＞'
