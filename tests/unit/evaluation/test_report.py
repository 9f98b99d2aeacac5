"""The report of made-up figures: it renders, is complete, asks the network for nothing, and lets no text of the data become markup."""

import json
import re
from html.parser import HTMLParser

import pytest

from assay_evaluation.caveats import caveats
from assay_evaluation.report import TOP_KEYS, plain_text, render_html


def interval(value, n=300, half=0.05):
    return {"value": value, "low": value - half, "high": value + half, "n": n}


@pytest.fixture(scope="module")
def report() -> dict:
    reward_models = [
        {
            "name": f"rm_{rate:02d}",
            "label_flip_rate": rate / 100,
            "n": 600,
            "accuracy": accuracy,
            "accuracy_interval": [accuracy - 0.04, accuracy + 0.04],
            "fingerprint": "ab" * 32,
            "ties": 1,
            "length_correlation": -0.2,
            "expected_calibration_error": 0.03,
            "on_policy_rank_correlation": interval(0.5) if rate == 0 else None,
        }
        for rate, accuracy in [(0, 0.74), (25, 0.63), (40, 0.49)]
    ]

    def policy(name, algorithm, reward_model, gold):
        return {
            "name": name,
            "algorithm": algorithm,
            "reward_model": reward_model,
            "n": 300,
            "gold_mean": gold,
            "gold_interval": [gold - 0.1, gold + 0.1],
            "kl": 2.0,
            "win_rate": None if algorithm == "sft" else interval(0.8),
            "win_p_value": None if algorithm == "sft" else 1e-9,
            "words": 12.0,
            "distinct_2": None if algorithm == "best_of_n" else 0.4,
        }

    policies = [policy("sft", "sft", None, 0.1)]
    policies += [policy(f"{a} {m['name']}", a, m["name"], 1.0) for a in ("best_of_n", "dpo", "ppo") for m in reward_models]
    points = [{"kl": float(k), "gold": 0.3 * k, "low": 0.3 * k - 0.1, "high": 0.3 * k + 0.1, "rollout": k, "n": 2**k} for k in range(3)]
    return {
        "study": "made-up",
        "data": {"name": "pairs", "uri": "pairs.jsonl", "pairs": 2312},
        "cleaning": {
            "rows_in": 2312,
            "categories": {"same": 2200, "opposite": 112},
            "actions": {"keep": 2200, "flip": 112, "drop": 0},
            "category_actions": {"same": {"keep": 2200}, "opposite": {"flip": 112}},
            "planted": None,
        },
        "gold": {"kind": "bag_of_words", "accuracy": 0.62, "n": 312, "accuracy_interval": [0.57, 0.67]},
        "reward_models": reward_models,
        "baselines": {"longest_wins": interval(0.45, 600), "coin": interval(0.5, 600)},
        "reward_model_tests": [
            {"first": "rm_00", "second": "rm_25", "first_only": 50, "second_only": 20, "p_value": 0.001, "corrected_p_value": 0.003}
        ],
        "policies": policies,
        "curves": {
            "ppo": [{"policy": "ppo_00", "reward_model": "rm_00", "points": points}],
            "best_of_n": [{"reward_model": "rm_00", "points": points}],
        },
        "findings": ["Null results are results too (p = 0.62)."],
        "caveats": ["The gold judge is a bag of words."],
        "lineage": {"seed": 7, "study_sha256": "cd" * 32, "versions": {"torch": "2.13.0"}},
    }


HOSTILE = '</script><script>alert("x")</script><img src=http://example.com/x.png onerror=alert(1)>'


@pytest.fixture(scope="module")
def page(report: dict) -> str:
    example = {
        "action": "flip",
        "confidence": 0.9,
        "prompt": HOSTILE,
        "chosen": HOSTILE,
        "rejected": "",
        "evidence": [{"detector": "committee", "explanation": HOSTILE}],
    }
    answers = [{"prompt": HOSTILE, "answers": [{"policy": "sft", "text": HOSTILE, "gold": 0.2}]}]
    named = {**report, "data": {**report["data"], "name": "pairs </script> & co"}}
    return render_html(named, examples={"opposite": [example]}, answers=answers)


def test_the_report_has_the_keys_that_a_script_may_count_on(report):
    assert set(TOP_KEYS) <= set(report)


def test_every_chart_has_its_specification_and_its_place(page):
    block = page[page.rindex("const specifications = ") :]
    for name in ("cleaning", "leaderboard", "kl", "best_of_n", "dpo", "ppo"):
        assert f'id="chart-{name}"' in page
        text = re.search(rf'^"{name}": (.*),$', block, re.MULTILINE)
        assert text is not None
        assert json.loads(text[1])["$schema"].startswith("https://vega.github.io/schema/vega-lite/")


def test_figures_findings_and_caveats_are_on_the_page(page):
    for text in (
        "74.0 %",
        "Null results are results too (p = 0.62).",
        "The gold judge is a bag of words.",
        "2,312",
        "the longer answer wins",
        "2.13.0",
    ):
        assert text in page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.found.append((tag, dict(attributes)))


def tags(page):
    parser = Tags()
    parser.feed(page)
    return parser.found


def test_no_text_of_the_data_becomes_markup(page):
    names = [tag for tag, _ in tags(page)]
    assert names.count("script") == 2
    assert "img" not in names
    assert not any(name.startswith("on") for _, attributes in tags(page) for name in attributes)


def test_the_page_asks_the_network_for_nothing(page):
    assert not any(name in attributes for _, attributes in tags(page) for name in ("src", "href", "srcset", "data", "poster"))
    styles = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in styles and "url(" not in styles


def test_the_page_fits_a_phone(page):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    block = page[page.rindex("const specifications = ") :]
    assert block.count('"width": "container"') == 6


def test_a_long_text_is_shortened_in_its_middle():
    short = plain_text("begin " + "word " * 400 + "end", limit=100)
    assert len(short) < 110
    assert short.startswith("begin") and short.endswith("end") and "[…]" in short


def test_caveats_name_what_limits_the_figures():
    data = {"name": "pairs", "pairs": 10}
    sentences = " ".join(caveats({"kind": "bag_of_words", "accuracy": 0.618}, data, [0.0, 0.4]))
    assert "62 % of pairs" in sentences and "symmetric" in sentences and "nonsense" in sentences
    assert "symmetric" not in " ".join(caveats(None, data, [0.0]))
    assert "bag of words" not in " ".join(caveats(None, data, [0.0]))
