"""The model card of a Hugging Face folder: README.md, YAML for the hub and Markdown for readers.

Facts come from the folder of the run that trained the model (run.json, mixture.json, metrics.jsonl
and the evaluations at the converted step); what they lack is called "not recorded".
"""

import dataclasses
import hashlib
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from instruct import results
from instruct.files import absolute_path, is_address
from instruct.report import blocks
from instruct.report.pages.rendering import to_markdown
from instruct.report.read import Evaluation, Run, read_run
from instruct.report.wording import compact, counted, number, percent, with_error

NOT_RECORDED = "not recorded"
# With more rows than this a table is folded, and a suite is one row, the mean of its tasks.
MANY_ROWS = 20
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CACHED = re.compile(r"models--([^/]+)--([^/]+)")
_HUB_DATASET = re.compile(r"https://(?:huggingface\.co|hf\.co)/datasets/([\w.-]+(?:/[\w.-]+)?)")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*(?:\n|\Z)", re.DOTALL)
# The folders of an absolute path: after a blank, a quote or such, not in an address (gs://a/b).
_FOLDERS = re.compile(
    r"""(?:(?<![^\s'"=(\[{,:|@`])|(?<=file://))/(?:[^\s/'"=,;:()\[\]{}<>|`]+/)+"""
)
_SEAL = re.compile(r"\n<!-- instruct [0-9a-f]{64} -->\n\Z")
_MODEL_CLASSES = {
    "encoder_decoder": "AutoModelForSeq2SeqLM",
    "decoder_only": "AutoModelForCausalLM",
}


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What a card says beside the files of the run.

    Attributes:
        name: of the model: the folder's.
        is_adapter: PEFT's adapters without their base.
        source: what was converted, in words.
        run: MODEL_DIR of the checkpoint; None if no run of this program made it.
        step: of the checkpoint; 0 for none.
        layout: of the model's batches, see `instruct.batch`.
        num_params: of the model, without adapters.
        dtype: of the written weights.
        base: the model that training started from, or that was converted: a name on the hub or a
            path; "" if unknown.
        command: the command line of the conversion; "" if unknown.
        notes: on the conversion.
    """

    name: str
    is_adapter: bool
    source: str
    run: pathlib.Path | None
    step: int
    layout: str
    num_params: int
    dtype: str
    base: str
    command: str
    notes: Sequence[str]


def model_card(facts: CardFacts) -> str:
    """The text of README.md."""
    facts = dataclasses.replace(facts, name=" ".join(facts.name.split()))  # one line of YAML
    run = None if facts.run is None else read_run(facts.run, facts.run.name)
    converted_from = str(run.info.get("converted_from", "")) if run is not None else ""
    if not facts.base and converted_from.startswith("huggingface "):
        facts = dataclasses.replace(facts, base=converted_from.partition(" ")[2])
    if run is not None and facts.base == _config(run).get("initial_checkpoint_path"):
        # Training started from a path, so `runs/base` is no name on the hub.
        facts = dataclasses.replace(facts, base=str(absolute_path(facts.base)))
    base_card = front_matter_of(facts.base)
    here = () if run is None else run.counted(facts.step)
    sections = (
        _model_section(facts, run, base_card),
        _data_section(run),
        _training_section(run),
        _results_section(here),
        _not_evaluated_section(facts, run, here),
        _commands_section(facts, run),
        _loading_section(facts),
    )
    subtitle = f"Written by instruct from {facts.source}."
    text = to_markdown(blocks.Document(facts.name, subtitle, sections))
    fields = _front_matter(facts, run, base_card, here)
    header = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    return _sealed(_without_folders(f"---\n{header}---\n{text}"))


def is_unchanged(card: str) -> bool:
    """Whether a card is as `model_card` wrote it, so that another may replace it."""
    text = _SEAL.sub("", card)
    return text != card and _sealed(text) == card


def _sealed(text: str) -> str:
    """The text with its hash in a comment that readers do not see."""
    return f"{text}\n<!-- instruct {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def hub_name(place: str) -> str:
    """The name on the hub of a model: of a folder in its cache, or `place` itself; else ""."""
    if match := _CACHED.search(place):
        return f"{match[1]}/{match[2]}"
    is_name = _HUB_NAME.fullmatch(place) and not pathlib.Path(place).exists()
    return place if is_name else ""


def front_matter_of(place: str) -> dict[str, Any]:
    """The YAML of the model card in a folder; {} without a readable one."""
    if not place or is_address(place):
        return {}
    try:
        text = (pathlib.Path(place).expanduser() / "README.md").read_text("utf-8-sig")
        match = _FRONT_MATTER.match(text)
        fields = yaml.safe_load(match[1]) if match else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _front_matter(
    facts: CardFacts, run: Run | None, base_card: Mapping[str, Any], here: Sequence[Evaluation]
) -> dict[str, Any]:
    """Fields that the hub knows: https://huggingface.co/docs/hub/model-cards."""
    leaves, licenses = _leaves(run), _licenses(base_card)
    datasets = {match[1] for leaf in leaves if (match := _HUB_DATASET.match(_text(leaf, "url")))}
    is_lora = facts.is_adapter or (run is not None and "lora.rank" in _config(run))
    fields: dict[str, Any] = {
        "license": licenses[0] if len(licenses) == 1 else licenses or "unknown",
        **{n: base_card[n] for n in ("license_name", "license_link") if base_card.get(n)},
        "library_name": "peft" if facts.is_adapter else "transformers",
        "base_model": hub_name(facts.base) or None,
        "datasets": sorted(datasets) or None,
        "tags": ["instruct", *(["instruction-tuning"] if leaves else []), *(["lora"] * is_lora)],
    }
    entries = [
        _index_entry(evaluation, row)
        for evaluation in here
        for row in _result_rows(evaluation)
        if row["value"] is not None
    ]
    if entries:
        fields["model-index"] = [{"name": facts.name, "results": entries}]
    return {name: value for name, value in fields.items() if value is not None}


def _licenses(base_card: Mapping[str, Any]) -> list[str]:
    """The licences of a base model's card, which may have one or a list."""
    value = base_card.get("license")
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one]


def _index_entry(evaluation: Evaluation, row: Mapping[str, Any]) -> dict[str, Any]:
    stderr = None if row["stderr"] is None else round(row["stderr"], 4)
    args = {"n": row["n"], "stderr": stderr, "step": evaluation.step}
    args |= {name: row[name] for name in ("task_version", "template_set", "decode") if row[name]}
    metric = {"type": row["metric"], "value": round(row["value"], 4), "args": args}
    dataset = {"type": row["task"], "name": f"{row['task']} {row['mode']}".strip()}
    return {
        "task": {"type": "text-generation", "name": evaluation.suite},
        "dataset": dataset | ({"split": row["split"]} if row["split"] else {}),
        "metrics": [metric],
    }


def _result_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Primary metric lines of an evaluation; of more than `MANY_ROWS` tasks their mean."""
    rows = list(evaluation.metrics)
    if len(rows) <= MANY_ROWS:
        return rows
    mean = results.aggregate(rows)

    def shared(name: str) -> str:
        values = {row[name] for row in rows}
        return values.pop() if len(values) == 1 else ""

    names = ("split", "group", "decode", "template_set", "task_version")
    metric = shared("metric") or "mean_of_first_metrics"
    task = f"{evaluation.suite} (mean of {mean.tasks - mean.without_value:,} tasks)"
    numbers = {"value": mean.value, "stderr": mean.stderr, "n": mean.examples}
    texts = {"task": task, "mode": shared("mode"), "metric": metric, "baseline": mean.baseline}
    return [numbers | texts | {name: shared(name) for name in names}]


def _leaves(run: Run | None) -> list[Mapping[str, Any]]:
    leaves = run.mixture.get("leaves", ()) if run is not None else ()
    return [leaf for leaf in leaves if isinstance(leaf, Mapping)]


def _text(leaf: Mapping[str, Any], name: str) -> str:
    return str(leaf.get(name) or "")


def _config(run: Run) -> Mapping[str, Any]:
    config = run.info.get("config")
    return config if isinstance(config, Mapping) else {}


def _facts_table(pairs: Sequence[tuple[str, Any]]) -> blocks.Table:
    """(name, value) rows; a missing value is "not recorded"."""
    rows = [
        blocks.Row((name, NOT_RECORDED if value in (None, "") else str(value)))
        for name, value in pairs
    ]
    return blocks.Table(("", "Value"), rows, 2)


def _started_at_random(run: Run) -> bool:
    """Whether step 0 had random parameters; a MODEL_DIR that `convert` wrote begins later."""
    sessions = run.info.get("sessions")
    first = sessions[0] if isinstance(sessions, list) and sessions else {}
    begins_at = first.get("from_step") if isinstance(first, Mapping) else None
    return not begins_at and _config(run).get("initial_checkpoint_path", "") is None


@blocks.section("model", "Model")
def _model_section(
    facts: CardFacts, run: Run | None, base_card: Mapping[str, Any]
) -> Iterator[blocks.Block]:
    base = hub_name(facts.base)
    if facts.base and not base:
        base = f"{pathlib.PurePath(facts.base).name} (its name on the hub is not recorded)"
    if not base and run is not None and _started_at_random(run):
        base = "none: training started from random parameters"
    license_name = ", ".join(_licenses(base_card))
    lines = [
        ("Adapters for" if facts.is_adapter else "Base model", base),
        ("Licence", f"{license_name}, of the base model's card" if license_name else None),
        ("Parameters", f"{facts.num_params:,}"),
        ("Weights", f"{facts.dtype}, step {facts.step:,}" if facts.step else facts.dtype),
    ]
    trained = run.info.get("num_params_trained") if run is not None else None
    if isinstance(trained, int) and trained < facts.num_params:
        lines.insert(3, ("Parameters that were trained", f"{trained:,}"))
    yield _facts_table(lines)
    for note in facts.notes:
        yield blocks.Text(f"Note: {note}.")


@blocks.section("data", "Training data", f"The training data are {NOT_RECORDED} here.")
def _data_section(run: Run | None) -> Iterator[blocks.Block]:
    """Tasks with shares, examples, licences and origins; licences in all."""
    leaves = _leaves(run)
    if run is None or not leaves:
        return
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for leaf in leaves:
        tasks.setdefault(_text(leaf, "task"), []).append(leaf)
    kept = sum(int(leaf.get("examples") or 0) for leaf in leaves)
    mixture = f"{run.mixture.get('mixture', 'mixture')}, {counted(len(tasks), 'task')}"
    tokens = compact(run.mixture.get("tokens"))
    counts = f"{counted(kept, 'example')}, {tokens} tokens were read"
    trained = [value for _, value in run.curve("examples") if math.isfinite(value)]
    if trained:
        counts += f", some ahead of training; the run's steps used {int(trained[-1]):,}"
    yield blocks.Text(f"Mixture {mixture}: {counts}.")
    rows, by_license = [], {}
    for task, inside in tasks.items():
        examples = sum(int(leaf.get("examples") or 0) for leaf in inside)
        license_name = _text(inside[0], "license") or NOT_RECORDED
        by_license.setdefault(license_name, []).append(examples)
        cells = (task, license_name, _text(inside[0], "url") or NOT_RECORDED)
        rows.append(blocks.Row((*cells, percent(examples / max(1, kept)), f"{examples:,}")))
    fold = counted(len(rows), "task") if len(rows) > MANY_ROWS else ""
    columns = ("Task", "Licence of the data", "Origin", "Share", "Examples read")
    yield blocks.Table(columns, rows, 3, fold)
    if len(rows) > 1:
        lines = [
            blocks.Row((name, f"{len(counts):,}", percent(sum(counts) / max(1, kept))))
            for name, counts in sorted(by_license.items(), key=lambda item: -sum(item[1]))
        ]
        yield blocks.Table(("Licence", "Tasks", "Share"), lines)
    if left_out := run.mixture.get("left_out"):
        yield blocks.Text(f"Tasks of the mixture that were left out: {', '.join(left_out)}.")


@blocks.section("training", "Training", f"How the model was trained is {NOT_RECORDED} here.")
def _training_section(run: Run | None) -> Iterator[blocks.Block]:
    config = _config(run) if run is not None else {}
    if run is None or not config:
        return
    commit = run.info.get("commit")
    if commit and run.info.get("commit_dirty"):
        commit = f"{commit}, with changed files"
    versions = run.info.get("versions")
    chosen = ("jax", "flax", "optax")
    optimizer = config.get("optimizer") or config.get("optimizer.name")
    names: dict[str, Any] = {
        "Steps of the run so far": run.info.get("step"),
        "Batch (rows of a step)": config.get("data.batch_size"),
        "Longest inputs (tokens)": config.get("data.feature_lengths.inputs"),
        "Longest targets (tokens)": config.get("data.feature_lengths.targets"),
        "Packing": config.get("data.packing"),
        "Prompts": "a chat template's turns" if config.get("data.chat_template") else "plain text",
        "Optimiser": optimizer,
    }
    if "optimizer.name" in config:
        names |= {
            "Learning rate": config.get("optimizer.learning_rate"),
            "Schedule": config.get("optimizer.schedule"),
        }
    for name in ("rank", "alpha", "dropout", "rslora", "targets"):
        if f"lora.{name}" in config:
            names[f"LoRA {name}"] = config[f"lora.{name}"]
    if "freeze" in config:
        names["Frozen parameters"] = config["freeze"]
    names |= {
        "Seed": config.get("seed"),
        "Activations": config.get("model.dtype"),
        "Device": run.info.get("device"),
        "Started": run.info.get("start"),
        "Commit of instruct": commit,
        "SHA-256 of its code": run.info.get("code_sha256"),
    }
    if isinstance(versions, Mapping):
        names["Versions"] = ", ".join(f"{n} {versions[n]}" for n in chosen if n in versions)
    yield _facts_table(list(names.items()))


@blocks.section("results", "Results", "No result of this checkpoint is recorded.")
def _results_section(here: Sequence[Evaluation]) -> Iterator[blocks.Block]:
    measured = [evaluation for evaluation in here if evaluation.metrics]
    if not measured:
        return
    yield blocks.Text(blocks.NOTES["scores"])
    rows = [row for evaluation in measured for row in _result_rows(evaluation)]
    yield _scores(rows)
    for evaluation in measured:
        if len(evaluation.metrics) > MANY_ROWS:
            fold = f"{counted(len(evaluation.metrics), 'task')} of {evaluation.suite}"
            yield _scores(evaluation.metrics, fold)
    lines = []
    for evaluation in measured:
        conditions = {
            name: ", ".join(sorted({str(row[name]) for row in evaluation.metrics}))
            for name in ("decode", "template_set")
        }
        versions = sorted({row["task_version"] for row in evaluation.metrics})
        exemplars = results.exemplars_text(results.exemplars_of(evaluation.metrics))
        cells = (evaluation.suite, conditions["decode"], conditions["template_set"])
        lines.append(blocks.Row((*cells, ", ".join(versions), exemplars, f"{evaluation.step:,}")))
    columns = ("Suite", "Decoding", "Wordings", "Task versions", "Exemplars", "Step")
    yield blocks.Table(columns, lines, 4)


def _scores(rows: Sequence[Mapping[str, Any]], fold: str = "") -> blocks.Table:
    lines = [
        blocks.Row(
            (
                f"{row['task']} {row['mode']}".strip(),
                row["metric"],
                f"{row['split']}, {row['group'].replace('_', '-')}".strip(", "),
                with_error(row["value"], row["stderr"]),
                f"{row['n']:,}",
                number(row["baseline"]),
            )
        )
        for row in rows
    ]
    columns = ("Task", "Metric", "Split, trained on", "Score ± s.e.", "n", "Baseline")
    return blocks.Table(columns, lines, 3, fold)


@blocks.section("not_evaluated", "Not evaluated")
def _not_evaluated_section(
    facts: CardFacts, run: Run | None, here: Sequence[Evaluation]
) -> Iterator[blocks.Block]:
    items = [
        "Only what the table of results names was measured; nothing is known of anything else, "
        "safety, bias and factual errors included."
    ]
    evaluations = run.evaluations if run is not None else ()
    suites = {evaluation.suite for evaluation in evaluations if evaluation.step == facts.step}
    elsewhere = sorted({evaluation.suite for evaluation in evaluations} - suites)
    if elsewhere:
        names = ", ".join(elsewhere)
        items.append(f"Evaluated at other steps than this checkpoint's only: {names}.")
    items += [line for evaluation in here for line in results.failure_lines(evaluation.failures)]
    measured = {row["task"] for evaluation in here for row in evaluation.metrics}
    trained = {_text(leaf, "task") for leaf in _leaves(run)}
    if trained:
        without = len(trained - measured)
        items.append(f"Tasks that were trained on: {without:,} of {len(trained):,} not evaluated.")
    if here and all(results.is_of_training(evaluation.suite) for evaluation in here):
        items.append("Results were measured while training, on few examples of each task.")
    if here and facts.dtype != "float32":
        items.append(f"Results are of the float32 weights; these are rounded to {facts.dtype}.")
    if here:
        items.append("Results are of this program's decoding, not of transformers' generate.")
    yield from map(blocks.Text, items)


@blocks.section("commands", "Commands")
def _commands_section(facts: CardFacts, run: Run | None) -> Iterator[blocks.Block]:
    command = run.info.get("command_line") if run is not None else None
    yield blocks.Code("Training", str(command or NOT_RECORDED), fold=False)
    yield blocks.Code("Conversion", facts.command or NOT_RECORDED, fold=False)
    if run is not None and run.operative_gin:
        yield blocks.Code("operative.gin", run.operative_gin)


@blocks.section("loading", "Loading")
def _loading_section(facts: CardFacts) -> Iterator[blocks.Block]:
    model_class = _MODEL_CLASSES[facts.layout]
    if facts.is_adapter:
        base = hub_name(facts.base) or "FOLDER_OF_THE_BASE_MODEL"
        text = (
            f"from peft import PeftModel\nfrom transformers import {model_class}\n\n"
            f'base = {model_class}.from_pretrained("{base}")\n'
            f'model = PeftModel.from_pretrained(base, "{facts.name}")'
        )
    else:
        text = (
            f"from transformers import AutoTokenizer, {model_class}\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{facts.name}")\n'
            f'model = {model_class}.from_pretrained("{facts.name}")'
        )
    yield blocks.Code("Python; a name on the hub goes where the folder's is", text, fold=False)


def _without_folders(text: str) -> str:
    """The text without folders of this machine, which a published card need not name.

    This user's home folder becomes `~`, the folders of other absolute paths become `…`; the user
    and password of an address (https://me:secret@host) are left out.
    """
    text = re.sub(r"(?<=://)[^\s/@'\"]+@", "", text)
    home = str(pathlib.Path.home())
    if len(home) > 1:
        escaped = "".join(rf"\\?{re.escape(letter)}" for letter in home)  # Markdown's backslashes
        text = re.sub(rf"{escaped}(?!\.?[\w\\-])", "~", text)
    return _FOLDERS.sub("…/", text)
