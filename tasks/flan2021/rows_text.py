"""Converts rows of the Flan 2021 data sets whose answer is free text to records.

Each function is a `to_record` of `instruct.data.sources.tfds.TfdsSource`: (row, id) -> record.
"""

import re
from collections.abc import Iterable
from typing import Any

from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.flan2021.rows import (
    Row,
    as_question,
    columns,
    distinct,
    free_record,
    numbered,
    one_line,
    text,
    texts,
    tight,
)

FINGERPRINT_MODULE = "tasks.flan2021_rows_text"  # fingerprints of stores name functions so

MOST_OPINIONS = 10  # reviews or arguments shown, as in the Flan collection
UNANSWERABLE = "unanswerable"

LANGUAGES = {
    "cs": "Czech", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "ro": "Romanian", "ru": "Russian", "tr": "Turkish",
}  # fmt: skip


# ---------------------------------------------------------------- questions


def open_question(row: Row, identity: str) -> Record | Dropped:
    """Natural Questions, open: a question without a question mark, and its short answers."""
    answers = distinct(map(one_line, row["answer"]))
    fields = {"question": as_question(row["question"])}
    return free_record(identity, fields, answers[0] if answers else "", answers)


def trivia_question(row: Row, identity: str) -> Record | Dropped:
    """TriviaQA without documents: the answer, and its aliases as references."""
    answer = row["answer"]
    value = one_line(answer["value"])
    if value == "<unk>":
        return Dropped("no label")
    references = map(one_line, (*answer["aliases"], *answer["normalized_aliases"]))
    return free_record(identity, {"question": one_line(row["question"])}, value, references)


def math_question(row: Row, identity: str) -> Record | Dropped:
    """DeepMind's mathematics: a question and a number."""
    return free_record(identity, columns(row, "question"), text(row["answer"]))


def _passage(row: Row) -> dict[str, str]:
    fields = columns(row, "title", "context", "question")
    return fields | {"title": fields["title"].replace("_", " ")}


def span_answer(row: Row, identity: str) -> Record | Dropped:
    """SQuAD 1.1: a span of the text, several in the validation file."""
    answers = distinct(texts(row["answers"]["text"]))
    return free_record(identity, _passage(row), answers[0] if answers else "", answers)


def span_or_none(row: Row, identity: str) -> Record | Dropped:
    """SQuAD 2.0: as 1.1, or the text does not answer the question."""
    answers = distinct(texts(row["answers"]["text"]))
    if bool(row["is_impossible"]) or not answers:
        return free_record(identity, _passage(row), UNANSWERABLE)
    return free_record(identity, _passage(row), answers[0], answers)


def numeric_reading(row: Row, identity: str) -> Record | Dropped:
    """DROP: an answer that takes reasoning, and the answers of other annotators."""
    fields = columns(row, context="passage", question="question")
    return free_record(identity, fields, text(row["answer"]), texts(row["validated_answers"]))


def conversation_all(row: Row, identity: str) -> Record | Dropped:
    """CoQA: all questions of a conversation at once, answers in the same order."""
    questions = [one_line(question) for question in row["questions"]]
    answers = [one_line(answer) for answer in row["answers"]["input_text"]]
    if len(questions) != len(answers) or not all(questions) or not all(answers):
        return Dropped("questions without answers")
    fields = {"text": text(row["story"]), "numbered_questions": numbered(questions)}
    return free_record(identity, fields, numbered(answers))


_CANNOT_ANSWER = "CANNOTANSWER"


def conversation_turn(row: Row, identity: str) -> Record | Dropped:
    """QuAC: one question about a section of an article; drops those without an answer."""

    def answered(value: Any) -> str:
        return text(text(value).replace(_CANNOT_ANSWER, ""))

    answer = answered(row["orig_answer"]["text"])
    if not answer:
        return Dropped("no answer in the text")
    fields = columns(row, "title", "background", "context", "question")
    fields["context"] = answered(row["context"])
    return free_record(identity, fields, answer, map(answered, row["answers"]["text"]))


def last_word(row: Row, identity: str) -> Record | Dropped:
    """LAMBADA: a passage and its last word."""
    passage = text(row["passage"]).replace("``", '"').replace("''", '"')
    before, _, word = passage.rpartition(" ")
    return free_record(identity, {"sentence": before.strip()}, word)


# ---------------------------------------------------------------- summaries


def email_subject(row: Row, identity: str) -> Record | Dropped:
    """AESLC: the subject of an e-mail."""
    return free_record(
        identity, {"body": one_line(row["email_body"])}, one_line(row["subject_line"])
    )


# "LONDON, England (CNN) -- ", "(CNN)", "WASHINGTON (AP) - "
_AGENCY = r"\((?:CNN[^()\n]{0,30}|Reuters|AP|AFP|EW\.com)\)"
_RULE = r"(?:--|[-\u2013\u2014])"
_DATELINE = re.compile(rf"^(?:{_AGENCY} *{_RULE}? *|[A-Z][^()\n]{{0,60}}?{_AGENCY} *{_RULE} *)")
# "By . Jane Doe . PUBLISHED: . 07:01 EST, 3 May 2013 . | . UPDATED: . 08:12 EST, 3 May 2013 . "
_BYLINE = re.compile(
    r"^By \. .{1,120}?(?:PUBLISHED|Last updated|UPDATED).{0,40}?\d{4} \. "
    r"(?:\| \. UPDATED: \. .{0,40}?\d{4} \. )?",
    re.DOTALL,
)


def news_highlights(row: Row, identity: str) -> Record | Dropped:
    """CNN and Daily Mail: the highlights on one line; articles lose datelines and bylines."""
    article = text(row["article"])
    article = _DATELINE.sub("", _BYLINE.sub("", article), count=1)
    return free_record(identity, {"text": text(article)}, tight(one_line(row["highlights"])))


def headline(row: Row, identity: str) -> Record | Dropped:
    """Gigaword: a headline; drops rows with unknown words or masked digits."""
    document, summary = one_line(row["document"]), one_line(row["summary"])
    both = f"{document} {summary}"
    if "#" in both or re.search(r"\bunk\b", both, re.IGNORECASE):
        return Dropped("unknown words or digits")
    return free_record(identity, {"text": document}, summary)


def multi_document(row: Row, identity: str) -> Record | Dropped:
    """Multi-News: several articles, separated by "|||||" in the release, by blank lines here."""
    together = "\n\n".join(filter(None, texts(text(row["document"]).split("|||||"))))
    summary = text(row["summary"]).removeprefix("\u2013").strip()
    return free_record(identity, {"text": together}, summary)


def news_summary(row: Row, identity: str) -> Record | Dropped:
    """Newsroom: title, article, summary."""
    fields = {"title": one_line(row["title"]), "text": text(row["text"])}
    return free_record(identity, fields, one_line(row["summary"]))


def _opinions(values: Iterable[Any]) -> list[str]:
    """The first few opinions that are not empty."""
    return [opinion for opinion in map(one_line, values) if opinion][:MOST_OPINIONS]


def film_consensus(row: Row, identity: str) -> Record | Dropped:
    """Opinion abstracts, Rotten Tomatoes: the consensus of critics."""
    reviews = _opinions(row["_critics"]["value"])
    if not reviews:
        return Dropped("no review")
    fields = {
        "movie": one_line(row["_movie_name"]),
        "first_review": reviews[0],
        "numbered_reviews": numbered(reviews),
    }
    return free_record(identity, fields, one_line(row["_critic_consensus"]))


def debate_claim(row: Row, identity: str) -> Record | Dropped:
    """Opinion abstracts, iDebate: the claim that arguments support."""
    arguments = _opinions(row["_argument_sentences"]["value"])
    fields = {"debate_name": one_line(row["_debate_name"]), "arguments": numbered(arguments)}
    return free_record(identity, fields, one_line(row["_claim"]))


def dialogue_summary(row: Row, identity: str) -> Record | Dropped:
    """SAMSum: the summary of a chat."""
    return free_record(identity, columns(row, "dialogue"), one_line(row["summary"]))


def one_sentence_news(row: Row, identity: str) -> Record | Dropped:
    """XSum: an article in one sentence."""
    return free_record(identity, columns(row, text="document"), one_line(row["summary"]))


def how_to_summary(row: Row, identity: str) -> Record | Dropped:
    """WikiLingua, English: the steps of a how-to text in short."""
    target = tight(one_line(row["target"]))
    return free_record(identity, {"source": tight(text(row["source"]))}, target)


# ---------------------------------------------------------------- data to text


def _described(row: Row, identity: str, name: str, value: str) -> Record | Dropped:
    """GEM's sets: a target, and in evaluation files the references."""
    references = distinct(map(one_line, row["references"]))
    answer = one_line(row["target"]) or (references[0] if references else "")
    return free_record(identity, {name: value}, answer, references)


def concepts(row: Row, identity: str) -> Record | Dropped:
    """CommonGen: words that the sentence must contain."""
    return _described(row, identity, "concepts", ", ".join(texts(row["concepts"])))


# Relations of DART: "FOUNDING_YEAR", "[TITLE]", "eatType", and the lower-case ones of E2E.
_RELATION = re.compile(
    r"(?<= )(\[TITLE\]|[A-Z][A-Z_/]{2,}|[a-z]+[A-Z]\w*|food|area|near|customer rating)(?= )"
)


def _joined(fact: Any) -> str:
    """A triple as "a, b, c".

    TFDS gives DART's triples without separators. They are split if exactly one part looks like a
    relation, and stay unchanged otherwise.

    >>> _joined("Alimentum near Yippee Noodle Bar"), _joined(["Alimentum", "food", "Thai"])
    ('Alimentum, near, Yippee Noodle Bar', 'Alimentum, food, Thai')
    """
    if not isinstance(fact, str | bytes):
        return ", ".join(map(one_line, fact))
    line = one_line(fact)
    relations = list(_RELATION.finditer(line))
    if len(relations) != 1:
        return line
    start, end = relations[0].span()
    return f"{line[: start - 1]}, {line[start:end]}, {line[end + 1 :]}"


def triples(row: Row, identity: str) -> Record | Dropped:
    """DART: subject, relation, object."""
    return _described(row, identity, "triples", "; ".join(map(_joined, row["tripleset"])))


_SLOT = re.compile(r"\s*\[([^\[\]]*)\]")


def meaning(row: Row, identity: str) -> Record | Dropped:
    """E2E: slots and values, "name[The Eagle], food[Chinese]" in the release."""
    shown = _SLOT.sub(r" = \1", one_line(row["meaning_representation"]))
    return _described(row, identity, "meaning", shown)


def facts(row: Row, identity: str) -> Record | Dropped:
    """WebNLG, English: "Aarhus_Airport | cityServed | Aarhus" in the release."""
    shown = []
    for fact in texts(row["input"]):
        parts = [part.strip().strip('"').replace("_", " ") for part in fact.split("|")]
        shown.append(", ".join(part for part in parts if part))
    return _described(row, identity, "facts", "; ".join(shown))


# ---------------------------------------------------------------- formatting


def true_case(row: Row, identity: str) -> Record | Dropped:
    """A line in lower case, from the English side of a parallel corpus."""
    line = one_line(row["en"])
    lower = line.lower()
    if lower == line:
        return Dropped("lower case already")
    return free_record(identity, {"lower": lower}, line)


_MARKS = (
    r"""[.,;:!?"'()\[\]{}/\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026\u2013\u2014\u00a1\u00bf-]"""
)
# Marks between digits stay, to distinguish 3.5 from 35.
_MARK = re.compile(rf"(?<!\d){_MARKS}|{_MARKS}(?!\d)")
# Dashes and slashes between words become a blank.
_DASH = r"[/\u2013\u2014-]+"
_PARTING = re.compile(rf"(?<=[^\W\d]){_DASH}(?=\w)|(?<=\w){_DASH}(?=[^\W\d])")


def fix_punctuation(row: Row, identity: str) -> Record | Dropped:
    """A line without punctuation, from the English side of a parallel corpus."""
    line = one_line(row["en"])
    bare = " ".join(_MARK.sub("", _PARTING.sub(" ", line)).split())
    if bare == line:
        return Dropped("no punctuation")
    return free_record(identity, {"no_punct": bare}, line)


def word_segmentation(row: Row, identity: str) -> Record | Dropped:
    """A line without blanks, from the English side of a parallel corpus."""
    line = one_line(row["en"])
    joined = line.replace(" ", "")
    if joined == line:
        return Dropped("one word")
    return free_record(identity, {"no_space": joined}, line)


# ---------------------------------------------------------------- translation


def translation(row: Row, identity: str) -> Record | Dropped:
    """A pair of lines, English and one of LANGUAGES: from English, the answer is the other."""
    (other,) = (code for code in row if code != "en")
    fields = {
        "source_language": LANGUAGES["en"],
        "target_language": LANGUAGES[other],
        "source": one_line(row["en"]),
    }
    return free_record(identity, fields, one_line(row[other]))
