"""Families of public data: `gsm8k`, `cot` (Flan's chains of thought), `niv2` (Super-NI).

Importing this module looks at the names of the files under the data folder (DATA_DIR, else
INSTRUCT_DATA_DIR, else ~/instruct_data), opens none of them, and registers

    gsm8k.main          always, so that a missing folder is reported by name
    cot.<file>          one task for each cot/*.tsv           (`cot.aqua.cot`, `cot.aqua.direct`)
    niv2.<file>         one task for each natural_instructions/tasks/*.json
    public.sample       the mixture of the families that are there, each with an equal share

The data folder must therefore be set before the import; `register()` may be called again after
it has changed and adds what is new to the tasks, but a mixture once registered stays as it is.
"""

import decimal
import functools
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.public_sources import (
    EXEMPLARS,
    Gsm8kSource,
    cot_tsv_source,
    natural_instructions_source,
)
from instruct.data.registry import add_mixture, add_task, all_names, task_specs
from instruct.data.sources import data_dir
from instruct.data.spec import SPLITS, TaskSpec
from instruct.eval import metrics
from instruct.prompts.options import match_option, plain
from instruct.prompts.template import TemplateSet, load_template_sets

TEMPLATES = Path(__file__).parent / "templates"
SAMPLE = "public.sample"

_NUMBER = re.compile(r"[-+\u2212]?\$?\s?(\d[\d,]*(?:\.\d+)?|\.\d+)\s?%?")


@functools.cache
def templates(name: str) -> TemplateSet:
    """The template set of that name, from the file of that name."""
    return load_template_sets(TEMPLATES / f"{name}.toml")[name]


# ---------------------------------------------------------------- reading an answer


def cut_answer(text: str, closing_phrases: Sequence[tuple[str, str]]) -> str:
    """What a chain of thought ends with: the text after its last closing phrase.

    Args:
        text: what the model wrote.
        closing_phrases: (text before, text after) of the answer, as in
            `TemplateSet.closing_phrases`.

    Returns:
        The rest of that line without the phrase's own end; the whole text without a phrase.
    """
    best, ending = 0, ""
    for before, after in closing_phrases:
        # The phrase's own last line: what stands before it on other lines is reasoning.
        words = before.rsplit("\n", 1)[-1].split()
        if not words:
            continue
        pattern = r"\s+".join(re.escape(word) for word in words)
        for match in re.finditer(pattern, text, re.IGNORECASE):
            if match.end() > best:
                best, ending = match.end(), after
    answer = text[best:].strip()
    if best:
        answer = answer.split("\n", 1)[0].strip()
        if ending:
            answer = answer.removesuffix(ending).rstrip()
    return answer


def canonical(answer: str) -> str:
    """An answer in one form: a lone number by its value, other text without case and ends.

    >>> canonical("$1,200.0"), canonical("Yes.")
    ('1200', 'yes')
    """
    text = plain(answer)
    whole = _NUMBER.fullmatch(answer.strip().rstrip(".;,!"))
    if whole is None:
        return text
    value = decimal.Decimal(whole.group(1).replace(",", ""))
    sign = "-" if answer.strip()[0] in "-\u2212" and value else ""
    return sign + format(value.normalize(), "f")


def _texts(values: Any) -> list[str]:
    """Texts of a feature that may hold bytes (SeqIO) or text."""
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def read_answer(
    decoded: str,
    example: Mapping[str, Any] | None = None,
    is_target: bool = False,
    *,
    closing_phrases: Sequence[tuple[str, str]] = (),
) -> str:
    """A `postprocess_fn`: the answer of a direct or reasoned reply, in its canonical form.

    Where the prompt showed options, an answer by marker or by text becomes the option's text.
    """
    del is_target  # both sides are read in the same way
    answer = cut_answer(decoded, closing_phrases)
    options = _texts((example or {}).get("options", ()))
    if options:
        markers = _texts((example or {}).get("markers", ()))
        index = match_option(answer, options, markers)
        if index is not None:
            return canonical(options[index])
    return canonical(answer)


def read_references(
    decoded: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> str | list[str]:
    """A `postprocess_fn`: a target becomes all accepted outputs, a prediction stays as it is."""
    if is_target and example is not None:
        return _texts(example["references"])
    return decoded.strip()


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _loose(text: str) -> str:
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def loose_exact_match(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """Exact match as Tk-Instruct counts it: without case and punctuation, best reference."""
    references = [[_loose(r) for r in metrics.references_of(target)] for target in targets]
    return metrics.exact_match(references, [_loose(prediction) for prediction in predictions])


def rouge_l(targets: Sequence[metrics.Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F1 with stemming, best reference: the headline number of Tk-Instruct."""
    return {"rougeL": metrics.rouge(targets, predictions)["rougeL"]}


# ---------------------------------------------------------------- tasks


def _answer_reader(template_set: TemplateSet) -> Any:
    return functools.partial(read_answer, closing_phrases=template_set.closing_phrases)


def gsm8k_task() -> TaskSpec:
    """GSM8K: word problems with worked solutions."""
    wording = templates("gsm8k")
    return TaskSpec(
        name="gsm8k.main",
        family="gsm8k",
        dataset="main",
        category="arithmetic word problems",
        source=Gsm8kSource(),
        templates=wording,
        modes={"cot": 0.5, "direct": 0.25, "fs_noopt": 0.25},
        metric_fns=[metrics.number_match],
        postprocess_fn=_answer_reader(wording),
        license="MIT",
        url="https://github.com/openai/grade-school-math",
        description="School arithmetic in words, answers with and without the working",
    )


def cot_task(path: str) -> TaskSpec:
    """One of Flan's chain-of-thought files, `path` relative to the data folder."""
    source = cot_tsv_source(path)
    wording = templates("cot")
    return TaskSpec(
        name=f"cot.{_registry_name(source.name)}",
        family="cot",
        dataset=source.name,
        category="reasoning",
        source=source,
        templates=wording,
        modes={"cot": 0.5, "direct": 0.5},
        cap=100_000,  # Flan's cap for this family
        metric_fns=[metrics.exact_match],
        postprocess_fn=_answer_reader(wording),
        license="Apache-2.0",
        url="https://github.com/google-research/FLAN/tree/main/flan/v2/cot_data",
        description="Questions with an answer and the reasoning that leads to it",
    )


def natural_instructions_task(path: str) -> TaskSpec:
    """One Natural-Instructions task file, `path` relative to the data folder."""
    source = natural_instructions_source(path)
    return TaskSpec(
        name=f"niv2.{_registry_name(source.name)}",
        family="niv2",
        dataset=source.name,
        category=_category(source.name),
        source=source,
        templates=templates("natural_instructions"),
        modes={"zs_noopt": 0.5, "fs_noopt": 0.5},
        cap=5_000,  # Flan's cap for this family, here for each task
        metric_fns=[rouge_l, loose_exact_match],
        postprocess_fn=read_references,
        splits={split: split for split in (*SPLITS, EXEMPLARS)},
        exemplar_split=EXEMPLARS,
        license="Apache-2.0",
        url="https://github.com/allenai/natural-instructions",
        description="A task with its definition",
    )


def _registry_name(name: str) -> str:
    """A data set's name with the characters that SeqIO allows in names."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)


_KINDS = re.compile(
    r"(classification|question_answering|(?:question|answer|text|sentence|dialogue)_generation"
    r"|generation|translation|summarization|(?:text_)?(?:modification|completion|matching))"
)


def _category(name: str) -> str:
    """The kind of task as far as a file's name tells; the true categories stand inside."""
    kinds = _KINDS.findall(name.lower().replace("-", "_"))
    return kinds[0].replace("_", " ") if kinds else "natural instructions"


def _files(folder: str, pattern: str) -> list[str]:
    """Files of that kind that are there, sorted, relative to the data folder."""
    return sorted(f"{folder}/{path.name}" for path in (data_dir() / folder).glob(pattern))


def register() -> None:
    """Registers what is there and is not registered yet."""
    present: dict[str, list[str]] = {"gsm8k": [], "cot": [], "niv2": []}
    specs = [
        gsm8k_task(),
        *map(cot_task, _files("cot", "*.tsv")),
        *map(natural_instructions_task, _files("natural_instructions/tasks", "*.json")),
    ]
    for spec in specs:
        if spec.name not in task_specs():
            add_task(spec)
        if spec.family != "gsm8k" or spec.source.available() is None:
            present[spec.family].append(spec.name)
    if SAMPLE in all_names():
        return
    families = {}
    for family, names in present.items():
        if names:
            add_mixture(f"public.{family}", dict.fromkeys(names))
            families[f"public.{family}"] = 1.0
    # With no file at all the mixture still exists, so that the message names the folder.
    add_mixture(SAMPLE, families or {"gsm8k.main": 1.0})


register()
