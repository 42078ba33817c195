"""Contamination groups: data sets that share examples, under the names of all families.

A task's contamination group (`TaskSpec.group`) is the name of its data set, or its group below.
Holding out a task holds out its whole group.
"""

# Name of a data set in any family -> its group, under its name in the family `flan2021` if that has
# it. First other spellings, then data sets that contain examples of another.
GROUPS = {
    "ag_news": "ag_news_subset",
    "boolq": "bool_q",
    "commongen": "common_gen",
    "cosmosqa": "cosmos_qa",
    "imdb": "imdb_reviews",
    "mathematics_dataset": "math_dataset",
    "multinli": "mnli",
    "mrpc": "msr_pairs",
    "qqp": "glue_qqp",
    "sts_b": "msr_pairs",
    "triviaqa": "trivia_qa",
    "yelp_polarity": "yelp_polarity_reviews",
    "e2e": "dart",  # DART takes E2E and WebNLG in
    "web_nlg": "dart",
    "e_snli": "snli",  # SNLI's pairs with explanations
    "esnli": "snli",
    "cos_e": "commonsenseqa",  # CommonsenseQA's questions with explanations
    "ecqa": "commonsenseqa",
    "x_csr": "commonsenseqa",  # translated
    "eqasc": "qasc",
    "paws": "paws_wiki",
    "paws_x": "paws_wiki",  # translated
    "copa_hr": "copa",  # translated
    "xcopa": "copa",
    "qrecc": "quac",  # QReCC rewrites questions of QuAC and others
    "sensemaking": "semeval_2020_task4",
    "squad_1.1": "squad",
    "squad_2.0": "squad",
    "disfl_qa": "squad",  # SQuAD's questions with disfluencies
    "xquad": "squad",  # translated
    "roc_stories": "story_cloze",
    "enhanced_wsc": "winograd",
    "mwsc": "winograd",
    "winograd_wsc": "winograd",
    "winowhy": "winograd",
    "wsc_fixed": "winograd",
}


def group_of(dataset: str) -> str:
    """The contamination group of a data set."""
    return GROUPS.get(dataset, dataset)
