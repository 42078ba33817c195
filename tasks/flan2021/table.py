"""The Flan 2021 part of the Flan Collection as a table: one row a task.

72 rows: the 71 tasks of the collection's code, and `trivia_qa_wiki_missing`, which only its list
of tasks names. With 3 dialog and 5 program synthesis tasks these are the 80 tasks that Longpre et
al. (2023) count in "Muffin". Clusters are those of Wei et al. (2022); 69 tasks are in one.

Splits are the collection's: where the labels of the test split are not public, "test" is the public
validation split and "validation" a part of the training split. Each row's `note` says what differs
from the collection; `rows_*.py` beside this file convert TFDS's rows.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from instruct.data.sources.tfds import ToRecord
from tasks.flan2021 import rows_choice as choice
from tasks.flan2021 import rows_text as written

CLUSTER_NAMES = (
    "summarization", "structure_to_text", "reading_comprehension", "open_domain_qa", "paraphrase",
    "sentiment", "text_formatting", "common_sense", "translation", "coreference", "entailment",
    "math", "conversational_qa", "word_disambiguation", "linguistic_acceptability",
    "question_classification", "read_comp_and_common_sense",
)  # fmt: skip

# Most rows of a data set to store: over 30 epochs at the cap of 30,000. WMT has up to 52 million.
MOST_RECORDS = 1_000_000

# Generic task categories of the collection's list.
_CLOSED_BOOK = "Closed-Book QA"
_COREFERENCE = "Coreference Resolution"
_EXTRACTIVE = "Extractive QA"
_MATH = "Mathematical QA"
_MULTIPLE_CHOICE = "Multiple-Choice QA (no trivia knowledge required)"
_NEXT_SENTENCE = "Next Sentence Prediction"
_NLI = "Natural Language Inference"
_PARAPHRASE = "Paraphrasing Identification"
_SENTIMENT = "Sentiment Analysis"
_STRUCTURED = "Structured Data to Text"
_SUMMARY = "Summarization"
_TOPIC = "Topic Classification"
_TRANSLATION = "Translation"

# Each row has options of its own.
PER_ROW: tuple[str, ...] = ()
_VAL = "validation"


@dataclasses.dataclass(frozen=True)
class FlanTask:
    """One row.

    Attributes:
        id: name of the task after "flan2021.", as in the collection's code.
        builder: TFDS data set with its version.
        parts: our split -> TFDS split expression.
        to_record: converts a TFDS row to a record.
        templates: name of the template set.
        scoring: key of `tasks.flan2021.family.SCORING`: how answers are read, and the metrics.
        category: generic category of the collection's list.
        cluster: one of CLUSTER_NAMES, or "".
        train_records: training records in the collection's own count, rounded (its mixing rate
            before the cap of 30,000).
        options: the labels; PER_ROW where each row has its own options; None for free text.
        dataset: key of `tasks.flan2021.datasets.DATASETS`; "" for the id.
        target_language: of translations, "English" for everything else.
        note: what differs from the collection.
    """

    id: str
    builder: str
    parts: Mapping[str, str]
    to_record: ToRecord
    templates: str
    scoring: str
    category: str
    cluster: str
    train_records: int
    options: tuple[str, ...] | None = None
    dataset: str = ""
    target_language: str = "English"
    note: str = ""

    @property
    def dataset_name(self) -> str:
        return self.dataset or self.id

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("English", self.target_language)))


_PUBLISHED = {"train": "train", "validation": "validation", "test": "test"}
_OPINIONS = {"train": "train[:-600]", "validation": "train[-600:-500]", "test": "train[-500:]"}


def held(rows: int, test: str, train: str = "train") -> dict[str, str]:
    """The last `rows` rows of the training split are the validation split."""
    return {"train": f"{train}[:-{rows}]", "validation": f"{train}[-{rows}:]", "test": test}


def _first_million(records: int) -> dict[str, str]:
    """As published, but with at most MOST_RECORDS training rows."""
    return _PUBLISHED | ({"train": f"train[:{MOST_RECORDS}]"} if records > MOST_RECORDS else {})


def _third(start: int, test: str) -> dict[str, str]:
    """Slices of ParaCrawl's English-Danish pairs for one of the three text-formatting tasks."""
    return {
        "train": f"train[{start or ''}:{start + 30_000}]",
        "validation": f"train[{start + 30_000}:{start + 30_200}]",
        "test": f"train[{test}]",
    }


_OWN_TEST = "the three slices of this corpus share no test rows here"
_MNLI_NOTE = "has one half of the training rows, which the collection uses for both tasks"
_WMT = "from English; the other direction is the inverted modes'"

# fmt: off
TASKS = {task.id: task for task in (
    FlanTask("bool_q", "bool_q:1.0.0", held(200, _VAL), choice.yes_no_passage,
             "yes_no_passage", "label", _MULTIPLE_CHOICE, "reading_comprehension", 9_220,
             choice.NO_YES),
    FlanTask("rte", "super_glue/rte:1.0.2", held(200, _VAL), choice.rte,
             "nli_two_way", "label", _NLI, "entailment", 2_290, choice.YES_NO),
    FlanTask("wsc", "super_glue/wsc.fixed:1.0.2", held(50, _VAL), choice.same_referent,
             "same_referent", "label", _COREFERENCE, "coreference", 500, choice.NO_YES),
    FlanTask("wic", "super_glue/wic:1.0.2", held(200, _VAL), choice.word_sense,
             "word_sense", "label", "Word Sense Disambiguation", "word_disambiguation", 5_220,
             choice.SENSES),
    FlanTask("natural_questions", "natural_questions_open:1.0.0", held(200, _VAL),
             written.open_question, "open_question", "qa", _CLOSED_BOOK, "open_domain_qa", 87_720),
    FlanTask("record", "super_glue/record:1.0.2", held(200, _VAL), choice.cloze_entity,
             "cloze_entity", "record", _EXTRACTIVE, "read_comp_and_common_sense", 100_520,
             PER_ROW),
    FlanTask("trivia_qa", "trivia_qa/rc.nocontext:1.1.0", held(200, _VAL),
             written.trivia_question, "open_question", "qa", _EXTRACTIVE, "open_domain_qa", 87_420,
             note="the same rows as rc, without the documents, which no prompt shows"),
    FlanTask("trivia_qa_wiki_missing", "trivia_qa/unfiltered.nocontext:1.1.0", held(200, _VAL),
             written.trivia_question, "open_question", "qa", _EXTRACTIVE, "", 87_420,
             dataset="trivia_qa", note="only named in the collection's list of tasks; here "
             "TriviaQA with the questions whose documents need not hold the answer"),
    FlanTask("arc_challenge", "ai2_arc/ARC-Challenge:1.0.0", held(200, "test"),
             choice.science_question, "science_question", "label", _CLOSED_BOOK, "open_domain_qa",
             910, PER_ROW, "arc"),
    FlanTask("arc_easy", "ai2_arc/ARC-Easy:1.0.0", held(200, "test"),
             choice.science_question, "science_question", "label", _CLOSED_BOOK, "open_domain_qa",
             2_040, PER_ROW, "arc"),
    FlanTask("math_dataset", "math_dataset/algebra__linear_1d:1.0.0", held(200, "test"),
             written.math_question, "math_question", "label", _MATH, "math", 1_999_780),
    FlanTask("aeslc", "aeslc:1.0.0",
             {"train": "train", "validation": "validation[-200:]", "test": "test"},
             written.email_subject, "email_subject", "rouge", _SUMMARY, "summarization", 14_430),
    FlanTask("cnn_dailymail", "cnn_dailymail:3.4.0", _PUBLISHED, written.news_highlights,
             "news_highlights", "rouge", _SUMMARY, "summarization", 287_040),
    FlanTask("gigaword", "gigaword:1.2.0", _PUBLISHED, written.headline,
             "headline", "rouge", _SUMMARY, "summarization", 2_044_370),
    FlanTask("multi_news", "multi_news:2.1.0", _PUBLISHED, written.multi_document,
             "multi_document", "rouge", _SUMMARY, "summarization", 44_960,
             note="version 1.0.0 there, which TFDS no longer prepares"),
    FlanTask("newsroom", "newsroom:1.0.0", _PUBLISHED, written.news_summary,
             "news_summary", "rouge", _SUMMARY, "summarization", 994_560),
    FlanTask("opinion_abstracts_rotten_tomatoes", "opinion_abstracts/rotten_tomatoes:1.0.0",
             _OPINIONS, written.film_consensus, "film_consensus", "rouge", _SUMMARY,
             "summarization", 3_130, dataset="opinion_abstracts"),
    FlanTask("opinion_abstracts_idebate", "opinion_abstracts/idebate:1.0.0",
             _OPINIONS, written.debate_claim, "debate_claim", "rouge", _SUMMARY,
             "summarization", 1_650, dataset="opinion_abstracts"),
    FlanTask("coqa", "coqa:1.0.0", held(100, "test"), written.conversation_all,
             "conversation_all", "qa", _MULTIPLE_CHOICE, "conversational_qa", 7_090),
    FlanTask("samsum", "samsum:1.0.0", _PUBLISHED, written.dialogue_summary,
             "dialogue_summary", "rouge", _SUMMARY, "summarization", 14_730),
    FlanTask("xsum", "xsum:1.1.0", _PUBLISHED, written.one_sentence_news,
             "one_sentence_news", "rouge", _SUMMARY, "summarization", 203_560,
             note="from Hugging Face there"),
    FlanTask("squad_v1", "squad/v1.1:3.0.0", held(200, _VAL), written.span_answer,
             "span_answer", "qa", _EXTRACTIVE, "reading_comprehension", 87_390),
    FlanTask("squad_v2", "squad/v2.0:3.0.0", held(200, _VAL), written.span_or_none,
             "span_or_none", "qa", _EXTRACTIVE, "reading_comprehension", 130_110),
    FlanTask("drop", "drop:2.0.0", held(200, "dev"), written.numeric_reading,
             "numeric_reading", "qa", _MATH, "reading_comprehension", 77_200),
    FlanTask("quac", "quac:1.0.0", held(200, _VAL), written.conversation_turn,
             "conversation_turn", "qa", _MULTIPLE_CHOICE, "conversational_qa", 83_360),
    FlanTask("multirc", "super_glue/multirc:1.0.2", held(200, _VAL), choice.answer_check,
             "answer_check", "multirc", _MULTIPLE_CHOICE, "reading_comprehension", 27_040,
             choice.NO_YES),
    FlanTask("ag_news_subset", "ag_news_subset:1.0.0", held(200, "test"), choice.topic,
             "topic", "label", _TOPIC, "summarization", 119_800, choice.NEWS_TOPICS),
    FlanTask("anli_r1", "anli/r1:0.1.0", _PUBLISHED, choice.nli_context,
             "nli", "label", _NLI, "entailment", 16_940, choice.NLI, "anli"),
    FlanTask("anli_r2", "anli/r2:0.1.0", _PUBLISHED, choice.nli_context,
             "nli", "label", _NLI, "entailment", 45_460, choice.NLI, "anli"),
    FlanTask("anli_r3", "anli/r3:0.1.0", _PUBLISHED, choice.nli_context,
             "nli", "label", _NLI, "entailment", 100_450, choice.NLI, "anli"),
    FlanTask("sentiment140", "sentiment140:1.0.0", held(200, "test"), choice.tweet,
             "tweet", "label", _SENTIMENT, "sentiment", 1_599_800, choice.POLARITY,
             note="neutral rows of the test file are left out"),
    FlanTask("story_cloze", "story_cloze/2016:1.0.0", held(200, "test", "validation"),
             choice.story_end, "story_end", "label", _NEXT_SENTENCE, "common_sense", 1_670,
             PER_ROW),
    FlanTask("imdb_reviews", "imdb_reviews/plain_text:1.0.0", held(200, "test"), choice.imdb,
             "film_review", "label", _SENTIMENT, "sentiment", 24_800, choice.POLARITY),
    FlanTask("paws_wiki", "paws_wiki:1.1.0", _PUBLISHED, choice.sentence_pair,
             "paraphrase", "label", _PARAPHRASE, "paraphrase", 49_400, choice.NO_YES),
    FlanTask("definite_pronoun_resolution", "definite_pronoun_resolution:1.1.0",
             held(200, "test"), choice.pronoun, "pronoun", "label", _COREFERENCE, "coreference",
             1_120, PER_ROW),
    FlanTask("glue_mrpc", "glue/mrpc:2.0.0", held(200, _VAL), choice.sentence_pair,
             "paraphrase", "label_f1", _PARAPHRASE, "paraphrase", 3_460, choice.NO_YES),
    FlanTask("glue_qqp", "glue/qqp:2.0.0", held(200, _VAL), choice.question_pair,
             "question_pair", "label_f1", _PARAPHRASE, "paraphrase", 363_640, choice.NO_YES),
    FlanTask("copa", "super_glue/copa:1.0.2", held(50, _VAL), choice.cause_effect,
             "cause_effect", "label", _NEXT_SENTENCE, "common_sense", 350, PER_ROW),
    FlanTask("winogrande", "winogrande:1.2.0", held(200, _VAL, "train_xl"), choice.gap,
             "gap", "label", _COREFERENCE, "coreference", 40_190, PER_ROW,
             note="version 1.1.0 there, which TFDS no longer prepares"),
    FlanTask("yelp_polarity_reviews", "yelp_polarity_reviews:0.2.0", held(200, "test"),
             choice.yelp, "business_review", "label", _SENTIMENT, "sentiment", 559_800,
             choice.POLARITY),
    FlanTask("cosmos_qa", "cosmos_qa:1.0.0", held(200, _VAL), choice.comprehension,
             "comprehension", "label", _MULTIPLE_CHOICE, "read_comp_and_common_sense", 25_060,
             PER_ROW),
    FlanTask("para_crawl_enes", "para_crawl/enes:1.2.0",
             {"train": "train[:30000]", "validation": "train[-1200:-1000]",
              "test": "train[-1000:]"},
             written.translation, "translation", "bleu", _TRANSLATION, "translation", 30_000,
             target_language="Spanish", note=_WMT),
    *(FlanTask(name, f"{builder}-en:1.0.0", _first_million(records), written.translation,
               "translation", "bleu", _TRANSLATION, "translation", min(records, MOST_RECORDS),
               dataset=dataset, target_language=language, note=_WMT)
      for name, builder, records, dataset, language in (
          ("wmt14_enfr", "wmt14_translate/fr", 40_835_840, "wmt14_fr", "French"),
          ("wmt16_translate_deen", "wmt16_translate/de", 4_548_800, "wmt16_de", "German"),
          ("wmt16_translate_tren", "wmt16_translate/tr", 205_750, "wmt16_tr", "Turkish"),
          ("wmt16_translate_csen", "wmt16_translate/cs", 52_335_360, "wmt16_cs", "Czech"),
          ("wmt16_translate_fien", "wmt16_translate/fi", 2_073_360, "wmt16_fi", "Finnish"),
          ("wmt16_translate_roen", "wmt16_translate/ro", 610_320, "wmt16_ro", "Romanian"),
          ("wmt16_translate_ruen", "wmt16_translate/ru", 2_516_160, "wmt16_ru", "Russian"))),
    FlanTask("common_gen", "gem/common_gen:1.1.0", held(200, _VAL), written.concepts,
             "concepts", "rouge", _STRUCTURED, "structure_to_text", 67_180),
    FlanTask("dart", "gem/dart:1.1.0", held(200, _VAL), written.triples,
             "triples", "rouge", _STRUCTURED, "structure_to_text", 62_450),
    FlanTask("e2e_nlg", "gem/e2e_nlg:1.1.0", held(200, _VAL), written.meaning,
             "meaning", "rouge", _STRUCTURED, "structure_to_text", 33_320),
    FlanTask("web_nlg_en", "gem/web_nlg_en:1.1.0", held(200, _VAL), written.facts,
             "facts", "rouge", _STRUCTURED, "structure_to_text", 35_220, dataset="web_nlg"),
    FlanTask("wiki_lingua_english_en", "gem/wiki_lingua_english_en:1.1.0", _PUBLISHED,
             written.how_to_summary, "how_to_summary", "rouge", _SUMMARY, "summarization", 99_000,
             dataset="wiki_lingua"),
    FlanTask("true_case", "para_crawl/enda:1.2.0", _third(0, "-3000:-2000"), written.true_case,
             "true_case", "edit", "Casing Selection", "text_formatting", 29_260,
             dataset="para_crawl_enda", note=_OWN_TEST),
    FlanTask("fix_punct", "para_crawl/enda:1.2.0", _third(30_200, "-2000:-1000"),
             written.fix_punctuation, "fix_punctuation", "edit", "Punctuation Fixing",
             "text_formatting", 28_070, dataset="para_crawl_enda", note=_OWN_TEST),
    FlanTask("word_segment", "para_crawl/enda:1.2.0", _third(60_400, "-1000:"),
             written.word_segmentation, "word_segmentation", "edit", "Word Segmentation",
             "text_formatting", 30_000, dataset="para_crawl_enda", note=_OWN_TEST),
    FlanTask("cb", "super_glue/cb:1.0.2", held(50, _VAL), choice.nli_contradiction_second,
             "nli", "label_mean_f1", _NLI, "entailment", 200, choice.NLI),
    FlanTask("cola", "glue/cola:2.0.0", held(200, _VAL), choice.acceptability,
             "acceptability", "label", "Grammatical Acceptability", "linguistic_acceptability",
             8_350, choice.ACCEPTABILITY),
    FlanTask("sst2", "glue/sst2:2.0.0", held(200, _VAL), choice.sst2,
             "review_sentence", "label", _SENTIMENT, "sentiment", 67_140, choice.POLARITY),
    FlanTask("mnli_matched", "glue/mnli:2.0.0",
             {"train": "train[:196150]", "validation": "train[-200:]",
              "test": "validation_matched"},
             choice.nli, "nli", "label", _NLI, "entailment", 196_150, choice.NLI, "mnli",
             note=_MNLI_NOTE),
    FlanTask("mnli_mismatched", "glue/mnli:2.0.0",
             {"train": "train[196150:-400]", "validation": "train[-400:-200]",
              "test": "validation_mismatched"},
             choice.nli, "nli", "label", _NLI, "entailment", 196_150, choice.NLI, "mnli",
             note=_MNLI_NOTE),
    FlanTask("qnli", "glue/qnli:2.0.0", held(200, _VAL), choice.qnli,
             "question_sentence", "label", _MULTIPLE_CHOICE, "entailment", 104_540,
             choice.YES_NO),
    FlanTask("wnli", "glue/wnli:2.0.0", held(30, _VAL), choice.wnli,
             "nli_two_way", "label", _COREFERENCE, "entailment", 600, choice.YES_NO),
    FlanTask("snli", "snli:1.1.0", _PUBLISHED, choice.nli,
             "nli", "label", _NLI, "entailment", 549_360, choice.NLI),
    FlanTask("trec", "trec:1.0.0", held(200, "test"), choice.question_type,
             "question_type", "label", _TOPIC, "question_classification", 5_250,
             choice.QUESTION_TYPES),
    FlanTask("stsb", "glue/stsb:2.0.0", held(100, _VAL), choice.similarity,
             "similarity", "score", _PARAPHRASE, "paraphrase", 5_640, choice.SIMILARITY,
             note="the collection's list calls it sentiment analysis"),
    FlanTask("piqa", "piqa:1.0.0", held(100, _VAL), choice.goal,
             "goal", "label", _MULTIPLE_CHOICE, "common_sense", 16_010, PER_ROW),
    FlanTask("openbookqa", "openbookqa:0.1.0", _PUBLISHED, choice.science_fact,
             "science_fact", "label", _MULTIPLE_CHOICE, "reading_comprehension", 4_950, PER_ROW),
    FlanTask("hellaswag", "hellaswag:1.1.0", held(200, _VAL), choice.activity,
             "activity", "label", _NEXT_SENTENCE, "common_sense", 39_700, PER_ROW),
    FlanTask("lambada", "lambada:1.0.0", {"train": "train"}, written.last_word,
             "last_word", "first_word", "Language Modeling", "", 4_860),
    FlanTask("unified_qa_science_inst", "unified_qa/ai2_science_middle:1.0.0",
             {"train": "train"}, choice.unified_science, "science_question", "first_line",
             "Question Answering", "", 590, PER_ROW, "ai2_science_middle"),
)}
# fmt: on


class Cluster(NamedTuple):
    """Tasks that FLAN 2021 holds out together."""

    name: str
    tasks: tuple[str, ...]


CLUSTERS = tuple(
    Cluster(name, tuple(task.id for task in TASKS.values() if task.cluster == name))
    for name in CLUSTER_NAMES
)
