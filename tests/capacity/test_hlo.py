"""What is read of a program's text: loops, products, traffic, groups of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.capacity import hlo

# As the TPU compiler prints it: no trip count, a reduce-scatter as a fusion, an all-gather in two
# parts of one chain, on-chip arrays, a batched product as a dilated convolution.
TPU = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input.1: bf16[8,16]) -> bf16[2,16] {
  %input.1 = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-reduce.1 = bf16[8,16]{1,0} all-reduce(%input.1), REDUCE
  %zero = s32[] constant(0)
  ROOT %part = bf16[2,16]{1,0} dynamic-slice(%all-reduce.1, %zero, %zero), SLICE
}

%begin (p.1: bf16[2,16]) -> bf16[8,16] {
  %p.1 = bf16[2,16]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[8,16]{1,0} all-gather(%p.1), GATHER
}

%end (p.2: bf16[2,16]) -> bf16[8,16] {
  %p.2 = bf16[2,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,16]{1,0} all-gather(%p.2), GATHER
}

%condition (c: (s32[], bf16[8,16])) -> pred[] {
  %c = (s32[], bf16[8,16]) parameter(0)
  %limit = s32[] constant(12)
  %i = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (b.1: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %b.1 = (s32[], /*index=1*/bf16[8,16]{1,0:T(8,128)(2,1)}) parameter(0)
  %i.1 = s32[] get-tuple-element(%b.1), index=0
  %x = bf16[8,16]{1,0} get-tuple-element(%b.1), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i.1, %two)
  %rs = bf16[2,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %start = bf16[8,16]{1,0} fusion(%rs), kind=kCustom, calls=%begin
  %done = bf16[8,16]{1,0} fusion(%rs), kind=kCustom, calls=%end
  %left = bf16[8,16,4]{2,1,0} parameter(1)
  %right = bf16[8,4,32]{2,1,0:S(1)} parameter(2)
  %product = bf16[8,16,32]{2,1,0} convolution(%left, %right), WINDOW
  ROOT %out = (s32[], bf16[8,16]{1,0}) tuple(%next, %done)
}

ENTRY %main (m: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %m = (s32[], bf16[8,16]) parameter(0)
  %send = (bf16[4]{0}, bf16[4]{0}, u32[]{:S(2)}) collective-permute-start(%vector), PAIRS
  %vector = bf16[4]{0} constant({...})
  ROOT %loop = (s32[], bf16[8,16]) while(%m), condition=%condition, body=%body
}
"""
# The longer attributes.
for name, text in {
    "REDUCE": "channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add",
    "GATHER": "channel_id=3, replica_groups=mesh['x'=1,'y'=4] {'y'}, dimensions={0}, "
    'frontend_attributes={chain_id="7"}',
    "WINDOW": "window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
    "SLICE": "dynamic_slice_sizes={2,16}",
    "PAIRS": "source_target_pairs={{0,1},{1,0}}",
}.items():
    TPU = TPU.replace(name, text)


def test_a_tpu_program():
    program = hlo.read_program(TPU)
    assert not program.unknown_loops and not program.unknown_kernels
    found = [(n, c.kind, c.num_bytes, c.overlapped) for n, c in program.collectives()]
    assert sorted(found) == [
        (1, "collective-permute", 8, True),
        (6, "all-gather", 256, True),  # 12 in steps of two; both parts of the chain are one
        (6, "reduce-scatter", 256, False),
    ]
    # Eight products [16, 4] @ [4, 32]: of 8 x 8 positions of the window 8 meet an element.
    assert program.flops() == 6 * 2 * 8 * 16 * 4 * 32


def test_on_chip_arrays_cost_no_traffic():
    body = next(region for region in hlo.read_program(TPU).regions if region.name == "body")
    (product,) = (op for op in body.operations if op.name == "product")
    assert product.hbm_bytes == 2 * (8 * 16 * 4 + 8 * 16 * 32)  # not the right operand


def test_buffers_of_a_collective_under_way_cost_no_traffic():
    body = next(region for region in hlo.read_program(TPU).regions if region.name == "body")
    assert not {op.name for op in body.operations if op.hbm_bytes} & {"start", "done"}


def test_a_scanned_product_counts_as_often_as_it_runs():
    def scanned(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    shapes = jax.ShapeDtypeStruct((32, 64), jnp.float32), jax.ShapeDtypeStruct((5, 64, 64), "f4")
    compiled = jax.jit(scanned).lower(*shapes).compile()
    flops = 5 * 2 * 32 * 64 * 64
    assert hlo.read_program(compiled.as_text()).flops() == pytest.approx(flops)
    assert compiled.cost_analysis()["flops"] < flops / 2  # why the text is read


def test_an_unknown_loop_is_named():
    def halved(x):
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x)

    text = jax.jit(halved).lower(np.ones(8, np.float32)).compile().as_text()
    assert len(hlo.read_program(text).unknown_loops) == 1
