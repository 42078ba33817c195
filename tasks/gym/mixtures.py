"""Named mixtures of the gym family, as one table. Importing this module registers them all.

Children have equal rates: generators have no natural size, so none should count for more. A child
`gym.<task>` stands for all prompt modes of the task, `gym.<task>.<mode>` for one of them.
"""

from instruct.data.registry import add_mixture
from tasks.gym import family  # noqa: F401 (registers the tasks)
from tasks.gym.table import EASY, MAIN
from tasks.splits import held_out, trainable

# Subsets of gym.train for scaling studies are prefixes of this list, so each holds the smaller
# ones. Categories take turns, simple and varied tasks first.
SCALE_ORDER = (
    "chain_sum", "letter_counting", "simple_equations", "number_sequence",
    "mini_sudoku", "acre", "arc_1d", "coin_flip",
    "bf", "gcd", "ransom_note", "polynomial_multiplication",
    "color_cube_rotation", "countdown", "list_functions", "leg_counting",
    "word_sorting", "complex_arithmetic", "figlet_font", "kakurasu",
    "number_format", "caesar_cipher", "polynomial_equations", "modulo_grid",
    "emoji_mystery", "calendar_arithmetic", "base_conversion", "simple_integration",
    "needle_haystack", "futoshiki", "gsm_symbolic", "binary_alternation",
    "rectangle_count", "mahjong_puzzle", "products", "number_sorting",
    "rubiks_cube", "n_queens", "time_intervals", "rotate_matrix",
    "sokoban", "basic_arithmetic", "isomorphic_strings", "sudoku",
    "bitwise_arithmetic", "spell_backward", "survo", "count_bits",
    "game_of_life", "tsumego", "decimal_arithmetic", "string_insertion",
    "decimal_chain_sum", "ab", "dice", "binary_matrix",
    "fraction_simplification", "count_primes", "lcm", "cryptarithm",
    "power_function", "game_of_life_halting", "prime_factorization", "group_anagrams",
)  # fmt: skip
SCALES = (1, 8, 24, 64)

# Short questions of four categories; a model of a few million parameters gets somewhere with them
# in minutes.
DEMO = (
    "easy_equations", "easy_letters", "easy_isomorphic", "easy_primes", "easy_sums", "easy_legs",
    "easy_gcd", "easy_cube",
)  # fmt: skip
DEMO_HELD_OUT = ("syllogism", "family_relationships", "simple_geometry", "aiw", "course_schedule")

_TRAIN = tuple(row.name for row in trainable() if row.name in MAIN)
_HELD_OUT = tuple(row.name for row in held_out())


def _tasks(names: tuple[str, ...], mode: str = "") -> dict[str, float | None]:
    return {f"gym.{name}.{mode}" if mode else f"gym.{name}": 1.0 for name in names}


# Mixtures that are trained on; `tasks.splits.leaks` is empty for each of them (a test asks).
TRAINING: dict[str, dict[str, float | None]] = {
    # everything but the held-out categories and tasks that resemble them
    "gym.train": _tasks(_TRAIN),
    **{f"gym.scale_{size}": _tasks(SCALE_ORDER[:size]) for size in SCALES},
    "gym.demo": _tasks(DEMO, "zs_noopt"),
}

# Mixtures for evaluation and for looking around.
EVALUATION: dict[str, dict[str, float | None]] = {
    # every generator that is used, in all prompt modes
    "gym.all": _tasks(tuple(MAIN)),
    # tasks that gym.train trains on, unseen questions
    "gym.held_in": _tasks(_TRAIN, "zs_noopt"),
    "gym.held_in_fs": _tasks(_TRAIN, "fs_noopt"),
    # kinds of task that no training mixture has
    "gym.held_out": _tasks(_HELD_OUT, "zs_noopt"),
    "gym.held_out_fs": _tasks(_HELD_OUT, "fs_noopt"),
    # the easy forms, all of them
    "gym.easy": _tasks(tuple(EASY), "zs_noopt"),
    "gym.demo_held_out": _tasks(DEMO_HELD_OUT, "zs_noopt"),
}

for _name, _rates in (TRAINING | EVALUATION).items():
    add_mixture(_name, _rates)
