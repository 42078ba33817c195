"""The whole way from a checkpoint to results, on a random model and a suite of odd tasks."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from instruct import gin_config, results
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.train_state import TrainState
from instruct.data.vocab import ByteVocabulary
from instruct.errors import UserError
from instruct.eval import model_outputs
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.eval_config import EvalConfig
from instruct.eval.runner import evaluate
from instruct.files import locked
from instruct.mesh import MeshConfig
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.prompts.chat_template import ChatTemplate
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from tests.eval import toy_tasks
from tests.workspaces import workspace

pytestmark = pytest.mark.slow

MODEL = ModelConfig(
    vocab_size=264,
    d_model=16,
    num_heads=2,
    head_dim=8,
    d_ff=16,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
STEPS = (3, 7)
CONFIG = EvalConfig(
    toy_tasks.SUITE, num_examples=6, checkpoints="latest", rank_options=True, bootstrap_samples=20
)
SETTINGS = {"batching": BatchConfig(4, 1), "decode": DecodeConfig(max_decode_steps=4)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return str(tmp_path_factory.mktemp("stores"))


@pytest.fixture(autouse=True)
def _stores(stores, monkeypatch):
    monkeypatch.setenv("INSTRUCT_STORE_DIR", stores)
    toy_tasks.register()


def random_state(step, seed):
    params = jax.jit(EncoderDecoder(MODEL).init)(jax.random.key(seed))
    rule = make_optimizer(OptimizerConfig(learning_rate=0.1))
    return TrainState(jnp.int32(step), params, rule.init(params))


@pytest.fixture(scope="module")
def template_dir(tmp_path_factory):
    """A run with two checkpoints of random models."""
    folder = tmp_path_factory.mktemp("run")
    store = CheckpointStore(folder / "checkpoints", CheckpointConfig(async_save=False))
    for step in STEPS:
        store.save(step, random_state(step, seed=step), input_state={})
    store.close()
    config = {"data.vocabulary": "bytes", "data.feature_lengths.inputs": 96}
    config["data.feature_lengths.targets"] = 8
    info = {"model": dataclasses.asdict(MODEL), "config": config}
    (folder / "run.json").write_text(json.dumps(info))
    leaf = {"name": "evalsuite.trained.zs_noopt", "task": "evalsuite.trained"}
    (folder / "mixture.json").write_text(json.dumps({"leaves": [leaf]}))
    return folder


@pytest.fixture(scope="module")
def finished(template_dir, stores):
    """(exit status, results) of one whole evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", stores)
        toy_tasks.register()
        status = evaluate(str(template_dir), CONFIG, **SETTINGS, workspace=workspace())
    path = template_dir / "eval" / toy_tasks.SUITE / "step_7" / results.FILE_NAME
    return status, list(results.read_rows(path)), path.read_text()


@pytest.fixture
def run_dir(template_dir, tmp_path):
    """A fresh copy of the run, without results."""
    skip = shutil.ignore_patterns("eval")
    return shutil.copytree(template_dir, tmp_path / "run", ignore=skip)


def of(rows, kind, task, mode=None):
    return [
        row
        for row in rows
        if row["kind"] == kind and row["task"] == task and mode in (None, row["mode"])
    ]


def without_place(text):
    """Results lines without where the run lies."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if k not in ("checkpoint", "crc32")} for row in rows]


def test_partial_adaptation_lies_between_two_checkpoints(run_dir):
    """Shares 0 and 1 give the answers of the base and of the trained checkpoint."""

    def answers(name, **fields):
        config = EvalConfig("evalsuite.new", num_examples=6, name=name, **fields)
        assert evaluate(str(run_dir), config, **SETTINGS, workspace=workspace()) == 0
        (path,) = (run_dir / "eval").glob(f"{name}-*/step_*/{results.FILE_NAME}")
        header, *rows = results.read_rows(path)
        return header["settings"], [row["prediction"] for row in rows if row["kind"] == "example"]

    base = {"base_checkpoint_path": str(run_dir / "checkpoints" / str(STEPS[0]))}
    settings, none = answers("none", adaptation=0.0, **base)
    assert settings["adaptation"] == 0.0 and settings["base_parameters"]
    assert none == answers("base", checkpoints=STEPS[0])[1]
    _, trained = answers("trained")
    assert trained == answers("whole", **base)[1] != none
    with pytest.raises(UserError, match="give EvalConfig.base_checkpoint_path"):
        EvalConfig("evalsuite.new", adaptation=0.5)


def test_a_failing_task_is_told_and_the_others_go_on(finished):
    status, rows, _ = finished
    assert status == 1
    failed = {row["task"]: row["error"] for row in rows if row["kind"] == "failure"}
    assert set(failed) == {"evalsuite.defect", "evalplain_train_only"}
    assert "ZeroDivisionError: a metric with a defect" in failed["evalsuite.defect"]
    assert "none of the splits test, validation" in failed["evalplain_train_only"]
    done = {row["task"] for row in rows if row["kind"] == "metric"}
    assert len(done) == 5 and not done & set(failed)


def test_examples_and_metrics_of_our_task(finished):
    _, rows, _ = finished
    examples = of(rows, "example", "evalsuite.trained", "zs_noopt")
    assert len(examples) == 6 == len({row["index"] for row in examples})
    assert all("test colour" in row["prompt"] and row["template"] == "ask" for row in examples)
    lines = {row["metric"]: row for row in of(rows, "metric", "evalsuite.trained", "zs_noopt")}
    assert list(lines) == ["exact_match", "em", "f1"]
    exact = lines["exact_match"]
    right = [row["prediction"].strip() == row["target"] for row in examples]
    assert exact["value"] == pytest.approx(100 * sum(right) / 6)
    assert [row["correct"] for row in examples] == right
    # "green" is the majority answer of the evaluated split.
    green = sum(row["target"] == "green" for row in examples)
    assert exact["baseline"] == pytest.approx(100 * green / 6)
    assert (exact["n"], exact["split"], exact["group"]) == (6, "test", "held_in")
    assert exact["decode"] == "greedy steps=4" and exact["template_set"] == "colours"
    assert {row["group"] for row in of(rows, "metric", "evalsuite.new")} == {"held_out"}


def test_options_are_ranked_where_they_are_shown(finished):
    _, rows, _ = finished
    names = [row["metric"] for row in of(rows, "metric", "evalsuite.trained", "zs_opt")]
    assert names == ["exact_match", "em", "f1", "rank_accuracy", "rank_accuracy_per_token"]
    rank = of(rows, "metric", "evalsuite.trained", "zs_opt")[3]
    assert rank["n"] == 6 and 0 <= rank["value"] <= 100
    answers = [row["target"] for row in of(rows, "example", "evalsuite.trained", "zs_opt")]
    exact = of(rows, "metric", "evalsuite.trained", "zs_opt")[0]
    assert len(answers) == 6 and rank["baseline"] == pytest.approx(exact["baseline"])
    assert 0 < rank["random_baseline"] < 100


def test_every_kind_of_seqio_metric(finished):
    _, rows, _ = finished
    lines = {row["metric"]: row for row in of(rows, "metric", "evalplain_all_kinds")}
    assert set(lines) == {"median_length", "mean_score", "aux"}
    assert lines["mean_score"]["value"] < 0  # a log-likelihood
    assert lines["mean_score"]["stderr"] > 0 and lines["aux"]["value"] == 1.0
    examples = of(rows, "example", "evalplain_all_kinds")
    lengths = sorted(len(row["prediction"]) for row in examples)
    assert lines["median_length"]["value"] == (lengths[2] + lengths[3]) / 2
    assert {row["split"] for row in examples} == {"validation"}
    (shouted,) = of(rows, "metric", "evalplain_shout")
    # Two of three targets are "yes", which is what the majority answer gives.
    yes = sum(row["target"] == "yes" for row in of(rows, "example", "evalplain_shout"))
    assert shouted["baseline"] == pytest.approx(100 * yes / 6)
    (alone,) = of(rows, "metric", "evalplain_no_metric")
    assert alone["metric"] == "exact_match"


def test_an_interrupted_evaluation_goes_on_to_the_same_results(
    finished, run_dir, monkeypatch, capsys
):
    _, _, whole = finished
    original = model_outputs.ModelRunner.outputs
    calls = []

    def stop_at_the_third(self, params, task, examples, rank):
        calls.append(examples[0].task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, params, task, examples, rank)

    monkeypatch.setattr(model_outputs.ModelRunner, "outputs", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(str(run_dir), CONFIG, **SETTINGS, workspace=workspace())
    first = list(calls)
    assert evaluate(str(run_dir), CONFIG, **SETTINGS, workspace=workspace()) == 1
    # The two that were finished are not done again; the one that was interrupted is.
    again = calls[len(first) :]
    assert again[0] == first[2] and not set(first[:2]) & set(again)
    path = run_dir / "eval" / toy_tasks.SUITE / "step_7" / results.FILE_NAME
    assert without_place(path.read_text()) == without_place(whole)
    printed = capsys.readouterr().out
    assert "held-in tasks (2)" in printed and "evalsuite.defect (" in printed
    assert str(path) in printed.replace("\n", "")


def test_batch_size_mesh_and_company_change_nothing(finished, run_dir):
    _, rows, _ = finished
    config = dataclasses.replace(CONFIG, mixtures=["evalplain_shout"])
    mesh = MeshConfig(data=4, tensor=2)
    settings = SETTINGS | {"batching": BatchConfig(16, 2), "mesh": mesh}
    assert evaluate(str(run_dir), config, **settings, workspace=workspace()) == 0
    path = run_dir / "eval" / "evalplain_shout" / "step_7" / results.FILE_NAME
    alone = [row for row in results.read_rows(path) if row["kind"] == "example"]
    together = of(rows, "example", "evalplain_shout")
    assert [r["prediction"] for r in alone] == [r["prediction"] for r in together]
    assert [r["prompt"] for r in alone] == [r["prompt"] for r in together]


def test_two_evaluations_of_one_suite_do_not_mix(run_dir):
    config = EvalConfig("evalsuite.new", num_examples=2, checkpoints=3)
    folder = run_dir / "eval" / "evalsuite.new" / "step_3"
    folder.mkdir(parents=True)
    with locked(folder, "it"), pytest.raises(UserError, match="step_3 is being written by another"):
        evaluate(str(run_dir), config, **SETTINGS, workspace=workspace())
    assert not list(folder.iterdir())


def test_checkpoints_and_settings(run_dir):
    config = EvalConfig("evalsuite.new", num_examples=2, checkpoints="all", name="tiny")
    assert evaluate(str(run_dir), config, **SETTINGS, workspace=workspace()) == 0
    folder = run_dir / "eval" / "tiny-evalsuite.new"
    assert sorted(p.name for p in folder.iterdir()) == ["step_3", "step_7"]
    more = dataclasses.replace(config, num_examples=3, checkpoints=3)
    with pytest.raises(UserError, match="num_examples: 2 -> 3"):
        evaluate(str(run_dir), more, **SETTINGS, workspace=workspace())
    assert (
        evaluate(
            str(run_dir),
            dataclasses.replace(more, overwrite=True),
            **SETTINGS,
            workspace=workspace(),
        )
        == 0
    )
    rows = results.read_rows(folder / "step_3" / results.FILE_NAME, ("example",))
    assert len(list(rows)) == 3
    with pytest.raises(UserError, match="no checkpoint of step 5"):
        evaluate(
            str(run_dir),
            dataclasses.replace(config, checkpoints=(3, 5)),
            **SETTINGS,
            workspace=workspace(),
        )


def test_results_with_another_chat_template_are_not_kept(run_dir, monkeypatch):
    config = EvalConfig("evalsuite.new", num_examples=2)

    def run(source):
        monkeypatch.setattr(ByteVocabulary, "chat_template", ChatTemplate(source))
        options = {**SETTINGS, "chat_template": True, "workspace": workspace()}
        return evaluate(str(run_dir), config, **options)

    source = "{% for message in messages %}<{{ message.content }}>{% endfor %}"
    one, other = source, source.replace("<", "[")
    assert run(one) == run(one) == 0
    with pytest.raises(UserError, match=r"other settings: chat_template: '\w{16}' -> '\w{16}'"):
        run(other)


def test_results_of_another_training_in_the_same_folder_are_not_kept(run_dir):
    config = EvalConfig("evalsuite.new", num_examples=2)
    assert evaluate(str(run_dir), config, **SETTINGS, workspace=workspace()) == 0
    shutil.rmtree(run_dir / "checkpoints" / "7")
    store = CheckpointStore(run_dir / "checkpoints", CheckpointConfig(async_save=False))
    store.save(7, random_state(7, seed=8), input_state={})
    store.close()
    with pytest.raises(UserError, match="parameters: "):
        evaluate(str(run_dir), config, **SETTINGS, workspace=workspace())


def test_results_of_replaced_data_are_not_kept(run_dir, tmp_path, monkeypatch):
    """Prepared anew, records of finished and unfinished tasks would mix in one table."""
    monkeypatch.setenv("INSTRUCT_STORE_DIR", str(tmp_path / "stores"))
    config = EvalConfig("evalsuite.new", num_examples=2)
    evaluate(str(run_dir), config, **SETTINGS, workspace=workspace())
    path = run_dir / "eval" / "evalsuite.new" / "step_7" / results.FILE_NAME
    assert len(next(results.read_rows(path, ("metric",)))["records"]) == 16
    # Built again from the same data they are the same.
    shutil.rmtree(tmp_path / "stores")
    evaluate(str(run_dir), config, **SETTINGS, workspace=workspace())
    monkeypatch.setattr(toy_tasks.ColourSource, "fingerprint", lambda *_: "other files")
    monkeypatch.setattr(toy_tasks, "OPTIONS", ("cyan", "pink", "grey"))
    whole = path.read_text()
    with pytest.raises(
        UserError, match=r"records of evalsuite.new: '\w+' -> '\w+'. Set EvalConfig"
    ):
        evaluate(str(run_dir), config, **SETTINGS, workspace=workspace())
    assert path.read_text() == whole


def test_another_checkpoint_without_a_run(run_dir, tmp_path):
    folder = tmp_path / "fresh"
    folder.mkdir()
    config = EvalConfig("evalsuite.new", num_examples=2)
    given = {"checkpoint_path": str(run_dir), "model": MODEL, "vocabulary": "bytes"}
    given |= {"feature_lengths": {"inputs": 64, "targets": 8}}
    assert evaluate(str(folder), config, **given, **SETTINGS, workspace=workspace()) == 0
    path = folder / "eval" / "evalsuite.new" / "step_7" / results.FILE_NAME
    header, *rows = results.read_rows(path)
    assert header["settings"]["checkpoint"] == str(run_dir / "checkpoints" / "7")
    assert {row["group"] for row in rows} == {"held_out"}, "of the checkpoint's run"
    for missing in ("model", "vocabulary", "feature_lengths"):
        rest = {name: value for name, value in given.items() if name != missing}
        with pytest.raises(UserError, match=r"has no run\.json"):
            evaluate(str(folder), config, **rest, **SETTINGS, workspace=workspace())


def test_a_ranked_task_is_ranked_and_counts_as_trained_on_with_its_data_set(run_dir):
    config = dataclasses.replace(CONFIG, mixtures="evalsuite.ranked", rank_options=False)
    assert evaluate(str(run_dir), config, **SETTINGS, workspace=workspace()) == 0
    path = run_dir / "eval" / "evalsuite.ranked" / "step_7" / results.FILE_NAME
    rows = list(results.read_rows(path, ("metric",)))
    names = ["rank_accuracy", "rank_accuracy_per_token", "exact_match", "em", "f1"]
    assert [row["metric"] for row in rows] == names
    assert {row["group"] for row in rows} == {"held_in"}


def test_what_does_not_fit_is_told(run_dir, capsys):
    config = dataclasses.replace(CONFIG, mixtures="evalsuite.new", num_examples=None)
    inputs = len("test colour 9?") + 1  # 10 and 11 are longer
    settings = SETTINGS | {"feature_lengths": {"inputs": inputs, "targets": 2}}
    assert evaluate(str(run_dir), config, **settings, workspace=workspace()) == 0
    told = capsys.readouterr().err
    assert f"2 of 12 examples do not fit inputs of {inputs} tokens and are left out" in told
    path = run_dir / "eval" / "evalsuite.new" / "step_7" / results.FILE_NAME
    rows = list(results.read_rows(path, ("example",)))
    assert {row["target"] for row in rows} == set(toy_tasks.OPTIONS) and len(rows) == 10
    (metric, *_) = results.read_rows(path, ("metric",))
    assert (metric["n"], metric["left_out"], metric["truncated"]) == (10, 2, 0)
    assert (metric["exemplars_mean"], metric["exemplars_asked"]) == (0.0, 0.0)


def test_several_samples_of_an_example_vote(run_dir):
    name = "evalplain_letters"
    config = dataclasses.replace(CONFIG, mixtures=name, rank_options=False)
    sampled = DecodeConfig("sample", 4, num_samples=16, temperature=0.5)
    assert evaluate(str(run_dir), config, **SETTINGS | {"decode": sampled}) == 0
    path = run_dir / "eval" / name / "step_7" / results.FILE_NAME
    rows = list(results.read_rows(path, ("metric",)))
    assert [row["metric"] for row in rows] == ["exact_match", "votes"]
    assert {row["decode"] for row in rows} == {
        "sample temperature=0.5 samples=16 seed=0 steps=4 majority"
    }
    assert 1 <= rows[1]["value"] <= 16
    examples = results.read_rows(path, ("example",))
    assert any(row["prediction"].strip() for row in examples)
    single = {"batching": BatchConfig(2, 2), "decode": sampled}
    again = dataclasses.replace(config, name="again")
    assert evaluate(str(run_dir), again, **single) == 0
    other = run_dir / "eval" / f"again-{name}" / "step_7" / results.FILE_NAME
    predictions = [
        [row["prediction"] for row in results.read_rows(p, ("example",))] for p in (path, other)
    ]
    assert predictions[0] == predictions[1]


def test_an_unknown_suite_is_told_before_anything_is_loaded(run_dir):
    with pytest.raises(UserError, match=r"evalsuite\.all"):
        evaluate(str(run_dir), EvalConfig("evalsuite.al"))


def test_the_gin_file_builds():
    bindings = ["MODEL_DIR = 'm'", "EVAL_MIXTURES = 'gym.held_out'", "EVAL_SPLITS = 'test'"]
    gin_config.load(["gin/runs/eval.gin"], bindings)
    arguments = gin_config.entry_arguments(gin_config.ENTRIES)[gin_config.EVALUATE]
    assert arguments["config"] == EvalConfig("gym.held_out", splits=("test",))
    assert arguments["batching"] == BatchConfig(64)


def test_the_gin_file_of_self_consistency_builds():
    files = ["gin/runs/self_consistency.gin"]
    gin_config.load(files, ["MODEL_DIR = 'm'", "EVAL_MIXTURES = 'gsm8k.cot'"])
    arguments = gin_config.entry_arguments(gin_config.ENTRIES)[gin_config.EVALUATE]
    assert arguments["decode"] == DecodeConfig("sample", 256, num_samples=40, temperature=0.7)
    assert arguments["config"].name == "self_consistency"
