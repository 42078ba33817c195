"""Converts rows of the Flan 2021 data sets whose answer is one of a few options to records.

Each function is a `to_record` of `instruct.data.sources.tfds.TfdsSource`: (row, id) -> record.
Options are in the order of the publisher's labels, which the docstrings give.
"""

import dataclasses
import html
import re
from typing import Any

from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.flan2021.rows import (
    Row,
    as_question,
    choice_record,
    columns,
    distinct,
    one_line,
    text,
    texts,
    tight,
)

FINGERPRINT_MODULE = "tasks.flan2021_rows_choice"  # fingerprints of stores name functions so

NLI = ("Yes", "It's impossible to say", "No")
YES_NO = ("yes", "no")
NO_YES = ("no", "yes")
POLARITY = ("negative", "positive")
SENSES = ("different meanings", "the same meaning")
ACCEPTABILITY = ("unacceptable", "acceptable")
QUESTION_TYPES = ("description", "entity", "abbreviation", "human", "numeric", "location")
NEWS_TOPICS = ("World", "Sports", "Business", "Science/Tech")
SIMILARITY = ("0", "1", "2", "3", "4", "5")


# ---------------------------------------------------------------- entailment


def nli(row: Row, identity: str) -> Record | Dropped:
    """MNLI, SNLI: labels entailment, neutral, contradiction; -1 where annotators disagreed."""
    return choice_record(identity, columns(row, "premise", "hypothesis"), NLI, row["label"])


def nli_context(row: Row, identity: str) -> Record | Dropped:
    """ANLI: as `nli`; the premise is called context."""
    fields = columns(row, premise="context", hypothesis="hypothesis")
    return choice_record(identity, fields, NLI, row["label"])


def nli_contradiction_second(row: Row, identity: str) -> Record | Dropped:
    """CommitmentBank of SuperGLUE: labels entailment, contradiction, neutral."""
    index = {0: 0, 1: 2, 2: 1}.get(int(row["label"]), -1)
    return choice_record(identity, columns(row, "premise", "hypothesis"), NLI, index)


def rte(row: Row, identity: str) -> Record | Dropped:
    """RTE: labels entailment, not_entailment."""
    return choice_record(identity, columns(row, "premise", "hypothesis"), YES_NO, row["label"])


def wnli(row: Row, identity: str) -> Record | Dropped:
    """WNLI: labels not_entailment, entailment."""
    index = {0: 1, 1: 0}.get(int(row["label"]), -1)
    fields = columns(row, premise="sentence1", hypothesis="sentence2")
    return choice_record(identity, fields, YES_NO, index)


def qnli(row: Row, identity: str) -> Record | Dropped:
    """QNLI: labels entailment (the sentence holds the answer), not_entailment."""
    return choice_record(identity, columns(row, "question", "sentence"), YES_NO, row["label"])


# ---------------------------------------------------------------- paraphrase and similarity


def sentence_pair(row: Row, identity: str) -> Record | Dropped:
    """MRPC, PAWS: labels different, the same."""
    return choice_record(identity, columns(row, "sentence1", "sentence2"), NO_YES, row["label"])


def question_pair(row: Row, identity: str) -> Record | Dropped:
    """QQP: labels not_duplicate, duplicate."""
    return choice_record(identity, columns(row, "question1", "question2"), NO_YES, row["label"])


def similarity(row: Row, identity: str) -> Record | Dropped:
    """STS-B: a score from 0 to 5, rounded to the nearest whole number (halves up); -1 for none."""
    score = float(row["label"])
    index = int(score + 0.5) if score >= 0 else -1
    return choice_record(identity, columns(row, "sentence1", "sentence2"), SIMILARITY, index)


# ---------------------------------------------------------------- sentiment


def imdb(row: Row, identity: str) -> Record | Dropped:
    """IMDB: labels negative, positive; line breaks are HTML."""
    review = text(re.sub(r"\s*<br ?/?>\s*", "\n", text(row["text"])))
    return choice_record(identity, {"text": review}, POLARITY, row["label"])


def yelp(row: Row, identity: str) -> Record | Dropped:
    """Yelp polarity: labels 1 (negative), 2 (positive), as 0 and 1; line breaks are escaped."""
    review = text(row["text"]).replace("\\n", "\n").replace('\\"', '"').replace('""', '"')
    return choice_record(identity, {"text": text(review)}, POLARITY, row["label"])


def sst2(row: Row, identity: str) -> Record | Dropped:
    """SST-2: labels negative, positive."""
    return choice_record(identity, columns(row, text="sentence"), POLARITY, row["label"])


def tweet(row: Row, identity: str) -> Record | Dropped:
    """Sentiment140: polarity 0 negative, 2 neutral (its test file has some), 3 and 4 positive."""
    polarity = int(row["polarity"])
    if polarity == 2:
        return Dropped("neutral")
    index = {0: 0, 3: 1, 4: 1}.get(polarity, -1)
    return choice_record(identity, {"text": html.unescape(one_line(row["text"]))}, POLARITY, index)


# ---------------------------------------------------------------- language


def word_sense(row: Row, identity: str) -> Record | Dropped:
    """WiC: labels false (another sense), true (the same sense)."""
    fields = columns(row, "sentence1", "sentence2", "word")
    return choice_record(identity, fields, SENSES, row["label"])


def acceptability(row: Row, identity: str) -> Record | Dropped:
    """CoLA: labels unacceptable, acceptable."""
    return choice_record(identity, columns(row, "sentence"), ACCEPTABILITY, row["label"])


def question_type(row: Row, identity: str) -> Record | Dropped:
    """TREC: coarse labels DESC, ENTY, ABBR, HUM, NUM, LOC."""
    fields = {"text": tight(text(row["text"]))}
    return choice_record(identity, fields, QUESTION_TYPES, row["label-coarse"])


# "&" has become a blank in the release: "Time #39;s up", "said  quot;no quot;".
_CHARACTER = re.compile(r" ?(?<![&\w])(#\d{2,4}|quot|amp|lt|gt|nbsp);")


def topic(row: Row, identity: str) -> Record | Dropped:
    """AG News: labels World, Sports, Business, Sci/Tech; line breaks are backslashes."""

    def clean(value: Any) -> str:
        found = _CHARACTER.sub(r"&\1;", text(value).replace("\\", " "))
        return " ".join(html.unescape(html.unescape(found)).split())

    fields = {"title": clean(row["title"]), "text": clean(row["description"])}
    return choice_record(identity, fields, NEWS_TOPICS, row["label"])


# ---------------------------------------------------------------- reading


def yes_no_passage(row: Row, identity: str) -> Record | Dropped:
    """BoolQ: the answer is true or false; questions come without a question mark."""
    fields = columns(row, "title", text="passage") | {"question": as_question(row["question"])}
    return choice_record(identity, fields, NO_YES, int(bool(row["answer"])))


def answer_check(row: Row, identity: str) -> Record | Dropped:
    """MultiRC: is this answer right? Labels false, true; a question's answers are one group."""
    fields = columns(row, "paragraph", "question", response="answer")
    idx = row["idx"]
    group = f"{int(idx['paragraph'])}-{int(idx['question'])}"
    return choice_record(identity, fields, NO_YES, row["label"], {"group": group})


_PLACEHOLDER = "@placeholder"


def cloze_entity(row: Row, identity: str) -> Record | Dropped:
    """ReCoRD: which entity of the passage fills the gap of the query.

    Prompts show the query up to the gap; an option is an entity with the rest of the query. If
    several entities are right, the first is the answer and the only one among the options; all are
    references. For the metric, the metadata hold the query's id and its text after the gap.
    """
    query = one_line(row["query"])
    head, gap, tail = query.partition(_PLACEHOLDER)
    if not gap:
        return Dropped("query without a gap")
    right = distinct(map(one_line, row["answers"]))
    if not right:
        return Dropped("no label")
    entities = distinct(map(one_line, row["entities"]))
    shown = [entity for entity in entities if entity == right[0] or entity not in right]
    if right[0] not in shown:
        return Dropped("answer is not an entity of the passage")
    # Below the article are its highlights, each after a mark; some entities occur only there.
    lines = text(row["passage"]).split("\n")
    passage = "\n".join(line for line in lines if line.strip() != "@highlight")
    fields = {"passage": text(passage), "query": head.strip()}
    idx = row["idx"]
    metadata = {
        "group": f"{int(idx['passage'])}-{int(idx['query'])}",
        "tail": tail.replace(_PLACEHOLDER, right[0]),
    }
    options, references = (
        [name + tail.replace(_PLACEHOLDER, name) for name in names] for names in (shown, right)
    )
    index = shown.index(right[0])
    # Many queries begin with the gap.
    record = choice_record(identity, fields, options, index, metadata, may_be_empty="query")
    if isinstance(record, Dropped) or len(right) == 1:
        return record
    return dataclasses.replace(record, references=tuple(references))


def comprehension(row: Row, identity: str) -> Record | Dropped:
    """Cosmos QA: four answers, the label is the number of the right one; -1 in the test file.

    Drops rows whose answer is "None of the above choices": it answers nothing without the options,
    and shuffling moves it away from their end.
    """
    fields = {"context": tight(text(row["context"])), "question": tight(text(row["question"]))}
    options = [tight(text(row[f"answer{i}"])) for i in range(4)]
    label = int(row["label"])
    if label >= 0 and options[label].casefold().startswith("none of the above"):
        return Dropped("answer is none of the above")
    return choice_record(identity, fields, options, label)


def science_fact(row: Row, identity: str) -> Record | Dropped:
    """OpenBookQA: four choices, and the fact that the question was made from."""
    question = row["question"]
    fields = {"fact": text(row["fact1"]), "question": text(question["stem"])}
    options = [text(question[f"choice_{letter}"]) for letter in "ABCD"]
    return choice_record(identity, fields, options, row["answerKey"])


# ---------------------------------------------------------------- knowledge and common sense


def science_question(row: Row, identity: str) -> Record | Dropped:
    """ARC: four choices with labels; the few questions with three or five are left out."""
    options = texts(row["choices"]["text"])
    if len(options) != 4:
        return Dropped("not four choices")
    labels = [int(label) for label in row["choices"]["label"]]
    key = int(row["answerKey"])
    index = labels.index(key) if key in labels else -1
    return choice_record(identity, {"question": text(row["question"])}, options, index)


_FOUR_OPTIONS = re.compile(r"^(.+?)\s*\(A\)(.+?)\(B\)(.+?)\(C\)(.+?)\(D\)(.+)$", re.DOTALL)


def unified_science(row: Row, identity: str) -> Record | Dropped:
    """UnifiedQA's AI2 science questions: "question \\n (A) one (B) two ...", the answer as text.

    Questions with other than the four options (A) to (D) are left out.
    """
    written = text(row["input"]).replace("\\n", "\n")
    match = _FOUR_OPTIONS.match(written)
    if match is None or "(E)" in written:
        return Dropped("not four choices")
    question, *options = map(one_line, match.groups())
    answer = one_line(row["output"])
    index = options.index(answer) if answer in options else -1
    return choice_record(identity, {"question": question}, options, index)


def cause_effect(row: Row, identity: str) -> Record | Dropped:
    """COPA: which of two sentences is the cause or the effect of the premise."""
    premise, asked = text(row["premise"]), text(row["question"])
    joint = {"cause": "because", "effect": "so"}.get(asked)
    if joint is None:
        return Dropped("question is neither cause nor effect")
    premise_open = f"{premise.rstrip('.')} {joint}"
    fields = {"premise": premise, "question": asked, "premise_open": premise_open}
    options = [text(row["choice1"]), text(row["choice2"])]
    return choice_record(identity, fields, options, row["label"])


def _without_tags(value: Any) -> str:
    """Text with WikiHow's marks ("[title]", "[step]") replaced by ends of sentences."""
    sentences = re.sub(r"\s*\[[a-z]+\]\s*", ". ", text(value))
    sentences = tight(" ".join(sentences.split()))
    sentences = re.sub(r"([.!?:,])(?:\s*\.)+(?=\s|$)", r"\1", sentences)
    return re.sub(r"^[.\s]+", "", sentences)


def activity(row: Row, identity: str) -> Record | Dropped:
    """HellaSwag: four endings, the label is the number of the right one; -1 in the test file."""
    fields = {"context": _without_tags(row["context"]), "activity": text(row["activity_label"])}
    options = [_without_tags(ending) for ending in row["endings"]]
    return choice_record(identity, fields, options, row["label"])


def story_end(row: Row, identity: str) -> Record | Dropped:
    """Story Cloze: two last sentences, the label counts from 1."""
    index = int(row["label"]) - 1
    return choice_record(identity, columns(row, "context"), texts(row["endings"]), index)


def goal(row: Row, identity: str) -> Record | Dropped:
    """PIQA: two ways to reach a goal; -1 in the test file."""
    options = [text(row["sol1"]), text(row["sol2"])]
    return choice_record(identity, columns(row, "goal"), options, row["label"])


# ---------------------------------------------------------------- coreference


def pronoun(row: Row, identity: str) -> Record | Dropped:
    """Definite pronoun resolution: two candidates for the referent of a pronoun."""
    options = texts(row["candidates"])
    if len(options) != 2:
        return Dropped("not two candidates")
    return choice_record(identity, columns(row, "sentence", "pronoun"), options, row["label"])


def gap(row: Row, identity: str) -> Record | Dropped:
    """WinoGrande: two fillers of the gap "_"; an option is a filler and the text after the gap."""
    before, mark, rest = text(row["sentence"]).partition("_")
    if not mark:
        return Dropped("sentence without a gap")
    options = [text(row["option1"]) + rest, text(row["option2"]) + rest]
    return choice_record(identity, {"context": before.strip()}, options, row["label"])


def same_referent(row: Row, identity: str) -> Record | Dropped:
    """WSC of SuperGLUE: do a noun phrase and a pronoun mean the same? Labels false, true.

    The row gives the pronoun's position as a number of words between blanks; only that occurrence
    is marked.
    """
    sentence, marked = text(row["text"]), text(row["span2_text"])
    starts = [word.start() for word in re.finditer(r"\S+", sentence)]
    number = int(row["span2_index"])
    pattern = re.compile(rf"\W*({re.escape(marked)})(?!\w)")
    match = pattern.match(sentence, starts[number]) if 0 <= number < len(starts) else None
    if match is None:
        return Dropped("pronoun is not where the row says")
    context = f"{sentence[: match.start(1)]}*{marked}*{sentence[match.end(1) :]}"
    fields = {"context": context, "text1": text(row["span1_text"]), "text2": marked}
    return choice_record(identity, fields, NO_YES, row["label"])
