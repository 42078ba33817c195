"""A trained checkpoint under the real harness: the accuracies of our own runner on MMLU's files.

Our prompts of `mmlu.<subject>.direct` are the harness's own `mmlu`, letter by letter, so the same
questions get the same choices. What the harness reads is written by the test: no download.
"""

import csv
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instruct import results
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.train_state import TrainState
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.eval.decoding.batching import padded_rows
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.lm_eval import model as lm_eval_model
from instruct.eval.lm_eval.model import load_answerer, main, with_defaults
from instruct.eval.runner import EvalConfig, evaluate
from instruct.eval.scoring.score import summed_logprobs
from instruct.mesh import tree_paths
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from tests.float32 import assert_same_float32
from tests.waiting import LIMIT_SECS
from tests.workspaces import workspace

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[3]
LETTERS = "ABCD"
WORDS = load_vocabulary("gym")
STEPS = 150
WINDOW = 424  # tokens of a prompt that training sees
LENGTHS = {"inputs": 2048, "targets": 8}
MODEL = ModelConfig(
    vocab_size=WORDS.vocab_size,
    d_model=32,
    num_heads=2,
    head_dim=16,
    d_ff=64,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
TEXTS = ["One window is enough.", "", "More of them, " * 200]
needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval is not installed"
)

QUESTION = """{question}
A. {a}
B. {b}
C. {c}
D. {d}
Answer:"""
# The harness's own `mmlu` and, of the same prompts, a task that generates.
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{cache_dir: {cache}, data_files: {{test: {test}, dev: {dev}}}}}
test_split: test
fewshot_split: dev
num_fewshot: 5
fewshot_config: {{sampler: first_n}}
description: "The following are multiple choice questions (with answers) about {topic}.\\n\\n"
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\nC. {{{{choices[2]}}}}\\nD. {{{{choices[3]}}}}\\nAnswer:"
"""  # noqa: E501
CHOICE = """
output_type: multiple_choice
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
GENERATE = """
output_type: generate_until
doc_to_target: "{{['A', 'B', 'C', 'D'][answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
ROLLING = """
task: texts
dataset_path: json
dataset_kwargs: {{cache_dir: {cache}, data_files: {{test: {test}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: byte_perplexity}}]
"""


def made_up_files(folder: pathlib.Path) -> tuple[str, ...]:
    """Questions of words at random, in the publisher's format.

    As in the publisher's files some choices have blanks around them, and an exemplar is repeated.
    """
    rng = np.random.default_rng(0)
    words = ["moon", "tide", "cell", "ring", "dust", "comet", "Mars", "red", "why", "two", "light"]
    for subject in ("astronomy", "virology"):
        for split, count in (("dev", 4), ("test", 40)):
            path = folder / "mmlu" / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as stream:
                for number in range(count):
                    names = [" ".join(rng.choice(words, 2)) + str(n) for n in range(4)]
                    names[number % 4] += " " * (number % 3)
                    length = 2 if split == "dev" else rng.integers(2, 60)
                    question = " ".join(rng.choice(words, length)) + f", {number}? "
                    row = [question, *names, LETTERS[rng.integers(4)]]
                    for _ in range(2 if split == "dev" and number == 1 else 1):
                        csv.writer(stream).writerow(row)
    return ("astronomy", "virology")


def questions(folder: pathlib.Path, subject: str, split: str) -> list[dict]:
    """The rows of a file as the harness gets them, read without our reader."""
    found = []
    with (folder / "mmlu" / split / f"{subject}_{split}.csv").open(newline="") as stream:
        for row in csv.reader(stream):
            if row[-1] != "answer":
                answer = LETTERS.index(row[-1]) if row[-1] in LETTERS else int(row[-1])
                found.append({"question": row[0], "choices": row[1:5], "answer": answer})
    return found


def prompts(folder: pathlib.Path, subject: str) -> list[tuple[str, str]]:
    """(prompt, letter) of each test question, five exemplars in front."""

    def asked(row: dict) -> str:
        choices = dict(zip("abcd", row["choices"]))
        return QUESTION.format(question=row["question"].strip(), **choices)

    topic = subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {topic}.\n\n"
    for row in questions(folder, subject, "dev"):
        head += f"{asked(row)} {LETTERS[row['answer']]}\n\n"
    rows = questions(folder, subject, "test")
    return [(head + asked(row), LETTERS[row["answer"]]) for row in rows]


def trained_a_little(pairs: list[tuple[str, str]]):
    """Random parameters, large ones, whose last layer has learned to say letters.

    So the answers are letters, and other questions get other ones.
    """
    network = EncoderDecoder(MODEL)
    inputs = [[*WORDS.encode(text), WORDS.eos_id][-WINDOW:] for text, _ in pairs]
    targets = [[*WORDS.encode(letter), WORDS.eos_id] for _, letter in pairs]
    rows = np.arange(len(pairs))
    batch = [jnp.asarray(padded_rows(*one)) for one in ((inputs, rows, WINDOW), (targets, rows, 4))]
    rule = optax.adam(2e-2)

    def init():
        params = jax.jit(network.init)(jax.random.key(0))
        params = jax.tree.map(lambda leaf: 3.0 * leaf, params)
        last, rest = {}, {}
        for path, leaf in tree_paths(params):
            (last if "logits" in path else rest)[path] = leaf
        return last, rest, rule.init(last)

    @jax.jit
    def update(last, rest, state, numbers):
        def loss(last):
            params = jax.tree.unflatten(structure, [(last | rest)[path] for path in order])
            part = [array[numbers] for array in batch]
            return -summed_logprobs(network.target_logits(params, *part), part[1]).mean()

        value, gradients = jax.value_and_grad(loss)(last)
        changes, state = rule.update(gradients, state)
        return optax.apply_updates(last, changes), state, value

    abstract = network.abstract_params()
    structure, order = jax.tree.structure(abstract), [path for path, _ in tree_paths(abstract)]
    last, rest, state = jax.jit(init)()
    assert last and rest
    random, value = np.random.default_rng(1), math.inf
    for _ in range(STEPS):
        last, state, value = update(last, rest, state, random.integers(0, len(pairs), 16))
    assert float(value) < 4.0  # from 70
    return jax.tree.unflatten(structure, [(last | rest)[path] for path in order])


def write_run(folder: pathlib.Path, params) -> None:
    """A run's folder with one checkpoint."""
    store = CheckpointStore(folder / "checkpoints", CheckpointConfig(async_save=False))
    rule = make_optimizer(OptimizerConfig(learning_rate=0.1))
    store.save(STEPS, TrainState(jnp.int32(STEPS), params, rule.init(params)), input_state={})
    store.close()
    config = {f"data.feature_lengths.{name}": length for name, length in LENGTHS.items()}
    info = {"model": dataclasses.asdict(MODEL), "config": config | {"data.vocabulary": "gym"}}
    (folder / "run.json").write_text(json.dumps(info))


def write_tasks(folder: pathlib.Path, data: pathlib.Path, subjects) -> list[str]:
    """The harness's tasks; their names."""
    folder.mkdir()
    names = []

    def json_lines(name, rows):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    cache = folder / "cache"
    for subject in subjects:
        files = {
            split: json_lines(f"{subject}_{split}", questions(data, subject, split))
            for split in ("test", "dev")
        }
        for kind, rest in (("choice", CHOICE), ("generate", GENERATE)):
            names.append(f"local_{subject}_{kind}")
            topic = subject.replace("_", " ")
            head = TASK.format(name=names[-1], topic=topic, cache=cache, **files)
            (folder / f"{names[-1]}.yaml").write_text(head + rest)
    texts = json_lines("texts", [{"text": text} for text in TEXTS if text])
    (folder / "texts.yaml").write_text(ROLLING.format(cache=cache, test=texts))
    return [*names, "texts"]


def run_harness(run, tasks, names, output, *more) -> tuple[dict, dict]:
    """(results, samples by task) of the harness's command line, without network."""
    command = [sys.executable, "-m", "instruct.eval.lm_eval.model", "--tasks", ",".join(names)]
    command += ["--model_args", f"model_dir={run}", "--include_path", str(tasks)]
    command += ["--output_path", str(output), "--log_samples", *more]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(output / "hub")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=3 * LIMIT_SECS,
        cwd=ROOT,
        env=os.environ | offline,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (path,) = output.rglob("results_*.json")
    samples = {}
    for name in names:
        (lines,) = output.rglob(f"samples_{name}_*.jsonl")
        samples[name] = [json.loads(line) for line in lines.read_text().splitlines()]
    return json.loads(path.read_text()), samples


def own_rows(run, subject) -> list[dict]:
    folder = run / "eval" / f"mmlu.{subject}.direct" / f"step_{STEPS}"
    return list(results.read_rows(folder / results.FILE_NAME))


@needs_harness
@pytest.mark.parametrize("files", ["made_up", "real"])
def test_accuracies_are_our_runners(files, request, tmp_path, monkeypatch):
    import tasks.suites.mixtures  # noqa: F401  (registers the suites)

    if files == "real":
        data = request.getfixturevalue("shared_data")
        subjects: tuple[str, ...] = ("abstract_algebra", "us_foreign_policy")
    else:
        data = tmp_path / "data"
        subjects = made_up_files(data)
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(data))
    pairs = [pair for subject in subjects for pair in prompts(data, subject)]
    run = tmp_path / "run"
    write_run(run, trained_a_little(pairs))
    suites = [f"mmlu.{subject}.direct" for subject in subjects]
    config = EvalConfig(suites, num_examples=None, rank_options=True, bootstrap_samples=0)
    decode = DecodeConfig(max_decode_steps=8)
    assert evaluate(str(run), config, decode=decode, workspace=workspace()) == 0

    names = write_tasks(tmp_path / "tasks", data, subjects)
    found, samples = run_harness(run, tmp_path / "tasks", names, tmp_path / "out")
    choices = set()
    for subject in subjects:
        own = own_rows(run, subject)
        examples = [row for row in own if row["kind"] == "example"]
        metrics = {row["metric"]: row["value"] for row in own if row["kind"] == "metric"}
        for kind, ours, theirs in (
            ("choice", "rank_accuracy", "acc"),
            ("generate", "exact_match", "exact_match"),
        ):
            name = f"local_{subject}_{kind}"
            value = found["results"][name][f"{theirs},none"]
            print(f"{files} {subject} {kind}: {metrics[ours]:.2f} {100 * value:.2f}")
            assert 100 * value == pytest.approx(metrics[ours], abs=1e-9)
            assert 0 < value < 1
            # The same prompts, each as right as there; a question may be asked twice.
            asked = [sample["arguments"]["gen_args_0"]["arg_0"] for sample in samples[name]]
            right = [100 * sample[theirs] for sample in samples[name]]
            expected = sorted((row["prompt"], row["scores"][ours]) for row in examples)
            assert sorted(zip(asked, right)) == expected
            if kind == "generate":
                choices |= {sample["filtered_resps"][0] for sample in samples[name]}
    assert len(choices & set(LETTERS)) >= 3  # the model does not say one letter always
    assert found["config"]["checkpoint"].endswith(str(STEPS))
    assert found["config"]["max_length"] == LENGTHS["inputs"]

    answerer, _ = load_answerer(str(run))
    totals = answerer.loglikelihood_rolling([text for text in TEXTS if text])
    size = sum(len(text.encode()) for text in TEXTS)
    wanted = math.exp(-sum(totals) / size)
    assert found["results"]["texts"]["byte_perplexity,none"] == pytest.approx(wanted, rel=1e-5)


@needs_harness
def test_windows_are_the_harnesss():
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    from instruct.eval.lm_eval.adapter import rolling_windows

    for count in range(30):
        tokens = list(range(10, 10 + count))
        for length in (2, 3, 5, 29, 30, 31):
            theirs = get_rolling_token_windows(tokens, 1, length, 1)
            assert rolling_windows(tokens, 1, length) == [*map(make_disjoint_window, theirs)]


@needs_harness
def test_registers_twice_and_refuses_what_it_does_not_know():
    from lm_eval.api.registry import get_model

    lm_eval_model.register()
    lm_eval_model.register()
    model = get_model("instruct")
    with pytest.raises(UserError, match="unknown model argument 'modeldir'. Did you mean 'model_d"):
        model.create_from_arg_string("modeldir=a")
    with pytest.raises(UserError, match="give --model_args model_dir=FOLDER"):
        model.create_from_arg_string("", {"batch_size": "auto"})


def test_says_that_the_harness_is_missing(monkeypatch, capsys):
    lm_eval_model.model_class.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    assert main(["--tasks", "mmlu"]) == 2
    assert "pip install 'instruct[lm-eval]'" in capsys.readouterr().err
    lm_eval_model.model_class.cache_clear()


def test_the_models_name_and_batch_size_are_put_in():
    added = ["--model", "instruct", "--batch_size", "auto"]
    assert with_defaults(["--tasks", "a"]) == ["run", "--tasks", "a", *added]
    assert (
        with_defaults(["run", "--tasks", "a", "-b", "3"])
        == ["run", "--tasks", "a", "-b", "3"] + (added[:2])
    )
    given = ["--model=hf", "--batch_size=2"]
    assert with_defaults(given) == ["run", *given]
    assert with_defaults(["ls", "tasks"]) == ["ls", "tasks"] and with_defaults([]) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of random parameters."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, jax.jit(EncoderDecoder(MODEL).init)(jax.random.key(0)))
    return folder


def test_loads_what_the_run_says(run):
    answerer, facts = load_answerer(str(run), batch_size="auto:4", device="cuda:0")
    assert (facts["max_length"], facts["score_eos"]) == (2048, True)
    assert facts["vocabulary"] == WORDS.fingerprint
    pairs = [("Is it?", " yes"), ("Is it?", " no")]
    scores = answerer.loglikelihood(pairs)
    assert scores[0] != scores[1]
    inside, facts = load_answerer(
        str(run / "checkpoints" / str(STEPS)), max_length=64, batch_size=1, max_batch_size=8
    )
    assert facts["max_length"] == 64
    found = inside.loglikelihood(pairs)
    assert_same_float32(*(np.array([s for s, _ in pairs]) for pairs in (found, scores)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": "many"}, "batch_size is 'many'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"step": 3}, "3"),
        ({"max_length": 1}, "max_length is 1"),
        ({"vocabulary": "nonsense"}, "nonsense"),
    ],
)
def test_bad_arguments(run, arguments, message):
    with pytest.raises(UserError, match=message):
        load_answerer(str(run), **arguments)


def test_a_checkpoint_without_its_run(run, tmp_path):
    (tmp_path / str(STEPS)).symlink_to(run / "checkpoints" / str(STEPS))
    with pytest.raises(UserError, match="add vocabulary=... to model_args"):
        load_answerer(str(tmp_path / str(STEPS)))
    with pytest.raises(UserError, match=r"run's run\.json is missing"):
        load_answerer(str(tmp_path / str(STEPS)), vocabulary="gym")
