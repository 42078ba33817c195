"""`train` in this process: what it writes, refuses, guards and restores."""

import json

import jax
import numpy as np
import pytest

from instruct.checkpoints import huggingface, native
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.convert import convert
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.loading import checkpoint_steps, load_params
from instruct.errors import RunFailed, UserError
from instruct.mesh import MeshConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train import loop
from instruct.train.goodput import KINDS
from instruct.train.metrics import TrainingDiverged
from instruct.train.optimizer import OptimizerConfig
from tests.train.batches import tiny_config
from tests.train.stand_in import ONE_LAYER, ToyFeed, arguments, open_toy

pytestmark = pytest.mark.slow

# One for all tests: their programs compile once (see conftest.py).
MESH = MeshConfig(data=4, tensor=2)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """A given peak."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.peak, "matmul_peak", lambda *_: 1e11)
        yield


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Six steps on eight fake devices."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(**arguments(folder, 6, mesh=MESH, texts={"a.gin": "x = 1"}))
    return folder


def test_every_logged_step_has_the_agreed_keys(finished):
    found = rows(finished)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    keys = "step loss z_loss accuracy learning_rate gradient_norm real_tokens_per_sec"
    keys = {*keys.split(), "padding_share", "step_secs", "peak_share", "examples"}
    keys |= {"loss/toy", "loss/bench", *(f"goodput/{kind}" for kind in KINDS)}
    assert set(found[0]) == keys
    held = {"eval/loss", "eval/accuracy", "eval/loss/toy", "eval/loss/bench"}
    assert set(found[3]) == keys | held == set(found[5])
    assert found[5]["examples"] == 6 * 12 and 0 < found[0]["padding_share"] < 1
    assert all(np.isfinite(value) for row in found for value in row.values())


def test_the_shares_of_wall_time_sum_to_one(finished):
    for row in rows(finished):
        shares = {kind: row[f"goodput/{kind}"] for kind in KINDS}
        assert sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) >= -1e-9
    assert shares["restarts"] == 0
    assert all(shares[kind] > 0 for kind in KINDS if kind != "restarts")


def test_run_and_mixture_files(finished):
    info = read(finished, "run.json")
    assert info["outcome"] == "finished" and info["step"] == 6 and info["end"] >= info["start"]
    assert info["matmul_peak_gflops"] == 100.0 and info["mesh"] == {
        "slice": 1,
        "data": 4,
        "fsdp": 1,
        "tensor": 2,
        "sequence": 1,
    }
    assert info["num_params"] == tiny_config(**ONE_LAYER).num_params()
    assert info["config"]["optimizer.learning_rate"] == 0.01 and "jax" in info["versions"]
    assert read(finished, "mixture.json")["mixture"] == "toy"
    assert (finished / "a.gin").read_text() == "x = 1"
    assert checkpoint_steps(finished) == [4, 6]


def test_a_finished_run_is_left_alone(finished, capsys):
    loop.train(**arguments(finished, 6, mesh=MESH))
    assert "already at step 6; raise TRAIN_STEPS" in " ".join(capsys.readouterr().err.split())
    assert [row["step"] for row in rows(finished)] == [1, 2, 3, 4, 5, 6]


def test_another_configuration_is_refused_by_name(finished):
    changed = arguments(finished, 9, optimizer=OptimizerConfig(learning_rate=0.02))
    with pytest.raises(UserError, match=r"optimizer.learning_rate: 0.01 there, 0.02 now"):
        loop.train(**changed)
    faster = arguments(finished, 6, model=tiny_config(dropout_rate=0.1, remat="full", **ONE_LAYER))
    loop.train(**faster)  # speed only: nothing to refuse


def test_interval_sums_survive_a_restart(tmp_path):
    """Saved at step 3 of an interval of 4: the line of step 4 is that of a run in one go."""
    common = {"log_every_steps": 4, "checkpoint": CheckpointConfig(save_every_steps=3)}
    common |= {"mesh": MESH, "eval_every_steps": None}
    loop.train(**arguments(tmp_path / "whole", 4, **common))

    class Stops(Exception):
        pass

    def stop_at_four(number, batch):
        if number == 3:
            raise Stops

    with pytest.raises(Stops):
        loop.train(
            **arguments(tmp_path / "cut", 4, open_inputs=open_toy(ToyFeed(stop_at_four)), **common)
        )
    assert read(tmp_path / "cut", "run.json")["outcome"] == "failed"
    loop.train(**arguments(tmp_path / "cut", 4, **common))
    whole, cut = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    for name in ("loss", "loss/toy", "gradient_norm", "padding_share", "examples"):
        assert whole[0][name] == cut[0][name], name
    assert whole[0]["goodput/restarts"] == 0 < cut[0]["goodput/restarts"] < 1


def test_a_token_that_the_model_does_not_have_is_named(tmp_path):
    def spoil(number, batch):
        batch["decoder_target_tokens"][0, 0] = 64

    run = arguments(tmp_path, 2, mesh=MESH, open_inputs=open_toy(ToyFeed(spoil)))
    with pytest.raises(UserError, match=r"token 64.*the rows 0 to 63 .*bench\.add\.zs_noopt"):
        loop.train(**run)


def test_a_loss_that_is_not_finite_stops_and_saves_nothing(tmp_path):
    def spoil(number, batch):
        if number == 4:
            batch["decoder_input_tokens"][0, 0] = 10**6  # out of the embedding: NaN

    run = arguments(
        tmp_path,
        8,
        mesh=MESH,
        checkpoint=CheckpointConfig(save_every_steps=1, keep=9),
        eval_every_steps=None,
        log_every_steps=3,
        open_inputs=open_toy(ToyFeed(spoil)),
    )
    with pytest.raises(TrainingDiverged) as caught:
        loop.train(**run)
    message = str(caught.value)
    assert "diverged at step 5" in message and "bench.add.zs_noopt: 5" in message
    assert checkpoint_steps(tmp_path) == [1, 2, 3, 4]
    for step in (1, 4):
        abstract = EncoderDecoder(tiny_config(**ONE_LAYER)).abstract_params()
        params = load_params(tmp_path, abstract, step)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_starts_from_the_parameters_of_another_run(finished, tmp_path):
    feed = ToyFeed()
    run = arguments(
        tmp_path,
        1,
        mesh=MESH,
        initial_checkpoint_path=str(finished),
        eval_every_steps=None,
        open_inputs=open_toy(feed),
    )
    loop.train(**run)
    abstract = EncoderDecoder(tiny_config(**ONE_LAYER)).abstract_params()
    before, after = load_params(finished, abstract), load_params(tmp_path, abstract)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        size = np.sqrt(np.mean(np.square(a)))
        # One update moves a parameter by 1 % of its size; another start would be another tensor.
        assert np.sqrt(np.mean(np.square(a - b))) < 0.02 * size
    assert feed.closed and read(tmp_path, "run.json")["step"] == 1


def test_a_folder_named_like_a_pattern_is_trained_in_and_resumed(tmp_path, monkeypatch, capsys):
    """Relative, from inside of it, as a user does."""
    (tmp_path / "[x] *").mkdir()
    monkeypatch.chdir(tmp_path / "[x] *")
    for steps in (1, 2, 2):
        loop.train(**arguments("runs/a", steps, mesh=MESH, eval_every_steps=None))
    said = " ".join(capsys.readouterr().err.split())
    assert "resumes from step 1" in said
    assert f"{tmp_path}/[x] */runs/a is already at step 2" in said
    assert checkpoint_steps("runs/a") == [1, 2]


def test_finished_is_said_of_a_checkpoint_that_opens(tmp_path, monkeypatch, capsys):
    wait = CheckpointStore.wait

    def lose(store):
        wait(store)
        for file in store.folder.glob("1/params/manifest.ocdbt"):
            file.unlink()

    monkeypatch.setattr(CheckpointStore, "wait", lose)
    with pytest.raises(RunFailed, match="step 1 was saved and cannot be opened again"):
        loop.train(**arguments(tmp_path / "run", 1, mesh=MESH, eval_every_steps=None))
    assert "finished at step" not in capsys.readouterr().err
    assert read(tmp_path / "run", "run.json")["outcome"] == "failed"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_steps": 0}, "train_steps is 0"),
        ({"num_microbatches": 3}, "8 rows in 3 microbatches does not divide.*Use a multiple of 24"),
        ({"evaluators": 5}, "evaluators is 5; use a list"),
        ({"trackers": "tensorboard"}, "trackers is 'tensorboard'; use a list"),
        ({"initial_mapping": {"a": "b"}}, "initial_mapping is {'a': 'b'}; use a list"),
        ({"num_eval_examples": -1}, "num_eval_examples is -1; use a whole number of at least 0"),
        ({"log_every_steps": "5"}, "log_every_steps is '5'"),
        ({"num_microbatches": 8}, "in 8 microbatches does not.*Use a multiple of 64"),
        ({"mesh": MeshConfig(data=3)}, "3 devices, but there are 8"),
        ({"optimizer": OptimizerConfig(step_offset=5)}, "step_offset is 5.*at step 0"),
        ({"checkpoint": CheckpointConfig(best_metric="eval/los")}, "'eval/los'.*eval/loss"),
        ({"optimizer": "adam"}, "train.optimizer is 'adam'.*@my_module.my_optimizer"),
    ],
)
def test_bad_values_are_named(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        loop.train(**arguments(tmp_path, 2) | wrong)


def test_a_misspelt_metric_does_not_remove_the_best_checkpoint(tmp_path):
    """Neither where the run resumes nor where it has nothing left to do."""
    common = {"save_every_steps": 1, "keep": 1, "best_is_lowest": False}
    settings = {"mesh": MESH, "eval_every_steps": 1}
    first = CheckpointConfig(**common)
    loop.train(**arguments(tmp_path, 3, checkpoint=first, **settings))
    assert checkpoint_steps(tmp_path) == [1, 3]  # the highest loss is the first
    misspelt = CheckpointConfig(best_metric="eval/los", **common)
    with pytest.raises(UserError, match="'eval/los'.*eval/loss"):
        loop.train(**arguments(tmp_path, 5, checkpoint=misspelt, **settings))
    loop.train(**arguments(tmp_path, 3, checkpoint=misspelt, **settings))
    assert checkpoint_steps(tmp_path) == [1, 3]
    few = CheckpointConfig(**common | {"keep_best": 0})
    loop.train(**arguments(tmp_path, 3, checkpoint=few, **settings))
    assert checkpoint_steps(tmp_path) == [3]


class Rises:
    """An evaluation whose score is the step."""

    every_steps = 1

    def __call__(self, params, step):
        return {"eval/mean": step}


@pytest.mark.parametrize(
    ("changed", "then", "since"),
    [
        ({"best_metric": "eval/loss"}, "lowest eval/mean", "lowest eval/loss"),
        ({"best_is_lowest": False}, "lowest eval/mean", "highest eval/mean"),
    ],
)
def test_another_metric_keeps_the_best_checkpoint_of_the_earlier_one(
    tmp_path, capsys, changed, then, since
):
    common = {"save_every_steps": 1, "keep": 1, "best_metric": "eval/mean", "best_is_lowest": True}
    settings = {"mesh": MESH, "eval_every_steps": 1, "evaluators": [Rises()]}
    first = CheckpointConfig(**common)
    loop.train(**arguments(tmp_path, 2, checkpoint=first, **settings))
    assert checkpoint_steps(tmp_path) == [1, 2]
    other = CheckpointConfig(**common | changed)
    loop.train(**arguments(tmp_path, 2, checkpoint=other, **settings))  # nothing is left to do
    assert checkpoint_steps(tmp_path) == [1, 2]
    capsys.readouterr()
    loop.train(**arguments(tmp_path, 3, checkpoint=other, **settings))
    printed = " ".join(capsys.readouterr().err.split())
    assert f"was that of the {then} and is now that of the {since}" in printed
    pin = tmp_path / "checkpoints/1/pinned"
    assert pin.is_file() and str(pin) in printed
    loop.train(**arguments(tmp_path, 4, checkpoint=other, **settings))
    assert "kept until" not in capsys.readouterr().err
    assert checkpoint_steps(tmp_path) == [1, 4]
    pin.unlink()
    loop.train(**arguments(tmp_path, 5, checkpoint=other, **settings))
    assert checkpoint_steps(tmp_path) == [5]


def test_a_metric_that_no_evaluation_gives_is_said_to_choose_nothing(tmp_path, capsys):
    class Fails:
        every_steps = 1

        def open(self, folder, step):
            return {"eval/mean"}

        def __call__(self, params, step):
            return {}

    settings = {"mesh": MESH, "eval_every_steps": None, "evaluators": [Fails()]}
    config = CheckpointConfig(best_metric="eval/mean")
    loop.train(**arguments(tmp_path, 1, checkpoint=config, **settings))
    assert "no evaluation gave eval/mean" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["instruct", "t5x", "huggingface"])
def test_parameters_that_a_run_would_ignore_are_refused(finished, tmp_path, kind):
    place, opened = tmp_path, open_checkpoint(finished)
    if kind == "t5x":
        place = tmp_path / "checkpoint_6"
        convert(finished, place, kind)
    elif kind == "instruct":
        native.write_checkpoint(place, opened.arrays, opened.model, info={})
    else:
        huggingface.write_checkpoint(place, opened.arrays, opened.model, np.dtype(np.float32))
    with pytest.raises(UserError, match=f"holds a.*INITIAL_CHECKPOINT_PATH={place} to start"):
        loop.train(**arguments(tmp_path, 2, mesh=MESH))


def test_a_converted_run_goes_on_from_step_0(finished, tmp_path, capsys, monkeypatch):
    opened = open_checkpoint(finished, slots=True)
    info = {"converted_from": "a T5X checkpoint"}
    parts = {"info": info, "slots": opened.slots, "step": 0}
    native.write_checkpoint(tmp_path / "run", opened.arrays, opened.model, **parts)
    monkeypatch.setattr(loop, "_first_state", None)
    loop.train(**arguments(tmp_path / "run", 1, mesh=MESH))
    assert "run.json is of a converted checkpoint" in " ".join(capsys.readouterr().err.split())


def test_model_dir_must_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="MODEL_DIR .*file' cannot be written"):
        loop.train(**arguments(tmp_path / "file", 2))
