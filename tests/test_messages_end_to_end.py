"""A decoder learns the assistant's turns of `messages` JSON lines (docs/extending.md)."""

import json
import random

import jax
import numpy as np
import optax
import pytest

from instruct.data import registry
from instruct.data.feed.pipeline import TrainFeed
from instruct.data.stores.prepare import prepare
from instruct.models.decoder_config import DecoderConfig
from instruct.models.model import make_model
from instruct.train.loss import LossConfig, make_loss_fn
from tests.data.toy import toy_config
from tests.train.test_users_module import code_block
from tests.workspaces import workspace

WORDS = {"a": "apple", "b": "berry", "c": "cedar", "d": "daisy"}
MODEL = make_model(
    DecoderConfig(
        vocab_size=384,
        d_model=32,
        num_layers=1,
        num_heads=4,
        num_kv_heads=4,
        head_dim=8,
        d_ff=64,
        activations="gated-silu",
        dtype="float32",
    )
)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Conversations of two turns: "User: b / Assistant: berry"."""
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    draw, lines = random.Random(0), []
    for _ in range(100):
        messages = []
        for letter in draw.choices("abcd", k=2):
            messages += [
                {"role": "user", "content": letter},
                {"role": "assistant", "content": WORDS[letter]},
            ]
        lines.append(json.dumps({"messages": messages}))
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "support.jsonl").write_text("\n".join(lines))
    exec(code_block("my_chat.py"), {})
    resolved = registry.resolve(workspace(), "talks.support")
    prepare(workspace(), resolved, config_of("talks.support"), ("train",)).check()
    return "talks.support"


def config_of(name, **changes):
    lengths = {"inputs": 150, "targets": 10}
    values = {"batch_size": 8, "feature_lengths": lengths, "layout": "decoder_only"}
    return toy_config(name, **(values | changes))


def batches(name, count, **changes):
    feed = TrainFeed(workspace(), config_of(name, **changes), registry.resolve(workspace(), name))
    return [next(feed)[0] for _ in range(count)]


def trained(data):
    """Parameters after a step of Adam on each batch."""
    loss_fn, optimizer = make_loss_fn(MODEL, LossConfig(z_loss=0.0)), optax.adam(1e-2)

    @jax.jit
    def step(params, state, batch):
        gradients, _ = jax.grad(loss_fn, has_aux=True)(params, batch)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state

    params = jax.jit(MODEL.init)(jax.random.key(0))
    state = optimizer.init(params)
    for batch in data:
        params, state = step(params, state, batch)
    return params


@pytest.mark.slow
def test_only_the_assistants_turns_are_learned(task):
    (held,) = batches(task, 1, seed=9)
    assistant = held["decoder_loss_weights"] > 0
    written = held["decoder_target_tokens"][assistant].tolist()
    assert written[:12] != written[12:24] and written.count(1) * 6 == len(written)
    others = (held["decoder_segment_ids"] > 0) & ~assistant
    losses = {}
    for loss_on in ("targets", "all"):
        params = trained(batches(task, 60, loss_on=loss_on))
        log_probs = np.asarray(jax.nn.log_softmax(jax.jit(MODEL.apply)(params, held)))
        nll = -np.take_along_axis(log_probs, held["decoder_target_tokens"][..., None], -1)[..., 0]
        losses[loss_on] = nll[assistant].mean(), nll[others].mean()
    assert losses["targets"][0] < 0.5 and losses["targets"][1] > 4.0
    assert losses["all"][1] < 1.0  # a wrong mask would be noticed
