"""The program as a user runs it: a plain SeqIO task of their own, and real public files."""

import json
import os
import subprocess

import pytest

from instruct.cli.arguments import main
from tests.flan_t5 import SMALL_GIN

pytestmark = pytest.mark.slow(secs=10)

# What a SeqIO user writes, with nothing of this project in it.
USER_MODULE = """
import functools, json, os
import seqio, tensorflow as tf

FOLDER = os.path.dirname(__file__)
FEATURES = {
    "inputs": seqio.Feature(vocabulary=seqio.ByteVocabulary(), add_eos=True),
    "targets": seqio.Feature(vocabulary=seqio.ByteVocabulary(), add_eos=True),
}


def parse(dataset):
    def split(line):
        parts = tf.strings.split(line, "|")
        return {"inputs": tf.strings.join(["first letter: ", parts[0]]), "targets": parts[1]}

    return dataset.map(split, num_parallel_calls=tf.data.AUTOTUNE)


def lower(decoded, example=None, is_target=False):
    return decoded.strip().lower()


def letter_accuracy(targets, predictions):
    right = sum(t == p for t, p in zip(targets, predictions))
    return {"letter_accuracy": 100.0 * right / len(targets)}


seqio.TaskRegistry.add(
    "letters_of_mine",
    source=seqio.TextLineDataSource(
        {split: os.path.join(FOLDER, split + ".txt") for split in ("train", "validation")}
    ),
    preprocessors=[parse, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features=FEATURES,
    postprocess_fn=lower,
    metric_fns=[letter_accuracy],
)
seqio.MixtureRegistry.add("mixture_of_mine", [("letters_of_mine", 1.0)])
"""
WORDS = ("apple", "bread", "cloud", "dream", "eagle", "flame", "grape", "house", "inlet", "jolly")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the user's module and files, and a run trained on it by gin alone."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "tasks_of_mine.py").write_text(USER_MODULE)
    lines = [f"{word}{i}|{word[0].upper()}" for i in range(48) for word in WORDS]
    (folder / "train.txt").write_text("\n".join(lines[:-24]) + "\n")
    (folder / "validation.txt").write_text("\n".join(lines[-24:]) + "\n")
    store = {"INSTRUCT_STORE_DIR": str(folder / "stores")}
    before = {name: os.environ.get(name) for name in store}
    os.environ.update(store)
    status = main(["train", *gin_flags(folder), "--gin_bindings=loop.train.log_every_steps = 5"])
    assert status == 0
    yield folder
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def gin_flags(folder):
    return [
        "--gin_file=gin/runs/train.gin",
        "--gin_file=gin/runs/eval.gin",
        "--gin_file=gin/models/tiny_test.gin",
        "--gin.ModelConfig.num_encoder_layers=1",
        "--gin.ModelConfig.num_decoder_layers=1",
        f"--gin.MIXTURE_OR_TASK_MODULE={folder}/tasks_of_mine.py",
        "--gin.MIXTURE_OR_TASK_NAME=mixture_of_mine",
        "--gin.EVAL_MIXTURES=mixture_of_mine",
        "--gin.EVAL_SPLITS=validation",
        "--gin.EVAL_BATCH_SIZE=8",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
        "--gin.TRAIN_STEPS=30",
        "--gin.BATCH_SIZE=8",
        "--gin.LEARNING_RATE=2e-2",
        f"--gin.STORE_DIR={folder}/stores",
        f"--gin.MODEL_DIR={folder}/run",
    ]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_plain_seqio_task_trains_by_gin_alone(trained):
    logged = rows(trained / "run" / "metrics.jsonl")
    assert [row["step"] for row in logged] == [5, 10, 15, 20, 25, 30]
    assert logged[-1]["loss"] < 0.7 * logged[0]["loss"]
    assert logged[-1]["eval/loss"] > 0
    info = json.loads((trained / "run" / "run.json").read_text())
    assert info["outcome"] == "finished" and info["mesh"]["data"] == 8
    # Nobody sets VOCABULARY: the tasks of the mixture say it.
    assert info["config"]["data.vocabulary"] == "bytes#extra_ids=0"
    assert info["num_params"] > 0 and info["matmul_peak_gflops"] > 0
    operative = (trained / "run" / "operative.gin").read_text()
    assert "loss.LossConfig.z_loss = 0.0001" in operative  # a default nobody bound


def test_it_evaluates_with_its_own_postprocessor_and_metric(trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", str(trained / "stores"))
        assert main(["eval", *gin_flags(trained)]) == 0
    (path,) = (trained / "run" / "eval").rglob("results.jsonl")
    results = rows(path)
    (metric,) = [row for row in results if row["kind"] == "metric"]
    examples = [row for row in results if row["kind"] == "example"]
    assert metric["metric"] == "letter_accuracy" and metric["n"] == len(examples) == 24
    right = sum(row["correct"] for row in examples)
    assert metric["value"] == pytest.approx(100 * right / 24)
    assert metric["step"] == 30 and metric["stderr"] is not None
    assert {row["target"] for row in examples} <= {word[0].upper() for word in WORDS}


def test_it_answers_and_reports(trained, capsys):
    infer = ["infer", "--gin_file=gin/runs/infer.gin", f"--gin.MODEL_DIR={trained}/run"]
    infer.append("--gin.MAX_DECODE_STEPS=4")
    assert main([*infer, "--prompt=first letter: apple1"]) == 0
    assert capsys.readouterr().out.strip()
    questions = trained / "questions.jsonl"
    questions.write_text('{"inputs": "first letter: bread2", "mark": 7}\n{"prompt": "x"}\n')
    answers = trained / "answers.jsonl"
    assert main([*infer, f"--input={questions}", f"--output={answers}"]) == 0
    assert [row.get("mark") for row in rows(answers)] == [7, None]
    assert all("prediction" in row for row in rows(answers))

    assert main(["report", f"--model_dir={trained}/run"]) == 0
    page = (trained / "run" / "report.html").read_text()
    assert "letters_of_mine" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert (trained / "run" / "report.md").read_text().startswith("# ")


def test_the_same_command_again_finds_nothing_to_do(trained, capsys):
    before = (trained / "run" / "metrics.jsonl").read_bytes()
    assert (
        main(["train", *gin_flags(trained), "--gin_bindings=loop.train.log_every_steps = 5"]) == 0
    )
    assert "already at step 30" in " ".join(capsys.readouterr().err.split())
    assert (trained / "run" / "metrics.jsonl").read_bytes() == before


def first_lines(source, target, count):
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, encoding="utf-8") as lines:
        target.write_text("".join(line for line, _ in zip(lines, range(count))), encoding="utf-8")


def test_real_public_files_train_and_evaluate(shared_data, tmp_path, forked_python):
    """A few rows of every source, through every step, in a process of their own."""
    for name in ("train", "test"):
        first_lines(shared_data / "gsm8k" / f"{name}.jsonl", tmp_path / f"gsm8k/{name}.jsonl", 60)
    for path in (shared_data / "cot").glob("*.tsv"):
        first_lines(path, tmp_path / "cot" / path.name, 200)
    (tmp_path / "natural_instructions" / "tasks").mkdir(parents=True)
    for path in (shared_data / "natural_instructions" / "tasks").glob("*.json"):
        task = json.loads(path.read_text(encoding="utf-8"))
        task["Instances"] = task["Instances"][:200]
        (tmp_path / "natural_instructions" / "tasks" / path.name).write_text(json.dumps(task))
    (tmp_path / "small.gin").write_text(SMALL_GIN)
    flags = [
        "--gin_file=gin/recipes/public_sample.gin",
        f"--gin_file={tmp_path}/small.gin",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 32}",
        f"--gin.DATA_DIR={tmp_path}",
        f"--gin.STORE_DIR={tmp_path}/stores",
        f"--gin.MODEL_DIR={tmp_path}/run",
        "--gin.TRAIN_STEPS=50",
        "--gin.BATCH_SIZE=2",
        "--gin.NUM_EVAL_EXAMPLES=2",
        "--gin_bindings=data_config.DataConfig.window_examples = 128",
    ]
    # The last of a flag counts.
    one_device = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    for mode in ("train", "eval"):
        shown = subprocess.run(
            [forked_python, "run.py", mode, *flags],
            capture_output=True,
            text=True,
            env=os.environ | {"XLA_FLAGS": one_device},
        )
        assert shown.returncode == 0, (shown.stdout + shown.stderr)[-3000:]
    mixture = json.loads((tmp_path / "run" / "mixture.json").read_text())
    families = {leaf["family"] for leaf in mixture["leaves"]}
    assert families == {"gsm8k", "cot", "niv2"}
    (path,) = (tmp_path / "run" / "eval").rglob("results.jsonl")
    tasks = {row["task"] for row in rows(path) if row["kind"] == "metric"}
    assert tasks == {leaf["task"] for leaf in mixture["leaves"]}
