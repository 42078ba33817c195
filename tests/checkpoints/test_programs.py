"""Training, `eval`'s and `infer`'s loading, with checkpoints of other programs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from instruct.checkpoints import native
from instruct.checkpoints.checkpoint import checkpoint_steps
from instruct.checkpoints.convert import convert
from instruct.checkpoints.detect import open_checkpoint
from instruct.errors import UserError
from instruct.eval.infer import infer
from instruct.mesh import MeshConfig
from instruct.train import loop
from tests.checkpoints.conftest import random_arrays
from tests.train.batches import tiny_config
from tests.train.stand_in import ONE_LAYER, arguments

pytestmark = pytest.mark.slow

MESH = MeshConfig(data=4, tensor=2)


@pytest.fixture(autouse=True, scope="module")
def given_peak():
    patch = pytest.MonkeyPatch()
    patch.setattr(loop.peak, "matmul_peak", lambda *_: 1e11)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps; its batches are made up, and so is the vocabulary it names."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(**arguments(folder, 4, mesh=MESH))
    info = json.loads((folder / "run.json").read_text())
    del info["config"]["data.vocabulary"]
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def values(path) -> dict[str, np.ndarray]:
    return {name: array.read() for name, array in open_checkpoint(path).arrays.items()}


@pytest.mark.parametrize("kind", ["t5x", "huggingface"])
def test_training_starts_from_it(finished, tmp_path, kind, capfd):
    source = tmp_path / "checkpoint_4"
    convert(finished, source, kind)
    for scan in (False, True):
        run = tmp_path / f"run_{scan}"
        model = tiny_config(scan_layers=scan, **ONE_LAYER)
        start = {"initial_checkpoint_path": str(source), "eval_every_steps": None, "model": model}
        loop.train(**arguments(run, 1, mesh=MESH, **start))
        said = capfd.readouterr().err.replace("\n", " ")
        word = {"t5x": "a T5X checkpoint", "huggingface": "a Hugging Face folder"}[kind]
        assert f"starts from {word}" in said and "used" in said
        before, after = values(source), values(run)
        for name, array in before.items():
            size = np.sqrt(np.mean(np.square(array)))
            assert 0 < np.sqrt(np.mean(np.square(array - after[name]))) < 0.02 * size, name


def test_training_starts_in_part(finished, tmp_path, capfd):
    model = tiny_config(**(ONE_LAYER | {"vocab_size": 72}))
    start = {"initial_checkpoint_path": str(finished), "eval_every_steps": None, "model": model}
    with pytest.raises(UserError, match="belongs to another model"):
        loop.train(**arguments(tmp_path / "no", 1, mesh=MESH, **start))
    mapping = [("token_embedder/embedding|decoder/logits_dense/kernel", None)]
    run = arguments(tmp_path / "run", 1, mesh=MESH, **start, initial_mapping=mapping)
    loop.train(**run)
    said = capfd.readouterr().err
    assert "fresh" in said and "token_embedder/embedding" in said
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert recorded["initial_mapping"] == [list(pair) for pair in mapping]
    with pytest.raises(UserError, match="another configuration.*initial_mapping"):
        loop.train(**run | {"train_steps": 2, "initial_mapping": []})
    with pytest.raises(UserError, match="needs INITIAL_CHECKPOINT_PATH"):
        loop.train(**arguments(tmp_path / "none", 1, mesh=MESH, initial_mapping=mapping))


def test_a_run_with_t5x_slots_goes_on_at_its_step(finished, tmp_path):
    convert(finished, tmp_path / "checkpoint_4", "t5x", slots=True)
    run = tmp_path / "run"
    convert(tmp_path / "checkpoint_4", run, "instruct", slots=True)
    first = open_checkpoint(finished, slots=True)
    second = open_checkpoint(run, slots=True)
    assert second.step == 4 and first.slots.keys() == second.slots.keys()
    for name, array in first.slots.items():
        np.testing.assert_array_equal(second.slots[name].read(), array.read())
    loop.train(**arguments(run, 6, mesh=MESH))
    assert checkpoint_steps(run) == [4, 6]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 6]
    assert all(np.isfinite(row["loss"]) for row in rows)


@pytest.fixture(scope="module")
def talker(tiny, tmp_path_factory):
    """A Hugging Face folder of a byte-level model, with settings for generation."""
    folder = tmp_path_factory.mktemp("talker")
    model = dataclasses.replace(tiny, vocab_size=384)
    native.write_checkpoint(folder / "ours", random_arrays(model), model, info={})
    convert(folder / "ours", folder / "hf", "huggingface", tokenizer="bytes#extra_ids=125")
    (folder / "hf" / "generation_config.json").write_text(
        json.dumps({"num_beams": 2, "max_new_tokens": 6})
    )
    return folder


def test_infer_answers_as_the_folder_says(talker, capsys, tmp_path):
    printed = {}
    convert(talker / "hf", talker / "carried", "instruct")
    convert(talker / "hf", talker / "checkpoint_0", "t5x")
    infer(str(talker / "hf"), prompt="What?")
    printed["hf"] = capsys.readouterr().out
    infer(str(talker / "carried"), prompt="What?")
    printed["carried"] = capsys.readouterr().out
    assert printed["hf"] == printed["carried"] and printed["hf"].count("\n") == 2  # two beams
    with pytest.raises(UserError, match="vocabulary"):
        infer(str(talker / "checkpoint_0"), prompt="What?")
    infer(str(talker / "checkpoint_0"), prompt="What?", vocabulary="bytes#extra_ids=125")
    assert capsys.readouterr().out.count("\n") == 1
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text('{"inputs": "What?"}\n')
    infer(str(talker / "hf"), input_path=str(prompts), output_path=str(answers))
    settings = json.loads((tmp_path / "answers.jsonl.settings.json").read_text())
    assert settings["decode"]["beam_rules"] == "transformers" and len(settings["parameters"]) == 16
    place = talker / "hf" / "generation_config.json"
    place.write_text('{"eos_token_id": 9, "max_new_tokens": 3}')
    infer(str(talker / "hf"), input_path=str(prompts), output_path=str(tmp_path / "ends.jsonl"))
    settings = json.loads((tmp_path / "ends.jsonl.settings.json").read_text())
    assert settings["decode"]["eos_id"] == 9
    place.write_text('{"decoder_start_token_id": 5}')
    with pytest.raises(UserError, match="decoder_start_token_id = 5"):
        infer(str(talker / "hf"), prompt="What?")
    jax.clear_caches()
