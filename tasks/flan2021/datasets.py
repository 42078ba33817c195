"""The publishers' data sets behind the Flan 2021 tasks: licence, address, what they share.

A licence is the one that the publisher names for the data; "unknown" where none is known to us.
Data sets that hold the same examples have one contamination group, so that none of them is
trained on while another is held out.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One publisher's data set.

    Attributes:
        license: its own, as an SPDX name where there is one.
        url: where it is described.
        group: contamination group; "" for one of its own.
        manual: which files must be fetched by hand for TFDS, and from where; "" if none.
    """

    license: str
    url: str
    group: str = ""
    manual: str = ""


_RESEARCH = "research and other non-commercial use"
_GLUE = "https://gluebenchmark.com"
_SUPER_GLUE = "https://super.gluebenchmark.com"
_WMT = "https://www.statmt.org"
_PARA_CRAWL = DataSet("CC0-1.0", "https://paracrawl.eu")

DATASETS = {
    "ag_news_subset": DataSet(
        _RESEARCH, "http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html"
    ),
    "aeslc": DataSet("unknown", "https://github.com/ryanzhumich/AESLC"),
    "anli": DataSet("CC-BY-NC-4.0", "https://github.com/facebookresearch/anli"),
    "arc": DataSet("CC-BY-SA-4.0", "https://allenai.org/data/arc"),
    # ARC was drawn from the AI2 science questions among others.
    "ai2_science_middle": DataSet("unknown", "https://github.com/allenai/unifiedqa", "arc"),
    "bool_q": DataSet(
        "CC-BY-SA-3.0", "https://github.com/google-research-datasets/boolean-questions"
    ),
    "cb": DataSet("unknown", "https://github.com/mcdm/CommitmentBank"),
    "cnn_dailymail": DataSet("unknown", "https://github.com/abisee/cnn-dailymail"),
    "cola": DataSet("unknown", "https://nyu-mll.github.io/CoLA"),
    "common_gen": DataSet("MIT", "https://inklab.usc.edu/CommonGen"),
    "copa": DataSet("BSD-2-Clause", "https://people.ict.usc.edu/~gordon/copa.html"),
    "coqa": DataSet(
        "mixed by source: CC-BY-SA-4.0, Apache-2.0, research only",
        "https://stanfordnlp.github.io/coqa",
    ),
    "cosmos_qa": DataSet("CC-BY-4.0", "https://wilburone.github.io/cosmos"),
    # DART holds rows of WebNLG and E2E.
    "dart": DataSet("MIT", "https://github.com/Yale-LILY/dart", "dart"),
    "e2e_nlg": DataSet("CC-BY-SA-4.0", "https://github.com/tuetschek/e2e-cleaning", "dart"),
    "web_nlg": DataSet("CC-BY-NC-SA-4.0", "https://gem-benchmark.com/data_cards/web_nlg", "dart"),
    "definite_pronoun_resolution": DataSet(
        "unknown", "https://www.hlt.utdallas.edu/~vince/data/emnlp12"
    ),
    "drop": DataSet("CC-BY-SA-4.0", "https://allenai.org/data/drop"),
    "gigaword": DataSet("unknown", "https://github.com/harvardnlp/sent-summary"),
    # STS-B holds pairs of MRPC.
    "glue_mrpc": DataSet(
        "unknown", "https://www.microsoft.com/en-us/download/details.aspx?id=52398", "msr_pairs"
    ),
    "stsb": DataSet("unknown", "https://ixa2.si.ehu.eus/stswiki", "msr_pairs"),
    "glue_qqp": DataSet(
        _RESEARCH, "https://quoradata.quora.com/First-Quora-Dataset-Release-Question-Pairs"
    ),
    "hellaswag": DataSet("MIT", "https://rowanzellers.com/hellaswag"),
    "imdb_reviews": DataSet("unknown", "https://ai.stanford.edu/~amaas/data/sentiment"),
    "lambada": DataSet("CC-BY-4.0", "https://zenodo.org/record/2630551"),
    "math_dataset": DataSet("Apache-2.0", "https://github.com/deepmind/mathematics_dataset"),
    "mnli": DataSet("unknown", "https://cims.nyu.edu/~sbowman/multinli"),
    "multi_news": DataSet(_RESEARCH, "https://github.com/Alex-Fabbri/Multi-News"),
    "multirc": DataSet(_RESEARCH, "https://cogcomp.seas.upenn.edu/multirc"),
    "natural_questions": DataSet(
        "CC-BY-SA-3.0",
        "https://github.com/google-research-datasets/natural-questions/tree/master/nq_open",
    ),
    "newsroom": DataSet(
        _RESEARCH,
        "https://lil.nlp.cornell.edu/newsroom",
        manual="train.jsonl, dev.jsonl and test.jsonl of https://summari.es/download (after "
        "registration)",
    ),
    "openbookqa": DataSet("unknown", "https://allenai.org/data/open-book-qa"),
    "opinion_abstracts": DataSet("unknown", "https://web.eecs.umich.edu/~wangluxy/data.html"),
    "para_crawl_enes": _PARA_CRAWL,
    "para_crawl_enda": _PARA_CRAWL,
    "paws_wiki": DataSet(
        "free for any purpose, Google to be named",
        "https://github.com/google-research-datasets/paws",
    ),
    "piqa": DataSet("AFL-3.0", "https://yonatanbisk.com/piqa"),
    "quac": DataSet("CC-BY-SA-4.0", "https://quac.ai"),
    "record": DataSet("unknown", "https://sheng-z.github.io/ReCoRD-explorer"),
    "rte": DataSet("unknown", _SUPER_GLUE),
    "samsum": DataSet(
        "CC-BY-NC-ND-4.0",
        "https://arxiv.org/abs/1911.12237",
        manual="train.json, val.json and test.json of "
        "https://arxiv.org/src/1911.12237v2/anc/corpus.7z",
    ),
    "sentiment140": DataSet("unknown", "http://help.sentiment140.com"),
    "snli": DataSet("CC-BY-SA-4.0", "https://nlp.stanford.edu/projects/snli"),
    "squad_v1": DataSet("CC-BY-SA-4.0", "https://rajpurkar.github.io/SQuAD-explorer", "squad"),
    "squad_v2": DataSet("CC-BY-SA-4.0", "https://rajpurkar.github.io/SQuAD-explorer", "squad"),
    # QNLI asks SQuAD's questions.
    "qnli": DataSet("CC-BY-SA-4.0", _GLUE, "squad"),
    "sst2": DataSet("unknown", "https://nlp.stanford.edu/sentiment"),
    "story_cloze": DataSet(
        "unknown",
        "https://cs.rochester.edu/nlp/rocstories",
        manual="cloze_test_val__spring2016.csv and cloze_test_test__spring2016.csv of "
        "https://cs.rochester.edu/nlp/rocstories (on request)",
    ),
    "trec": DataSet("unknown", "https://cogcomp.seas.upenn.edu/Data/QA/QC"),
    "trivia_qa": DataSet("unknown", "https://nlp.cs.washington.edu/triviaqa"),
    "wic": DataSet("CC-BY-NC-4.0", "https://pilehvar.github.io/wic"),
    "wiki_lingua": DataSet("CC-BY-NC-SA-3.0", "https://github.com/esdurmus/Wikilingua"),
    "winogrande": DataSet("CC-BY-4.0", "https://winogrande.allenai.org"),
    "wmt14_fr": DataSet("unknown", f"{_WMT}/wmt14/translation-task.html"),
    "wmt16_cs": DataSet(
        "unknown",
        f"{_WMT}/wmt16/translation-task.html",
        manual="czeng16pre.deduped-ignoring-sections.txt.gz of "
        "https://ufal.mff.cuni.cz/czeng/czeng16pre",
    ),
    **{
        f"wmt16_{code}": DataSet("unknown", f"{_WMT}/wmt16/translation-task.html")
        for code in ("de", "fi", "ro", "ru", "tr")
    },
    # WNLI was made from the Winograd schemas.
    "wsc": DataSet("CC-BY-4.0", _SUPER_GLUE, "winograd"),
    "wnli": DataSet("unknown", _GLUE, "winograd"),
    "xsum": DataSet(
        "unknown",
        "https://github.com/EdinburghNLP/XSum",
        manual="xsum-extracts-from-downloads.tar.gz, made as "
        "https://github.com/EdinburghNLP/XSum/tree/master/XSum-Dataset says",
    ),
    "yelp_polarity_reviews": DataSet(_RESEARCH, "https://www.yelp.com/dataset"),
}
