"""Family `published`: the Flan Collection as others have rendered and published it.

Five tasks, one for each sub-mixture, and the mixture `published.flan2022` at the collection's
rates. The rows are finished prompts (instruct/data/sources/renderings.py), never reworded: use them
to compare with models that were trained on exactly these texts. Beware: `published.niv2` includes
the test tasks of Super-NaturalInstructions, and `published.t0` has about 15 % of the rows that its
share of the collection should have.

Files: `<data folder>/flan2021_submix_original/` and so on, or the hub's cache.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from instruct.data.registry import add_mixture, add_task
from instruct.data.sources.renderings import rendering_source
from instruct.data.spec import TaskSpec
from instruct.eval import metrics
from instruct.prompts.template import TemplateSet
from tasks.wordings import wording

FAMILY = "published"
MIXTURE = "published.flan2022"


class Submixture(NamedTuple):
    """One published set; `rate` is its share of the collection."""

    rate: float
    category: str
    description: str


SUBMIXTURES: Mapping[str, Submixture] = {
    "flan2021": Submixture(0.40, "flan 2021", "Flan 2021's 71 tasks"),
    "t0": Submixture(0.32, "t0", "T0's prompts, from P3"),
    "niv2": Submixture(0.20, "natural instructions", "Super-NaturalInstructions"),
    "cot": Submixture(0.05, "reasoning", "Nine sets with chains of thought"),
    "dialog": Submixture(0.03, "dialog", "Next turns of dialogs"),
}


RATES = {f"{FAMILY}.{name}": row.rate for name, row in SUBMIXTURES.items()}


def finished_templates() -> TemplateSet:
    """The set that shows a record's prompt as it is."""
    return wording("finished", "finished")


def published_task(
    name: str, template_types: Sequence[str] = (), task_names: Sequence[str] = ()
) -> TaskSpec:
    """One sub-mixture as a task, or a part of it.

    Args:
        name: a key of `SUBMIXTURES`.
        template_types, task_names: rows to keep, () for all (`rendering_source`); a part gets a
            name of its own.
    """
    row, path = SUBMIXTURES[name], f"conceptofmind/{name}_submix_original"
    dataset = re.sub(r"\W+", "_", "_".join([name, *template_types, *task_names]))
    return TaskSpec(
        name=f"{FAMILY}.{dataset}",
        family=FAMILY,
        dataset=f"{name}_submix_original",
        category=row.category,
        source=rendering_source(path, template_types, task_names),
        templates=finished_templates(),
        modes={"zs_noopt": 1.0},
        metric_fns=[metrics.exact_match],
        license="those of its data sets",
        url=f"https://huggingface.co/datasets/{path}",
        description=f"{row.description}, as published in finished form",
    )


for _name in SUBMIXTURES:
    add_task(published_task(_name))
add_mixture(MIXTURE, RATES)
