import pytest

from instruct.models.decoder_config import DecoderConfig

GEMMA2_2B = DecoderConfig(
    vocab_size=256_000,
    d_model=2304,
    num_layers=26,
    num_heads=8,
    num_kv_heads=4,
    head_dim=256,
    d_ff=9216,
    post_norms=True,
    window=4096,
    layer_pattern=("local", "global"),
)
LLAMA3_8B = DecoderConfig(
    vocab_size=128_256,
    d_model=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    d_ff=14336,
    tied_output=False,
)


def test_counts_are_the_published_ones():
    assert GEMMA2_2B.num_params() == 2_614_341_888
    assert LLAMA3_8B.num_params() == 8_030_261_248


def test_a_row_is_inputs_and_targets():
    """About 2 FLOPs a parameter and token, and attention's pairs; backward is twice forward."""
    flops = LLAMA3_8B.forward_flops(3, 100, 28)
    assert flops == LLAMA3_8B.forward_flops(3, 28, 100)
    embedding, tokens = 128_256 * 4096, 3 * 128
    least = 2 * (LLAMA3_8B.num_params() - embedding) * tokens
    pairs = 32 * 4 * 128 * 32 * 128 * tokens
    assert flops == pytest.approx(least + pairs, rel=1e-4)
    assert LLAMA3_8B.train_flops(3, 100, 28) == 3 * flops
    assert LLAMA3_8B.layout == "decoder_only"
