"""What `docs/collection.md` says that no table of tasks can tell: how things were checked, and why.

`tests/tasks/test_collection_doc.py` looks for every test that is named here.
"""

from typing import NamedTuple


class Check(NamedTuple):
    """How the records of some tasks were checked.

    Attributes:
        tasks: which.
        how: "real files", "made-up rows", "mock_data", "made-up files" or "generated".
        what: in a sentence.
        test: file and function.
    """

    tasks: str
    how: str
    what: str
    test: str


# Family -> its title and checks, in the order of the page. The first six are the collection.
COLLECTION = ("flan2021", "t0", "niv2", "cot", "dialog", "program_synthesis")
TITLES = {
    "flan2021": "Flan 2021",
    "t0": "T0 (P3 prompts)",
    "niv2": "Super-NaturalInstructions v2",
    "cot": "chain of thought",
    "dialog": "dialog",
    "program_synthesis": "program synthesis",
    "published": "the collection as published in finished prompts",
    "gsm8k": "GSM8K as its authors publish it",
    "gym": "procedural reasoning (reasoning_gym)",
}

_FLAN2021 = "tests/tasks/flan2021/test_family.py"
CHECKS: dict[str, tuple[Check, ...]] = {
    "flan2021": (
        Check(
            "all 72",
            "made-up rows",
            "rows written by hand go through TFDS's reader, whose schema they must fit",
            f"{_FLAN2021}::test_records_come_through_tfds",
        ),
        Check(
            "those that take any row",
            "mock_data",
            "random rows of the builder's schema become records",
            f"{_FLAN2021}::test_any_row_of_the_schema_is_a_record_or_dropped",
        ),
    ),
    "t0": (
        Check(
            "one prompt stands for all",
            "made-up files",
            "P3's rows go first; without them a template file is applied to raw rows",
            "tests/tasks/test_t0.py::test_rows_of_p3_and_rows_of_the_raw_data_set",
        ),
        Check(
            "all 193",
            "made-up rows",
            "every task renders, and a right and a wrong reply are told apart",
            "tests/tasks/test_t0.py::test_every_task_renders_and_scores",
        ),
    ),
    "niv2": (
        Check(
            "6 files",
            "real files",
            "published task files are read and rendered in all modes",
            "tests/tasks/niv2/test_family.py::test_published_files_are_rows_of_the_table",
        ),
        Check(
            "both schemas",
            "made-up files",
            "older and newer files, their splits and exemplars",
            "tests/tasks/niv2/test_family.py::test_files_of_both_schemas",
        ),
    ),
    "cot": (
        Check(
            "aqua, ecqa, gsm8k, qasc, strategyqa",
            "real files",
            "at least 99 % of the lines of the released file become records",
            "tests/tasks/test_cot.py::test_files_of_the_release_become_records",
        ),
        Check(
            "all 9",
            "made-up files",
            "lines in each file's style, in every mode",
            "tests/tasks/test_cot.py::test_every_set_renders_in_every_mode",
        ),
    ),
    "dialog": (
        Check(
            "wiki_dialog, qrecc",
            "mock_data",
            "random rows of the builder's schema become records",
            "tests/tasks/dialog/test_family.py::test_rows_of_tfds_become_records",
        ),
        Check(
            "task_master",
            "made-up files",
            "files in the layout of the three releases",
            "tests/tasks/dialog/test_family.py::test_taskmaster_reads_the_files_as_published",
        ),
    ),
    "program_synthesis": (
        Check(
            "dr_repair_*",
            "made-up files",
            "files in DrRepair's layout",
            "tests/tasks/program_synthesis/test_family.py::test_files_are_read_below_the_folder",
        ),
        Check(
            "code_contests",
            "made-up files",
            "a Parquet file with the hub's columns",
            "tests/tasks/program_synthesis/test_family.py::test_code_contests_is_read_from_parquet",
        ),
    ),
    "published": (
        Check(
            "all 5",
            "made-up files",
            "rows in the layout of the published sets",
            "tests/tasks/test_published.py::test_sources_read_local_files_and_name_missing_ones",
        ),
    ),
    "gsm8k": (
        Check(
            "gsm8k.main",
            "real files",
            "all but 0.3 % of the lines of the published files become records",
            "tests/data/sources/test_public_releases.py::test_published_files",
        ),
    ),
    "gym": (
        Check(
            "all",
            "generated",
            "records are made by the generators themselves and judged by their verifiers",
            "tests/tasks/gym/test_family.py::test_records_survive_json_and_their_answers_are_right",
        ),
    ),
}

# ---------------------------------------------------------------- texts of the page
HEAD = """\
# The collection

The Flan 2022 Collection as tasks, and what stands beside it. **This page is written by
`python -m tasks.collection_doc`**; a test compares it with the tasks. One task: `run.py show
--task=NAME`; a mixture, with what is prepared of it: `run.py show --mixture=NAME`. "?" is what
nobody states before the data are read.
"""

# The numbers in braces are counted when the page is written.
COUNTING = """\
The table of the collection (Chung et al. 2022) counts **1,836 tasks = 80 + 193 + 1,554 + 9**:
Muffin, T0-SF, NIv2, CoT. The same rule holds here, each source by its own custom:

- a Flan 2021 task is a data set, or one configuration of it (three rounds of ANLI are three
  tasks); its inversions are prompts, not tasks;
- a T0 task is one *prompt* of P3: eleven prompts on one data set are eleven tasks;
- a NIv2 task is one *file* of Natural-Instructions: the collection's list has 1,556, of which
  two are left out (`tasks/tables/niv2.tsv` says which, and why);
- a chain-of-thought task is one of the nine files.

Muffin's 80 are {flan2021} Flan 2021 tasks, {dialog} of dialog and {program_synthesis} of program
synthesis. The {flan2021} are the 71 of the released code and `trivia_qa_wiki_missing`, which only
the published list names. `flan2022_released` leaves out what the release does not contain.

**Data sets and categories** are not counted alike by anybody. The paper's totals are 473 and 146;
the mixture `flan2022` here has **{num_datasets} data sets and {num_categories} categories**. By
source ({sums})
these add up to {sum_datasets} and {sum_categories}; {shared_datasets} and {shared_categories} are
in several sources under one name and count once. Names are counted: what one source calls `boolq`
and another `bool_q` counts twice. With such names put together, and data sets that are made of one
another's rows, there are {groups} (the contamination groups below).

The published list (`flan_collection_info.csv`: 485 names of data sets, 162 categories) does not
give the paper's totals either, and shows why no count of it can:

- its T0 rows have 55 names, many of them the beginnings of prompt names, cut in the middle; they
  are {t0_datasets} data sets;
- its NIv2 rows have 372 names, some of them two spellings of one data set; here they are
  {niv2_datasets};
- inversions are categories of their own there (20 of the 162 begin with "Inverted"), and every
  chain-of-thought file has four rows of different categories. Here inversions are modes of a task;
- MNLI's two tasks are one name there, in doubled rows.

So the number of tasks is the one to compare; data sets and categories compare only within one way
of counting.
"""

PLACES = """\
`NAME/` is a folder of the data folder (`DATA_DIR`). A source after "else" is read where the first
is not there. `run.py prepare --download` fetches what TFDS and the hub give without asking; files
of a repository are put into the data folder by hand.
"""

UNCHECKED = """\
"Real files" are small public files that a developer puts beside the repository; without them these
tests are skipped. Nothing here was checked against the whole of the published data: **no test reads
all rows of a TFDS, P3 or Natural-Instructions release**, no store of the whole collection was
built, and no model was trained on it. Numbers of records are those that publishers and the
collection state. `run.py prepare` counts what it finds, and `run.py show --mixture=flan2022` then
shows both (asked and planned).
"""
