"""Two stacks that fit each other, and the sizes of T5Gemma."""

import dataclasses

import pytest

from instruct.errors import UserError
from instruct.models.pair_config import PairConfig
from instruct.models.stack_config import StackConfig

GEMMA2_2B = StackConfig(
    d_model=2304,
    num_layers=26,
    num_heads=8,
    num_kv_heads=4,
    head_dim=256,
    d_ff=9216,
    norm="rms_plus_one",
    post_norms=True,
)
T5GEMMA_2B_2B = PairConfig(vocab_size=256_000, encoder=GEMMA2_2B, decoder=GEMMA2_2B)


def test_parameters_of_t5gemma():
    """Two Gemma 2 models of 2B, and a cross-attention with its two norms in each decoder layer."""
    cross = 26 * (2304 * 256 * (2 * 8 + 2 * 4) + 2 * 2304)
    assert T5GEMMA_2B_2B.num_params() == 2 * 2_614_341_888 + cross


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, r"PairConfig.encoder is None.* = @StackConfig"),
        ({"cross": "joint"}, "PairConfig.cross"),
        (
            {"cross": "merged", "encoder": 256},
            "cross is 'merged', which needs one width.*256 in the",
        ),
        ({"shared_embedding": True, "encoder": 256}, "shared_embedding is True, which needs one"),
        ({"start_id": 256_000}, "start_id is 256000; use a token below"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    if type(changes.get("encoder")) is int:
        narrow = dataclasses.replace(GEMMA2_2B, d_model=changes["encoder"])
        changes = changes | {"encoder": narrow}
    with pytest.raises(UserError, match=message):
        dataclasses.replace(T5GEMMA_2B_2B, **changes)
    parallel = dataclasses.replace(GEMMA2_2B, parallel=True, post_norms=False)
    with pytest.raises(UserError, match="decoder.parallel is True"):
        dataclasses.replace(T5GEMMA_2B_2B, decoder=parallel)
