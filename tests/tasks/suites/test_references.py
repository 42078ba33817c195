"""Metrics agree to 1e-9 with what published numbers were computed by, on a few thousand pairs.

References are the packages themselves, or their published definition written out anew.
"""

import collections
import importlib.util
import random
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from instruct.eval import metrics
from tasks import answers
from tasks.flan2021 import metrics as flan2021_metrics
from tasks.suites import grade_school, scoring

ODD = (
    *(
        "",
        " ",
        "the",
        "a an the",
        "The.",
        "...",
        "$5",
        "1,234.00",
        "-3",
        "5%",
        "Ça",
        "naïve",
        "北京",
    ),
    *(
        "東京 は",
        "น้ำ",
        "নয়",
        "don't",
        "U.S.",
        "x\ny.\nz",
        "«oui»",
        "½",
        "١٢",
        "🙂",
        "\u00a0a",
        "ab_c",
    ),
)
WORDS = (
    *("the", "a", "an", "cat", "cats", "running", "ran", "Paris", "paris,", "No.", "42", "-7"),
    *(
        "1,200",
        "(B)",
        "Ünder",
        "北京",
        "and",
        "theory",
        "\n",
        "it's",
        "—",
        "ni\u00f1o",
        "!",
        "mats.",
    ),
)


def pairs(number: int = 2_000) -> list[tuple[str, str]]:
    """Odd texts with each other, then random ones of which half are changes of the other."""
    draw = random.Random(5)
    found = [(one, other) for one in ODD for other in ODD]
    while len(found) < number:
        one = draw.choices(WORDS, k=draw.randrange(12))
        other = draw.choices(WORDS, k=draw.randrange(12))
        if draw.random() < 0.5:
            other = [w if draw.random() < 0.7 else draw.choice(WORDS) for w in one]
        found.append((" ".join(one), " ".join(other)))
    return found


PAIRS = pairs()


def of_each(metric, references=None) -> dict[str, np.ndarray]:
    """A metric of every pair by itself."""
    targets = references or [reference for reference, _ in PAIRS]
    found = [metric([t], [prediction]) for t, (_, prediction) in zip(targets, PAIRS)]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def several() -> list[list[str]]:
    """One to three references for each pair."""
    draw = random.Random(6)
    return [[r, *(draw.choice(PAIRS)[0] for _ in range(draw.randrange(3)))] for r, _ in PAIRS]


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_rouge_is_the_packages(use_stemmer):
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=use_stemmer)
    theirs = [scorer.score(reference, prediction) for reference, prediction in PAIRS]
    ours = of_each(lambda t, p: metrics.rouge(t, p, use_stemmer))
    for name in names:
        expected = np.array([100 * one[name].fmeasure for one in theirs])
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-9)
        assert 5 < expected.mean() < 95
    assert any(ours["rougeL"] != ours["rougeLsum"])


@pytest.mark.slow
def test_rouge_l_is_that_of_tk_instruct():
    """Its scorer has the default tokeniser and a stemmer; the best reference counts."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    listed = several()
    expected = [
        100 * max(scorer.score(target=r, prediction=p)["rougeL"].fmeasure for r in references)
        for references, (_, p) in zip(listed, PAIRS)
    ]
    np.testing.assert_allclose(of_each(answers.rouge_l, listed)["rougeL"], expected, atol=1e-9)
    whole = answers.rouge_l(listed, [p for _, p in PAIRS])["rougeL"]
    assert whole == pytest.approx(np.mean(expected), abs=1e-9)


def tk_instruct_normal(text: str) -> str:
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(text.split())


def test_exact_match_is_that_of_tk_instruct():
    listed = several()
    expected = [
        100.0 * any(tk_instruct_normal(p) == tk_instruct_normal(r) for r in references)
        for references, (_, p) in zip(listed, PAIRS)
    ]
    found = of_each(answers.loose_exact_match, listed)["exact_match"]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def squad_normal(text: str) -> str:
    """SQuAD 1.1: lower case, punctuation out, articles to blanks, blanks mended."""
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, reference: str) -> float:
    given, expected = squad_normal(prediction).split(), squad_normal(reference).split()
    same = sum((collections.Counter(given) & collections.Counter(expected)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(expected)
    return 2 * precision * recall / (precision + recall)


def test_em_and_f1_are_those_of_squad():
    listed = several()
    found = of_each(metrics.squad, listed)
    matches, overlaps = [], []
    for references, (_, p) in zip(listed, PAIRS):
        matches.append(100.0 * max(squad_normal(p) == squad_normal(r) for r in references))
        overlaps.append(100.0 * max(squad_f1(p, r) for r in references))
    np.testing.assert_allclose(found["em"], matches, atol=1e-9)
    np.testing.assert_allclose(found["f1"], overlaps, atol=1e-9)
    nothing_left = [i for i, (r, p) in enumerate(PAIRS) if not squad_normal(r + p)]
    assert len(nothing_left) > 10 and 5 < np.mean(overlaps) < 95


def test_bleu_is_sacrebleus():
    listed = [[r or "x" for r in references] for references in several()]
    for size in (1, 7, 200, len(PAIRS)):
        part, written = listed[:size], [p for _, p in PAIRS[:size]]
        streams: Any = [[r[i] if i < len(r) else None for r in part] for i in range(3)]
        streams = [stream for stream in streams if any(stream)]
        theirs = sacrebleu.BLEU(tokenize="intl", smooth_method="exp", force=True)
        expected = theirs.corpus_score(written, streams).score
        assert expected > 5 or size < 200
        assert flan2021_metrics.bleu(part, written)["bleu"] == pytest.approx(expected, abs=1e-9)


# ---------------------------------------------------------------- lm-evaluation-harness 0.4.13

NUMBER_NOISE = (",", r"\$", r"(?s).*#### ", r"\.$")
FLEXIBLE = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
STRICT_COT, STRICT_GSM8K = r"The answer is (\-?[0-9\.\,]+).", r"#### (\-?[0-9\.\,]+)"
STRICT_MMLU = "(?<=answer is )(.*)(?=.)"
GSM8K = scoring.number_filters("The answer is ", ".")


def picked(pattern: str, reply: str, which: int) -> str:
    """The filters `regex` and `take_first`."""
    found = re.findall(pattern, reply)
    if not found:
        return "[invalid]"
    chosen = found[which]
    if isinstance(chosen, tuple):
        chosen = next(filter(None, chosen), "[invalid]")
    return chosen.strip()


def same(given: str, wanted: str, noise: tuple[str, ...], punctuation: bool) -> bool:
    """The metric `exact_match` with case ignored."""
    for pattern in noise:
        given, wanted = re.sub(pattern, "", given), re.sub(pattern, "", wanted)
    given, wanted = given.lower(), wanted.lower()
    if punctuation:
        table = str.maketrans("", "", string.punctuation)
        given, wanted = given.translate(table), wanted.translate(table)
    return given == wanted


def replies() -> list[tuple[str, str]]:
    """(right answer, reply) around numbers, letters and phrases."""
    draw = random.Random(7)
    values = (*("5", "18", "1,200", "-3", "3.5", "0", "72.", "1.200,5", "$5", "5%", "４", "๔"),)
    values = (*values, *("(A)", "(B)", "B", "b.", "(C) it", "", "Yes"))
    heads = ("The answer is ", "the answer is ", "So the answer is", "#### ", "answer: ", "= ", "")
    ends = (".", "", ".\n\nQ: More?\nA: The answer is 9.", " dollars.", "\n", " or 7", ". ")
    found = []
    for _ in range(3_000):
        value = draw.choice(values)
        reply = "".join(
            draw.choice(heads) + (value if draw.random() < 0.7 else draw.choice(values))
            + draw.choice(ends)
            for _ in range(draw.randrange(1, 4))
        )  # fmt: skip
        found.append((value, reply))
    return found


def agrees(metric, name: str, expected: list[bool]) -> None:
    found = [metric([gold], [reply])[name] for gold, reply in replies()]
    np.testing.assert_allclose(found, [100.0 * right for right in expected], atol=1e-9)
    assert 0.03 < np.mean(expected) < 0.97


def test_filters_of_gsm8k():
    for phrase, ending, strict in (
        ("The answer is ", ".", STRICT_COT),
        ("#### ", "", STRICT_GSM8K),
    ):
        metric = scoring.number_filters(phrase, ending)
        for name, pattern, which in (
            ("strict_match", strict, 0),
            ("flexible_extract", FLEXIBLE, -1),
        ):
            expected = [
                same(picked(pattern, r, which), g, NUMBER_NOISE, False) for g, r in replies()
            ]
            agrees(metric, name, expected)


def test_filters_of_mmlu():
    expected = [same(picked(STRICT_MMLU, r, 0), g, (), True) for g, r in replies()]
    agrees(scoring.strict_mmlu, "strict_match", expected)


needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval is not installed"
)


def harness_filters(file: str) -> tuple[dict, dict]:
    """(filters by name, arguments of the metric) of one of the harness's own task files."""
    import lm_eval
    import yaml
    from lm_eval.filters.extraction import RegexFilter

    path = Path(str(lm_eval.__file__)).parent / "tasks" / file
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    made = {}
    for one in task["filter_list"]:
        first = {k: v for k, v in one["filter"][0].items() if k != "function"}
        made[one["name"]] = RegexFilter(**first)
    (metric,) = task.get("metric_list", [{}])
    names = ("ignore_case", "ignore_punctuation", "regexes_to_ignore")
    return made, {name: metric[name] for name in names if name in metric}


@needs_harness
@pytest.mark.parametrize(
    ("file", "metric", "name"),
    [
        ("gsm8k/gsm8k-cot.yaml", GSM8K, "strict-match"),
        ("gsm8k/gsm8k-cot.yaml", GSM8K, "flexible-extract"),
        ("gsm8k/gsm8k.yaml", scoring.number_filters("#### "), "strict-match"),
        (
            "mmlu/flan_cot_fewshot/_mmlu_flan_cot_fewshot_template_yaml",
            scoring.strict_mmlu,
            "get-answer",
        ),
    ],
)  # fmt: skip
def test_filters_are_the_harnesss(file, metric, name):
    from lm_eval.api.metrics import exact_match_hf_evaluate

    filters, options = harness_filters(file)
    ours = "strict_match" if name == "get-answer" else name.replace("-", "_")
    expected = []
    for gold, reply in replies():
        ((read,),) = filters[name].apply([[reply]], [{}])
        found = exact_match_hf_evaluate(predictions=[read], references=[gold], **options)
        expected.append(bool(found["exact_match"]))
    agrees(metric, ours, expected)


@needs_harness
@pytest.mark.parametrize("row", grade_school.LANGUAGES)
def test_phrases_of_mgsm_are_the_harnesss(row):
    filters, _ = harness_filters(f"mgsm/native_cot/mgsm_native_cot_{row.code}.yaml")
    metric = scoring.number_filters(row.filter_phrase, row.closing)
    task: scoring.HarnessTask = getattr(metric, "__self__")  # noqa: B009
    pattern, _ = getattr(task.filters["strict_match"], "args")  # noqa: B009
    assert pattern.pattern.replace("\\ ", " ") == filters["strict-match"].regex_pattern
