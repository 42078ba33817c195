"""A few prompts of the gym family; they change only with reasoning_gym, a row or a wording."""

from tests.tasks.gym.test_family import rendered, some_records

# (task, prompt mode, key)
CASES = (
    ("easy_sums", "zs_noopt", 4),
    ("ransom_note", "zs_opt", 11),
    ("mini_sudoku", "zs_noopt", 2),
    ("simple_equations", "zs_noopt", 3),
    ("syllogism", "zs_noopt", 6),
    ("needle_haystack", "zs_noopt", 1),
    ("number_format", "zs_opt", 9),
)


def goldens() -> dict[str, str]:
    """One file, a block a prompt."""
    blocks = []
    for name, mode, key in CASES:
        (record,) = some_records(name, "test", 1)
        shown = rendered(record, name, mode, key)
        blocks.append(f"=== {name} {mode} {key}\n{shown.inputs}\n-> {shown.targets}\n")
    return {"prompts_gym.txt": "\n".join(blocks)}
