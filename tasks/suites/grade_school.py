"""Word problems by chain of thought: MGSM (Shi et al. 2023) and GSM8K (Cobbe et al. 2021).

    mgsm.<language>.cot      eight exemplars with reasoning in the language itself
    gsm8k_test.gsm8k.cot     the eight English ones, as "Q: ..." and "A: ..."
    *.zs_cot                 without exemplars; GSM8K with "Let's think step by step"

Both take their exemplars from MGSM's file: seven of the eight problems are those of Wei et al. 2022
in MGSM's words, the eighth is another. Files: mgsm/mgsm_<language>.tsv, mgsm/exemplars.py (as
published; parsed, never run) or mgsm/exemplars.json (the same as JSON), gsm8k/test.jsonl. Else
juletxara/mgsm (its training split holds the exemplars) and openai/gsm8k as the Hugging Face hub has
them.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.files import read_lines
from instruct.data.sources.public_releases import Gsm8kSource
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import Source, TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.json_text import parse_json
from instruct.prompts.numbers import ENGLISH, NumberForm, numbers_in
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.suites.files import HubSplit, SplitFiles, SuiteSource, hub_url, read_text
from tasks.suites.reading import read_number
from tasks.suites.scoring import CHAT_STOPS, QUESTION_STOPS, number_filters
from tasks.suites.task import suite_task

MGSM, GSM8K = "mgsm", "gsm8k_test"
SHOTS = 8
MGSM_URL = "https://github.com/google-research/url-nlp/tree/main/mgsm"
GSM8K_URL = "https://github.com/openai/grade-school-math"
GSM8K_HUB, MGSM_HUB = "openai/gsm8k", "juletxara/mgsm"
EXEMPLARS = ("mgsm/exemplars.py", "mgsm/exemplars.json")


class Language(NamedTuple):
    """A language of MGSM.

    Attributes:
        code: of the file's name.
        name: in English.
        question: the word that heads a question; it ends a reply.
        phrases: texts before the answer in the exemplars, the most frequent one first.
        number: meaning of dot and comma between digits, and words of scale.
        closing: text after the answer in the harness's filter for the language.
        filter_stop: the harness's stop string, if it is not `question` and a colon.
    """

    code: str
    name: str
    question: str
    phrases: tuple[str, ...]
    number: NumberForm
    closing: str = ""
    filter_stop: str = ""

    @property
    def filter_phrase(self) -> str:
        """Text before the answer in the harness's filter, which is English for Bengali."""
        if self.code == "bn":
            return "The answer is "
        return self.phrases[0] + ("" if self.code == "ja" else " ")

    @property
    def stops(self) -> tuple[str, ...]:
        """The harness's stop strings."""
        return (self.filter_stop or f"{self.question}:", *CHAT_STOPS)


# Words of scale that are written after digits, and their powers of ten.
_BENGALI = (("হাজার", 3), ("লাখ", 5), ("লক্ষ", 5), ("কোটি", 7))
_GERMAN = (
    *(("tausend", 3), ("tsd.", 3), ("million", 6), ("millionen", 6), ("mio.", 6), ("mio", 6)),
    *(("milliarde", 9), ("milliarden", 9), ("mrd.", 9), ("mrd", 9)),
)
_SPANISH = (("mil", 3), ("millón", 6), ("millon", 6), ("millones", 6))
_FRENCH = (("mille", 3), ("million", 6), ("millions", 6), ("milliard", 9), ("milliards", 9))
_JAPANESE = (("百", 2), ("千", 3), ("万", 4), ("億", 8))
_RUSSIAN = (
    *(("тысяча", 3), ("тысячи", 3), ("тысяч", 3), ("тыс.", 3), ("миллион", 6), ("миллиона", 6)),
    *(("тыс", 3), ("миллионов", 6), ("млн", 6), ("миллиард", 9), ("миллиарда", 9)),
    *(("миллиардов", 9), ("млрд", 9)),
)
_SWAHILI = (("elfu", 3), ("laki", 5), ("milioni", 6), ("bilioni", 9))
_TELUGU = (("వేలు", 3), ("వేల", 3), ("లక్షలు", 5), ("లక్షల", 5), ("లక్ష", 5), ("కోట్ల", 7), ("కోటి", 7))
_THAI = (("ร้อย", 2), ("พัน", 3), ("หมื่น", 4), ("แสน", 5), ("ล้าน", 6))
_CHINESE = (("百", 2), ("千", 3), ("万", 4), ("萬", 4), ("亿", 8), ("億", 8))

LANGUAGES = (
    Language("bn", "Bengali", "প্রশ্ন", ("উত্তর হল",), NumberForm(".", _BENGALI)),
    Language(
        "de", "German", "Frage", ("Die Antwort lautet", "Die Antwort ist"),
        NumberForm(",", _GERMAN),
    ),
    Language("en", "English", "Question", ("The answer is",), ENGLISH),
    Language("es", "Spanish", "Pregunta", ("La respuesta es",), NumberForm(",", _SPANISH)),
    Language(
        "fr", "French", "Question", ("La réponse est",), NumberForm(",", _FRENCH),
        filter_stop="Question :",
    ),
    Language(
        "ja", "Japanese", "問題", ("答えは",), NumberForm(".", _JAPANESE), "です。", "問題："
    ),
    Language(
        "ru", "Russian", "Задача", ("Ответ —", "Ответ –", "Ответ -", "Ответ:", "Ответ"),
        NumberForm(",", _RUSSIAN),
    ),
    Language("sw", "Swahili", "Swali", ("Jibu ni",), NumberForm(".", _SWAHILI, scale_first=True)),
    Language("te", "Telugu", "ప్రశ్న", ("సమాధానం",), NumberForm(".", _TELUGU)),
    Language("th", "Thai", "โจทย์", ("คำตอบคือ",), NumberForm(".", _THAI)),
    Language(
        "zh", "Chinese", "问题", ("答案是", "答案为"), NumberForm(".", _CHINESE), "。", "问题："
    ),
)  # fmt: skip


class Exemplar(NamedTuple):
    """A worked problem as published: "Question: ..." and "Step-by-Step Answer: ...", its number."""

    question: str
    solution: str
    answer: str


def load_exemplars(path: Path | tuple[Path, ...], code: str) -> list[Exemplar]:
    """The exemplars of a language in their order, from the published file or the hub's rows.

    Raises:
        UserError: the file has another form, or not that language.
    """
    if isinstance(path, tuple):
        return _hub_exemplars(path)
    text = read_text(path)
    try:
        values = _constants(text) if path.suffix == ".py" else parse_json(text)
        exemplars = values["exemplars"][code]
        answers = [(exemplars[str(i)], n) for i, n in enumerate(values["number_answers"], 1)]
        found = [Exemplar(exemplar["q"], exemplar["a"], str(n)) for exemplar, n in answers]
        if not found or not all(isinstance(text, str) for one in found for text in one):
            raise ValueError("no worked problems")
        return found
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{path} has no exemplars of language {code!r} in the published form ({error!r}); get "
            f"it from {MGSM_URL}"
        ) from error


def _hub_exemplars(files: tuple[Path, ...]) -> list[Exemplar]:
    exemplars = []
    for row in read_rows(files):
        fields: Mapping[str, Any] = {} if isinstance(row, Dropped) else row
        question, solution = fields.get("question"), fields.get("answer")
        numbers = numbers_in(str(fields.get("answer_number")))
        if not isinstance(question, str) or not isinstance(solution, str) or not numbers:
            raise UserError(
                f"{files[0]} has rows without a question, an answer and an answer_number, which "
                f"exemplars need; get it from {hub_url(MGSM_HUB)}"
            )
        exemplars.append(Exemplar(question, solution, _plain(numbers[0])))
    return exemplars


def _plain(number: Decimal) -> str:
    """A number without an exponent, and without a fraction that is 0 (tables of floats add it)."""
    whole = number.to_integral_value()
    return format(whole if number == whole else number, "f")


def _constants(text: str) -> dict[str, Any]:
    """The constants of the published module, which is parsed and never executed."""
    names = {"EXEMPLAR_NUMBER_ANSWERS": "number_answers", "MGSM_EXEMPLARS": "exemplars"}
    constants = {}
    for statement in ast.parse(text).body:
        match statement:
            case (
                ast.Assign([ast.Name(name)], value)
                | ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value)
            ) if name in names:
                constants[names[name]] = ast.literal_eval(value)
    return constants


# "Question: ", "问题：": the language's own word, its colon and the blank after it, if any.
_PREFIX = re.compile(r"^[^:：]{1,40}[:：]\s*")


def split_prefix(text: str) -> tuple[str, str]:
    """(prefix, rest) of an exemplar's question or solution.

    >>> split_prefix("Frage: Wie viele?")
    ('Frage: ', 'Wie viele?')
    """
    match = _PREFIX.match(text)
    return (match.group(), text[match.end() :]) if match else ("", text)


# ---------------------------------------------------------------- MGSM


def read_mgsm_exemplars(path: Path | tuple[Path, ...], code: str) -> Iterator[Record | Dropped]:
    """Exemplars as records: the cue ends the question, the rationale begins with its blank."""
    for number, one in enumerate(load_exemplars(path, code)):
        cue, rest = split_prefix(one.solution)
        fields = {"question": one.question, "cue": cue.rstrip()}
        rationale = cue[len(cue.rstrip()) :] + rest
        yield Record(f"mgsm-{code}-exemplar-{number}", fields, one.answer, rationale=rationale)


def _prefixes(exemplars: Path | tuple[Path, ...], code: str) -> tuple[str, str]:
    """The language's texts before a question and before its solution, from its first exemplar."""
    first = load_exemplars(exemplars, code)[0]
    return split_prefix(first.question)[0], split_prefix(first.solution)[0].rstrip()


def read_mgsm(path: Path, exemplars: Path, code: str) -> Iterator[Record | Dropped]:
    """Lines of question, tab, number; worded as the language's exemplars are."""
    prefix, cue = _prefixes(exemplars, code)
    for number, _, line in read_lines(path):
        question, _, answer = (line or "").rpartition("\t")
        numbers = numbers_in(answer)
        if line is None:
            yield Dropped("text is not UTF-8")
        elif not question.strip() or len(numbers) != 1:
            yield Dropped("line is not a question, a tab and a number")
        else:
            fields = {"question": prefix + question.strip(), "cue": cue}
            yield Record(f"mgsm-{code}-{number}", fields, format(numbers[0], "f"))


def read_mgsm_rows(
    files: tuple[Path, ...], exemplars: Path | tuple[Path, ...], code: str
) -> Iterator[Record | Dropped]:
    """The hub's rows of question and answer_number, worded as the language's exemplars are."""
    prefix, cue = _prefixes(exemplars, code)
    for number, row in enumerate(read_rows(files)):
        if isinstance(row, Dropped):
            yield row
            continue
        question, numbers = row.get("question"), numbers_in(str(row.get("answer_number")))
        if not isinstance(question, str) or not question.strip() or len(numbers) != 1:
            lacking = "answer_number" if isinstance(question, str) else "question"
            yield Dropped("row is not a question and a number", lacking=(lacking,)).of_row(row)
            continue
        fields = {"question": prefix + question.strip(), "cue": cue}
        yield Record(f"mgsm-{code}-{number}", fields, _plain(numbers[0]))


def mgsm_source(code: str) -> SuiteSource:
    """The files of a language."""
    name = f"MGSM {code}"
    read, read_hub, read_own_exemplars = (
        functools.partial(reader, code=code)
        for reader in (read_mgsm, read_mgsm_rows, read_mgsm_exemplars)
    )
    hub_test, hub_train = (HubSplit(MGSM_HUB, code, split) for split in ("test", "train"))
    hub = {
        "test": SplitFiles(read_hub, (hub_test, (*EXEMPLARS, hub_train))),
        "exemplars": SplitFiles(read_own_exemplars, ((*EXEMPLARS, hub_train),)),
    }
    own = {
        "test": SplitFiles(read, (f"mgsm/mgsm_{code}.tsv", EXEMPLARS)),
        "exemplars": SplitFiles(read_own_exemplars, (EXEMPLARS,)),
    }
    return SuiteSource(name, own, MGSM_URL, SuiteSource(name, hub, hub_url(MGSM_HUB)))


def mgsm_task(row: Language) -> TaskSpec:
    """The task of a language."""
    return suite_task(
        f"{MGSM}.{row.code}",
        mgsm_source(row.code),
        "mgsm",
        category=row.name,
        modes={"cot": 1.0},
        extra_modes=("zs_cot",),
        metric_fns=[
            metrics.exact_match,
            number_filters(row.filter_phrase, row.closing, row.stops, fold_punctuation=True),
        ],
        postprocess_fn=functools.partial(
            read_number, phrases=row.phrases, next_questions=(row.question,), form=row.number
        ),
        num_examples={"test": 250, "exemplars": SHOTS},
        exemplar_split="exemplars",
        shots=SHOTS,
        reasoned_reply=f"{row.filter_phrase}{{answer}}{row.closing or '.'}",
        contamination_group="mgsm",
        languages=(row.name,),
        held_out="mgsm",
        license="CC-BY-4.0",
        url=MGSM_URL,
        description=f"School arithmetic in {row.name} words, translated from GSM8K",
    )


# ---------------------------------------------------------------- GSM8K


def read_gsm8k_exemplars(path: Path | tuple[Path, ...]) -> Iterator[Record | Dropped]:
    """MGSM's English exemplars without their prefixes."""
    for number, one in enumerate(load_exemplars(path, "en")):
        fields = {"question": split_prefix(one.question)[1]}
        rationale = " " + split_prefix(one.solution)[1]
        yield Record(f"gsm8k-exemplar-{number}", fields, one.answer, rationale=rationale)


def read_gsm8k(path: Path) -> Iterator[Record | Dropped]:
    """The published test file; its worked solutions are left out of the records."""
    yield from _without_solutions(item for item, _ in Gsm8kSource().rows(path))


def read_gsm8k_rows(files: tuple[Path, ...]) -> Iterator[Record | Dropped]:
    """The hub's rows of the same; equal records."""
    yield from _without_solutions(
        row if isinstance(row, Dropped) else Gsm8kSource().record(row, f"gsm8k-test-{number}")
        for number, row in enumerate(read_rows(files))
    )


def _without_solutions(items: Iterable[Record | Dropped]) -> Iterator[Record | Dropped]:
    for item in items:
        if isinstance(item, Record):
            numbers = numbers_in(item.answer)
            if len(numbers) != 1:
                yield Dropped("answer is not one number")
                continue
            item = dataclasses.replace(item, answer=format(numbers[0], "f"), rationale="")
        yield item


def word_problems(name: str, source: Source, **values: Any) -> TaskSpec:
    """The task of a set of English word problems, asked and scored as GSM8K is."""
    return suite_task(
        name,
        source,
        "gsm8k_test",
        category="arithmetic word problems",
        modes={"cot": 1.0},
        metric_fns=[
            metrics.exact_match,
            number_filters("The answer is ", ending=".", until=QUESTION_STOPS),
        ],
        postprocess_fn=read_number,
        exemplar_split="exemplars",
        shots=SHOTS,
        reasoned_reply="The answer is {answer}.",
        **values,
    )


def gsm8k_task() -> TaskSpec:
    """GSM8K's test problems as published evaluations ask them."""
    hub_test, hub_exemplars = HubSplit(GSM8K_HUB, "main", "test"), HubSplit(MGSM_HUB, "en", "train")
    hub = {
        "test": SplitFiles(read_gsm8k_rows, (hub_test,)),
        "exemplars": SplitFiles(read_gsm8k_exemplars, ((*EXEMPLARS, hub_exemplars),)),
    }
    own = {
        "test": SplitFiles(read_gsm8k, ("gsm8k/test.jsonl",)),
        "exemplars": SplitFiles(read_gsm8k_exemplars, (EXEMPLARS,)),
    }
    fallback = SuiteSource("GSM8K", hub, hub_url(GSM8K_HUB))
    return word_problems(
        f"{GSM8K}.gsm8k",
        SuiteSource("GSM8K", own, f"{GSM8K_URL} and {MGSM_URL}", fallback),
        dataset="gsm8k",
        extra_modes=("zs_cot", "zs_direct"),
        num_examples={"test": 1_319, "exemplars": SHOTS},
        contamination_group="gsm8k",
        license="MIT",
        url=GSM8K_URL,
        description="School arithmetic in words, asked as published after MGSM's English exemplars",
    )


for _row in LANGUAGES:
    add_task(mgsm_task(_row))
add_task(gsm8k_task())
