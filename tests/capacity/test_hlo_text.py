"""Lines of a program's text, and the groups of devices that they name."""

import pytest

from instruct.capacity.hlo_text import Array, Instruction, device_groups, parse_hlo

TEXT = """\
HloModule jit_step

%inner (p: f32[2,3]) -> f32[2,3] {
  %p = f32[2,3]{1,0} parameter(0)
  ROOT %n = f32[2,3]{1,0:T(8,128)S(1)} negate(%p), metadata={op_name="jit(step)/neg"}
}

ENTRY %main (a: f32[2,3]) -> (f32[2,3], s32[]) {
  %a = f32[2,3]{1,0} parameter(0)
  %f = f32[2,3]{1,0} fusion(%a), kind=kLoop, calls=%inner
  %c = s32[] constant(7)
  ROOT %t = (f32[2,3]{1,0}, /*index=1*/s32[]) tuple(%f, %c)
}
"""


def test_computations_and_instructions():
    computations, entry = parse_hlo(TEXT)
    assert entry == "main" and list(computations) == ["inner", "main"]
    fusion, root = computations["main"]["f"], computations["main"]["t"]
    assert (fusion.opcode, fusion.operands, fusion.called) == ("fusion", ("a",), "inner")
    assert root.is_root and root.arrays == (Array("f32", (2, 3), False), Array("s32", (), False))
    assert computations["main"]["c"].operands == ("7",)
    (on_chip,) = computations["inner"]["n"].arrays
    assert on_chip.num_bytes == 24 and on_chip.hbm_bytes == 0
    assert computations["inner"]["n"].attribute(r'op_name="([^"]*)"') == "jit(step)/neg"


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_groups(attributes, groups):
    instruction = Instruction("x", (), "all-gather", (), attributes, False)
    assert device_groups(instruction).tolist() == groups
