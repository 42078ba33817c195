"""Runs with adapters: what they train, that they resume exactly, and that reading merges them."""

import json
import re

import jax
import numpy as np
import pytest

from instruct.checkpoints.checkpoint_files import read_document
from instruct.checkpoints.loading import load_newest, load_params
from instruct.checkpoints.native import open_checkpoint
from instruct.errors import UserError
from instruct.mesh import MeshConfig, tree_paths
from instruct.models.model import make_model
from instruct.train import loop
from instruct.train.lora import LoraConfig
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.step import make_eval_step
from tests.train.batches import packed_batch, tiny_config
from tests.train.stand_in import ONE_LAYER, arguments

ADAMW = loop.OptimizerConfig(name="adamw", learning_rate=0.02)


def run(folder, steps, **changes):
    given = {"optimizer": ADAMW, "lora": LoraConfig(rank=2, alpha=4.0, dropout=0.1)}
    loop.train(**arguments(folder, steps, **(given | changes)))


def stored(folder, step):
    return open_checkpoint(folder / "checkpoints" / str(step))


def rows(folder):
    names = ("loss", "eval/loss", "gradient_norm")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: row.get(name) for name in names} for row in lines]


@pytest.fixture(autouse=True, scope="module")
def quick():
    patch = pytest.MonkeyPatch()
    patch.setattr(loop.peak, "matmul_peak", lambda *_: 1e11)
    yield
    patch.undo()


def test_the_scale_is_of_lora_or_of_rslora():
    assert LoraConfig(rank=4, alpha=8.0).scale == 2.0
    assert LoraConfig(rank=4, alpha=8.0, rslora=True).scale == 4.0


@pytest.mark.parametrize("rank", [None, 0])
def test_without_a_rank_nothing_is_added(rank):
    params, config = {"any": "tree"}, LoraConfig(rank=rank)
    assert config.add(params, 0) is params and config.recorded() == {}
    assert config.loss(len) is len


@pytest.mark.parametrize(
    "setting", [{"alpha": 8.0}, {"dropout": 0.5}, {"targets": ".*/kernel"}, {"rslora": True}]
)
def test_settings_of_adapters_need_a_rank(setting):
    """They trained every parameter without a word; a rank of 0 says that this is meant."""
    (name, value), *_ = setting.items()
    with pytest.raises(UserError, match=re.escape(f"LORA_{name.upper()} = {value!r} has no eff")):
        LoraConfig(**setting)
    config = LoraConfig(rank=0, **setting)
    assert config.recorded() == {} and config.loss(len) is len


def test_targets_must_be_kernels_of_layers():
    abstract = make_model(tiny_config()).abstract_params()
    for targets in (".*scale", "decoder/logits_dense/kernel"):
        with pytest.raises(UserError, match="only kernels of layers take adapters"):
            LoraConfig(rank=2, targets=targets).add(abstract, 0)
    with pytest.raises(UserError, match="LORA_TARGETS = 'q_proj' matches no parameter"):
        LoraConfig(rank=2, targets="q_proj").add(abstract, 0)


@pytest.mark.slow
def test_a_run_trains_adapters_only_resumes_exactly_and_is_read_merged(tmp_path, capsys):
    """Eight devices, stacked layers, recomputation and microbatches; read in the other layout."""
    there = {
        "model": tiny_config(dropout_rate=0.1, scan_layers=True, remat="full"),
        "mesh": MeshConfig(data=2, fsdp=2, tensor=2),
        "num_microbatches": 2,
    }
    run(tmp_path / "whole", 8, **there)
    assert "trains 2,304 of " in " ".join(capsys.readouterr().err.split())
    run(tmp_path / "parts", 4, **there)
    run(tmp_path / "parts", 8, **there)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    sums = read_document(tmp_path / "whole" / "checkpoints" / "8")["checksums"]
    assert sums == read_document(tmp_path / "parts" / "checkpoints" / "8")["checksums"]
    first = read_document(tmp_path / "whole" / "checkpoints" / "4")["checksums"]
    changed = {name for name in sums if name.startswith("params/") and sums[name] != first[name]}
    assert changed == {n for n in sums if n.startswith("params/") and n.endswith(("_a", "_b"))}
    slots = {name for name in sums if name.startswith("training/opt_state")}
    assert slots == {
        f"training/opt_state/{name.removeprefix('params/')}/{slot}"
        for name in changed
        for slot in "mv"
    }
    info = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert info["num_params_trained"] == 2304 and info["optimizer_bytes"] == 2 * 4 * 2304 + 8
    assert info["config"]["lora.rank"] == 2 and info["config"]["lora.alpha"] == 4.0
    with pytest.raises(UserError, match=r"lora.rank: 2 there, 3 now"):
        run(tmp_path / "whole", 9, **there, lora=LoraConfig(rank=3, alpha=4.0, dropout=0.1))
    # Reading merges, in either layout, and what is read is what was evaluated.
    opened = stored(tmp_path / "whole", 8)
    (path, adapter), *_ = opened.adapters.items()
    product = adapter.a.read() @ adapter.b.read() * adapter.scale.read()
    assert np.abs(product).max() > 1e-3 and adapter.scale.read() == 2.0
    params = load_params(tmp_path / "whole", make_model(tiny_config()).abstract_params())
    leaf = dict(tree_paths(params))[path]
    np.testing.assert_allclose(leaf, adapter.kernel.read() + product, rtol=1e-6, atol=1e-7)
    eval_step = jax.jit(make_eval_step(make_loss_fn(make_model(tiny_config()), LossConfig())))
    one, other = (eval_step(params, packed_batch(number)).loss for number in (1000, 1001))
    mean = float(one.add(other).value)
    assert rows(tmp_path / "whole")[-1]["eval/loss"] == pytest.approx(mean, abs=1e-5)
    # A damaged newest checkpoint is skipped, as of any run.
    (tmp_path / "parts" / "checkpoints" / "8" / "params" / "_METADATA").unlink()
    folder, _ = load_newest(tmp_path / "parts", make_model(tiny_config()).abstract_params())
    assert folder.name == "4"
    # Training goes on from the merged model, fully or with adapters.
    run(
        tmp_path / "next",
        1,
        model=tiny_config(),
        initial_checkpoint_path=str(tmp_path / "whole"),
    )
    again = stored(tmp_path / "next", 1)
    assert np.array_equal(again.adapters[path].kernel.read(), leaf)


@pytest.mark.slow
def test_frozen_parameters_stay_and_have_no_slots(tmp_path):
    run(tmp_path, 2, lora=LoraConfig(), freeze="encoder/.*|token_embedder/.*")
    sums = read_document(tmp_path / "checkpoints" / "2")["checksums"]
    slots = {name.split("/")[2] for name in sums if name.startswith("training/opt_state")}
    assert slots == {"decoder"}
    start = jax.jit(make_model(tiny_config(**ONE_LAYER)).init)(jax.random.key(0))
    end = stored(tmp_path, 2).arrays
    for path, leaf in tree_paths(start):
        assert np.array_equal(leaf, end[path].read()) == (not path.startswith("decoder")), path
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert config["freeze"] == "encoder/.*|token_embedder/.*"
    assert not any(name.startswith("lora") for name in config)
