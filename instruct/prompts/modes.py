"""Prompt modes: each gives a task spec one seqio task."""

# zs: zero-shot, fs: few-shot; opt/noopt: with or without answer options; inv: inverted. `direct`
# and `cot` show options and fixed exemplars (`TaskSpec.shots`) if there are any; `zs_direct` and
# `zs_cot` are the same without exemplars. tk_instruct*: instruct/prompts/tk_instruct.py.
TK_MODES = ("tk_instruct", "tk_instruct_mixed")
# Pretraining objectives over a text (instruct/prompts/denoising.py).
OBJECTIVES = ("span_corruption", "prefix_lm", "causal_lm", "ul2", "u_palm")
MODES = (
    *("zs_opt", "zs_noopt", "zs_inv", "fs_opt", "fs_noopt", "fs_inv"),
    *("direct", "cot", "fs_cot", "zs_direct", "zs_cot", *TK_MODES),
    *OBJECTIVES,
)
FEW_SHOT_MODES = ("fs_opt", "fs_noopt", "fs_inv", "fs_cot", *TK_MODES)
INVERTED_MODES = ("zs_inv", "fs_inv")
COT_MODES = ("cot", "fs_cot", "zs_cot")
# Modes with the first `TaskSpec.shots` exemplars.
FIXED_SHOT_MODES = ("direct", "cot")
