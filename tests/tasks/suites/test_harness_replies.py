"""Made-up replies get the verdicts that lm-evaluation-harness's own tasks give (extra: lm-eval).

Its task files are loaded as it loads them; its stop strings, filters and metric judge every reply,
and so do our task's `postprocess_fn` and `metric_fns`, in every mode that has a task of its own
there. No verdict may differ but those of `ALLOWED`.

    python -m tests.tasks.suites.test_harness_replies     prints the table of agreement
"""

import collections
import contextlib
import dataclasses
import importlib.util
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from instruct.data.feed.rendering import ExampleRenderer, RecordList, example_features
from instruct.data.registry import find_spec
from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered
from tasks.suites import bbh, grade_school
from tasks.suites import mixtures as _register  # noqa: F401
from tests.workspaces import workspace

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval is not installed"
)

# Name in the harness -> ours. Filters without a name there are "none".
OURS = {
    "get-answer": "strict_match",
    "strict-match": "strict_match",
    "flexible-extract": "flexible_extract",
    "get_response": "get_response",
    "none": "unfiltered",
}
# Leaf -> (most verdicts of a filter that may differ, why they do).
ALLOWED = {
    f"bbh.object_counting.{mode}": (
        70,
        "the harness's run ends with an error at number words that are no number ('thousand two "
        "thousand'); here they are wrong answers",
    )
    for mode in ("zs_direct", "zs_cot")
}


class Case(NamedTuple):
    """A leaf of ours, the harness's task file, and questions as both have them."""

    leaf: str
    file: str
    documents: list[dict[str, Any]]
    records: list[Record]
    answers: list[str]  # right ones and others, in forms that filters may tell apart
    closings: tuple[tuple[str, str], ...] = ()  # what the filter wants around an answer


def record_of(fields: dict[str, str], answer: str, options: Sequence[str] = ()) -> Record:
    index = options.index(answer) if answer in options else -1
    return Record("made-up", fields, answer, tuple(options), index)


# ---------------------------------------------------------------- questions

CHOICES = {
    "date_understanding": ("(A) 01/02/2020", "(B) 01/02/2021", "(C) 2020"),
    "disambiguation_qa": ("(A) The cook", "(B) The cook's dog", "(C) Ambiguous"),
    "ruin_names": ("(A) guilty", "(B) guilty of romance", "(C) -guilty", "(D) guilty"),
}
WORDS = {
    "boolean_expressions": ("True", "False"),
    "causal_judgement": ("Yes", "No"),
    "dyck_languages": ("] ) }", "} ]", "> >"),
    "formal_fallacies": ("valid", "invalid"),
    "multistep_arithmetic_two": ("24", "-5", "1040"),
    "navigate": ("No", "Yes"),
    "object_counting": ("12", "9", "142"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
    "word_sorting": ("apple bee cat", "cat bee apple"),
}
SAID = {
    "multistep_arithmetic_two": ("twenty four", "24", "minus five", "one thousand and forty", "-"),
    "object_counting": (
        *("twelve", "Nine", "one hundred forty two", "forty-two", "one, two", "one million two"),
        *("someone often", "thousand two thousand", "two thousand thousand", "trillion", "none"),
    ),
    "sports_understanding": ("plausible", "not plausible", "NO", "implausible", "know"),
    "web_of_lies": ("tells the truth", "does not tell the truth", "YES", "is telling the truth"),
    "word_sorting": ("bee, apple", "apple apple cat bee", "Apple", "bee cat apple bee cat"),
    "dyck_languages": ("])}", '"} ]"', "{ } ]", "brackets"),
    "formal_fallacies": ("Valid", "invalid, not valid", "not valid"),
    "boolean_expressions": ("true", "True and False", "Falsehood"),
}


def bbh_cases() -> Iterator[Case]:
    for row in bbh.SUB_TASKS:
        name = row.name
        if name in WORDS:
            words, question = WORDS[name], "Say it."
            if name == "word_sorting":
                question = "Sort the following words alphabetically: List: cat bee apple"
            answers = [*words, *SAID.get(name, ())]
        else:
            choices = CHOICES.get(name, ("(A) one", "(B) two", "(C) twenty-two"))
            question = "Which one?\nOptions:\n" + "\n".join(choices)
            words = [choice[:3] for choice in choices]
            texts = [choice[4:] for choice in choices]
            answers = [*words, *texts, "B", "(b)", ": C", "two and (A)", texts[1].upper(), "(Z)"]
        documents = [{"input": question, "target": word} for word in words[:2]]
        options = words if name not in WORDS else bbh.options_of(question, words[0], row.labels)
        records = [
            record_of({"question": question, "description": "Do it."}, word, options)
            for word in words[:2]
        ]
        for mode, folder in (
            ("cot", "cot_fewshot"),
            ("direct", "fewshot"),
            ("zs_direct", "zeroshot"),
            ("zs_cot", "cot_zeroshot"),
        ):
            yield Case(
                f"bbh.{name}.{mode}", f"bbh/{folder}/{name}.yaml", documents, records, answers
            )


def mmlu_cases() -> Iterator[Case]:
    choices = ("Guilty", "Guilty of Romance (A)", "two", "Two, or more")
    fields = dict(zip("abcd", choices)) | {"subject": "astronomy", "listed": "(A) Guilty ..."}
    fields["question"] = "Which (A) is (B)?"
    documents = [
        {"question": fields["question"], "choices": list(choices), "answer": n, "subject": "x"}
        for n in (0, 2)
    ]
    records = [record_of(fields, choices[n], choices) for n in (0, 2)]
    answers = [
        *(
            "(A)",
            "(C)",
            "A",
            "C",
            "(c)",
            "c.",
            "(C) two",
            "guilty",
            "GUILTY OF ROMANCE",
            "two",
            "Two",
        ),
        *(": C", "(A) or (C)", "choice C", "", "(B)", "two or more", "**(C)**"),
    ]
    for mode, file in (
        ("cot", "flan_cot_fewshot"),
        ("zs_cot", "flan_cot_zeroshot"),
        ("direct", "generative"),
        ("zs_direct", "generative"),
    ):
        path = f"mmlu/{file}/mmlu_astronomy.yaml"
        yield Case(f"mmlu.astronomy.{mode}", path, documents, records, answers)


NUMBERS = (
    *("18", "1,200", "1200", "1.200", "-3", "-3.5", "3.5", "$18", "18%", "5$", "0", "18.0", "18."),
    *(
        "１８",
        "๑๘",
        "১৮",
        "70\u202f000",
        "70'000",
        "1 200",
        "#### 18",
        "eighteen",
        "\u22123",
        "1/2",
    ),
)


def number_cases() -> Iterator[Case]:
    golds = ("18", "1200", "-3")
    worked = [f"So it is.\n#### {number}" for number in ("18", "1,200", "-3")]
    documents = [{"question": "How many?", "answer": answer} for answer in worked]
    records = [record_of({"question": "How many?"}, gold) for gold in golds]
    for mode, file in (("cot", "gsm8k-cot"), ("zs_cot", "gsm8k-cot-zeroshot")):
        leaf = f"gsm8k_test.gsm8k.{mode}"
        yield Case(leaf, f"gsm8k/{file}.yaml", documents, records, list(NUMBERS))
    for row in grade_school.LANGUAGES:
        fields = {"question": f"{row.question}: ?", "cue": "Answer:"}
        asked = [{"question": "?", "answer": None, "answer_number": int(gold)} for gold in golds]
        records = [record_of(fields, gold) for gold in golds]
        for mode in ("cot", "zs_cot"):
            path = f"mgsm/native_cot/mgsm_native_cot_{row.code}.yaml"
            closings = ((row.filter_phrase, row.closing), (f"{row.phrases[-1]} ", "."))
            yield Case(f"mgsm.{row.code}.{mode}", path, asked, records, list(NUMBERS), closings)


# ---------------------------------------------------------------- replies

PHRASES = (
    *("", "The answer is ", "So the answer is ", "the answer is", "The answer: ", "answer is: "),
    *("The final answer: ", "The final answer is ", "#### ", "= ", "It says: ", "Question of "),
    *(f"{phrase} " for row in grade_school.LANGUAGES for phrase in row.phrases),
    *("答えは", "답은 ", "ANSWER IS "),
)
ENDINGS = (
    *(
        "",
        ".",
        "!",
        "。",
        "です。",
        " ",
        "\n",
        ".\n",
        ", I hope.",
        " or (B).",
        " dollars.",
        '"',
        "\\",
    ),
    ".\n\nSome more. The answer is 9.",
)
CONTINUED = (
    *("", "\n\nQ: 1+1?\nA: The answer is 2.", " Q: 1+1? The answer is 2.", "</s>The answer is 2."),
    *("<|im_end|> 2", "\nQuestion: 1+1?\nThe answer is 2.", "\n\n2", " Quite 2.", "\nAnswer: 2"),
    *(f"\n{row.stops[0]} 1+1? {row.phrases[0]} 2" for row in grade_school.LANGUAGES),
    *(f"\n{row.question} : 3 {row.question}： 4" for row in grade_school.LANGUAGES),
)
REASONS = ("", "2 + 2 = 4, not 5. ", "Quickly: (C) no.\n", "First, two is 2.\n\n", "Yes, no. ")


def replies(case: Case, number: int) -> list[str]:
    """Replies to each of the case's questions: every answer in every place once, then draws."""
    draw = random.Random(case.leaf)
    plain = [f"{phrase}{answer}." for phrase in PHRASES[:5] for answer in case.answers]
    plain += [f"{answer}{more}" for answer in case.answers for more in ("", "\n", *CONTINUED[1:8])]
    plain += [f"{head}{answer}{end}" for head, end in case.closings for answer in case.answers]
    ended = [f"{PHRASES[1]}{case.answers[0]}{end}" for end in (*ENDINGS, *CONTINUED)]
    drawn = [
        "".join(map(draw.choice, (REASONS, PHRASES, case.answers, ENDINGS, CONTINUED)))
        for _ in range(number)
    ]
    return ["", *plain, *ended, *drawn]


# ---------------------------------------------------------------- verdicts


class Instance:
    """What the harness's filters read and write."""

    def __init__(self, reply: str, document: dict[str, Any]) -> None:
        self.resps, self.doc = [reply], document
        self.filtered_resps: dict[str, str] = {}


def harness_verdicts(case: Case, asked: Sequence[tuple[int, str]]) -> dict[str, list[bool | None]]:
    """Filter -> verdict of each (question, reply); None where it stops with an error."""
    import lm_eval
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters import build_filter_ensemble
    from lm_eval.models.utils import postprocess_generated_text
    from lm_eval.tasks._yaml_loader import load_yaml
    from lm_eval.utils import apply_template

    task = load_yaml(Path(str(lm_eval.__file__)).parent / "tasks" / case.file)
    (metric,) = task["metric_list"]
    names = ("ignore_case", "ignore_punctuation", "regexes_to_ignore")
    options = {name: metric[name] for name in names if name in metric}
    listed = task.get("filter_list") or [{"name": "none", "filter": [{"function": "take_first"}]}]
    verdicts: dict[str, list[bool | None]] = {}
    golds = [str(apply_template(task["doc_to_target"], d)) for d in case.documents]
    cut = [
        postprocess_generated_text(reply, task["generation_kwargs"]["until"], None)
        for _, reply in asked
    ]
    for one in listed:
        steps = [
            (step["function"], {k: v for k, v in step.items() if k != "function"})
            for step in one["filter"]
        ]
        ensemble = build_filter_ensemble(one["name"], steps)
        instances = [Instance(r, case.documents[n]) for (n, _), r in zip(asked, cut)]
        try:
            ensemble.apply(instances)  # type: ignore[arg-type]
        except (ValueError, IndexError):
            for instance in instances:  # one at a time, to see which
                with contextlib.suppress(ValueError, IndexError):
                    ensemble.apply([instance])  # type: ignore[list-item]
        verdicts[one["name"]] = [
            bool(
                exact_match_hf_evaluate(
                    predictions=[instance.filtered_resps[one["name"]]],
                    references=[golds[n]],
                    **options,
                )["exact_match"]
            )
            if one["name"] in instance.filtered_resps
            else None
            for (n, _), instance in zip(asked, instances)
        ]
    return verdicts


def our_verdicts(case: Case, asked: Sequence[tuple[int, str]]) -> dict[str, list[bool]]:
    """Metric -> verdict of each (question, reply), as evaluation computes them."""
    name, _, mode = case.leaf.rpartition(".")
    spec = find_spec(workspace(), name)
    assert spec.postprocess_fn is not None
    verdicts: dict[str, list[bool]] = collections.defaultdict(list)
    examples, targets = [], []
    for record in case.records:
        exemplar = dataclasses.replace(
            record,
            id="exemplar",
            fields={**record.fields, "question": "Another one?"},
            rationale=" So the answer is it.",
        )
        shots = spec.fixed_shots(mode)
        renderer = ExampleRenderer(
            *(mode, spec.templates, shots, Frame(load_vocabulary("bytes")), (10_000, 1_000)),
            exemplars=RecordList([exemplar]) if shots else None,
        )
        shown = renderer(record, 0, 0)
        assert isinstance(shown, Rendered)
        examples.append(example_features(record, shown))
        targets.append(spec.postprocess_fn(shown.targets, example=examples[-1], is_target=True))
    for n, reply in asked:
        read = spec.postprocess_fn(reply, example=examples[n], is_target=False)
        for metric in spec.metric_fns_of(mode)[1:]:
            for metric_name, value in metric([targets[n]], [read]).items():
                verdicts[metric_name].append(value == 100.0)
    return verdicts


class Agreement(NamedTuple):
    leaf: str
    file: str
    filter: str
    replies: int
    right: int  # by the harness
    errors: int  # the harness stops, and the reply is wrong here
    differences: list[str]


def agreement(case: Case, number: int = 40) -> list[Agreement]:
    """The comparison of one case, a row a filter."""
    asked = list(itertools.product(range(len(case.records)), replies(case, number)))
    theirs, ours = harness_verdicts(case, asked), our_verdicts(case, asked)
    assert {OURS[name] for name in theirs} == set(ours), case.leaf
    rows = []
    for name, verdicts in theirs.items():
        pairs = list(zip(asked, verdicts, ours[OURS[name]]))
        errors = sum(theirs is None and not mine for _, theirs, mine in pairs)
        differences = [
            f"{case.records[n].answer!r}: {reply!r} is {theirs} there, {mine} here"
            for (n, reply), theirs, mine in pairs
            if theirs != mine and not (theirs is None and not mine)
        ]
        right = sum(verdict is True for verdict in verdicts)
        rows.append(Agreement(case.leaf, case.file, name, len(pairs), right, errors, differences))
    return rows


CASES = [*bbh_cases(), *mmlu_cases(), *number_cases()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.leaf)
def test_replies_are_judged_as_the_harness_judges_them(case):
    for row in agreement(case):
        assert row.differences == [], f"{row.filter} of {row.file}"
        assert row.replies > 100 and 0 < row.right < row.replies
        assert row.errors <= ALLOWED.get(case.leaf, (0, ""))[0]


def test_every_mode_has_its_own_metrics():
    """Each of these modes is compared, but for GSM8K's `zs_direct`, which the harness lacks."""
    compared = {case.leaf for case in CASES}
    for case in CASES:
        spec = find_spec(workspace(), case.leaf.rpartition(".")[0])
        assert {spec.leaf_name(mode) for mode in spec.all_modes} - compared <= {
            "gsm8k_test.gsm8k.zs_direct"
        }


def test_a_question_of_the_models_own_ends_a_reply():
    """The reply that this is about, in each of the harness's tasks that stop at "Q:"."""
    reply = "The answer is 18.\n\nQ: 1+1?\nA: The answer is 2."
    for leaf in ("gsm8k_test.gsm8k.cot", "gsm8k_test.gsm8k.zs_cot"):
        (case,) = (case for case in CASES if case.leaf == leaf)
        verdicts = [(n, reply) for n in range(3)]
        for judged in (harness_verdicts(case, verdicts), our_verdicts(case, verdicts)):
            assert all(one == [True, False, False] for one in judged.values())


if __name__ == "__main__":
    totals: dict[tuple[str, str], list[int]] = {}
    for made in CASES:
        for found in agreement(made):
            family = found.file.rpartition("/")[0] if "gsm8k/" not in found.file else found.file
            total = totals.setdefault((family, found.filter), [0, 0, 0, 0])
            for place, value in enumerate(
                (found.replies, found.right, found.errors, len(found.differences))
            ):
                total[place] += value
            for line in found.differences[:3]:
                print(found.leaf, found.filter, line)
    print("| tasks of the harness | filter | replies | right | error there | differ |")
    print("|---|---|---:|---:|---:|---:|")
    for (family, name), counts in totals.items():
        print(f"| {family} | {name} | {' | '.join(map(str, counts))} |")
