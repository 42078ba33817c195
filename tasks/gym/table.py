"""The generators of `reasoning_gym` that the gym family uses, one row each, as data.

Sizes were chosen by measurement (`tasks/README.md`): prompts stay within about 512 tokens of the
gym vocabulary and an item costs less than 50 ms. A change of a row's configuration, key or limit
changes its records and needs a new `version`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

# How a prediction is judged; `tasks/gym/verify.py` has the judges.
VERIFIER = "verifier"  # the generator's own score_answer, right at a score of 1
EXACT = "exact"  # equal to the answer or one of the references
COUNTDOWN = "countdown"  # an arithmetic expression of the given numbers with the given value
POLYNOMIAL = "polynomial"  # the same function as the answer
ANTIDERIVATIVE = "antiderivative"  # the same function as the answer up to a constant

# A `key` other than the question: the answer.
ANSWER_KEY = "answer"

TRUE_FALSE = ("True", "False")
YES_NO = ("Yes", "No")


@dataclasses.dataclass(frozen=True)
class Generator:
    """One generator and how it is used.

    Attributes:
        name: the task is `gym.<name>`.
        generator: its name in `reasoning_gym`; the same as `name` but for the easy rows.
        category: the package it lives in (algebra, algorithmic, ...).
        config: differences from the generator's default configuration.
        metric: VERIFIER, EXACT, COUNTDOWN, POLYNOMIAL or ANTIDERIVATIVE.
        pattern: regular expression that a prediction must match before the verifier gets it.
        options: the answers that the questions can have, where that is a closed set.
        templates: name of its own template set; "" for the set of the category.
        key: the part of an item that no two splits may share: "" the question, ANSWER_KEY the
            answer, else the name of a metadata entry (an equation that several questions share).
        train_records, eval_records: records wanted for training, and for validation and for test.
        distinct_records: numbers of records (train, validation, test) if the generator runs out
            of new questions before it reaches those; else ().
        max_question_chars: longer questions are skipped; 0 for no limit.
        version: changes whenever the records do.
    """

    name: str
    generator: str
    category: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric: str = VERIFIER
    pattern: str = ""
    options: tuple[str, ...] = ()
    templates: str = ""
    key: str = ""
    train_records: int = 4000
    eval_records: int = 200
    distinct_records: tuple[int, ...] = ()
    max_question_chars: int = 0
    version: str = "1.0.0"


_SETTINGS = {field.name for field in dataclasses.fields(Generator)} - {"config"}


def _use(generator: str, metric: str = VERIFIER, **values: Any) -> Generator:
    """A row: values named like an attribute of `Generator` are settings, others configuration."""
    settings = {key: value for key, value in values.items() if key in _SETTINGS}
    config = {key: value for key, value in values.items() if key not in _SETTINGS}
    name = settings.pop("name", generator)
    return Generator(name, generator, config=config, metric=metric, **settings)


# fmt: off
_ROWS: Mapping[str, tuple[Generator, ...]] = {
    "algebra": (
        # Its verifier takes "nan" for right: exp(-nan) is not below 1.
        _use("complex_arithmetic", pattern=r"[-+() .,\deEij]+"),
        _use("polynomial_equations", max_degree=2, max_terms=3, max_value=20,
             key="polynomial_expr", train_records=1000, eval_records=100),
        _use("polynomial_multiplication", POLYNOMIAL, max_terms=3, max_value=20,
             max_polynomials=2, max_degree=2, key="polynomial_expr"),
        _use("simple_equations", EXACT, max_value=50, key="equation", templates="gym_equations"),
        _use("simple_integration", ANTIDERIVATIVE, max_terms=3, max_degree=6, key="integrand"),
    ),
    "algorithmic": (
        _use("ab", EXACT),
        _use("base_conversion", EXACT),
        _use("binary_alternation", EXACT, max_n=20),
        _use("binary_matrix", EXACT, max_n=6),
        _use("caesar_cipher", EXACT, max_words=8, key=ANSWER_KEY, train_records=2500),
        _use("count_primes", EXACT, max_n=500),
        _use("cryptarithm"),
        _use("game_of_life", grid_size_x=6, grid_size_y=6, filled_cells_weights=0.25,
             train_records=2000),
        # Its verifier compares bool("False") with bool("True"): every text is right.
        _use("game_of_life_halting", EXACT, grid_size_x=10, grid_size_y=10, num_oscillators=3,
             max_simulation_steps=10, train_records=1000, eval_records=100),
        _use("graph_color", min_num_vertices=5, max_num_vertices=8, edge_probability=0.25),
        _use("group_anagrams", max_anagram_groups=4, max_words_per_group=3),
        _use("isomorphic_strings", EXACT, options=TRUE_FALSE, templates="gym_isomorphic"),
        _use("jugs", difficulty=10, train_records=500, eval_records=50),
        _use("letter_counting", EXACT, min_words=3, max_words=10,
             templates="gym_letter_counting"),
        # Its verifier takes a right answer followed by anything.
        _use("letter_jumble", EXACT, max_words=8),
        _use("manipulate_matrix", max_rows=5, max_cols=5, max_transforms=3),
        _use("number_filtering", EXACT, max_numbers=6, max_decimals=2),
        # Its verifier takes numbers that are off by up to one.
        _use("number_sorting", EXACT, max_numbers=6, max_decimals=1),
        _use("palindrome_generation"),
        _use("palindrome_partitioning", max_string_len=7),
        _use("pool_matrix", max_rows=6, max_cols=6),
        _use("ransom_note", EXACT, max_magazine_length=20, options=TRUE_FALSE,
             templates="gym_ransom_note"),
        _use("rotate_matrix", EXACT, max_n=6),
        _use("rotten_oranges", EXACT, min_n=4, max_n=7),
        _use("sentence_reordering", max_words_in_sentence=10, key=ANSWER_KEY),
        # Its verifier adds 1/n n times, which can exceed 1 for a right start of a wrong answer.
        _use("spell_backward", EXACT, key=ANSWER_KEY, templates="gym_spell_backward"),
        _use("spiral_matrix", EXACT, max_n=6),
        _use("string_insertion", EXACT),
        _use("string_manipulation", EXACT, max_string_length=12, max_num_rules=5),
        _use("string_splitting", EXACT, max_initial_machines=12, train_records=1700),
        _use("string_synthesis", EXACT, max_initial_blocks=10, train_records=1000,
             eval_records=120),
        _use("word_ladder", min_chain_length=3, max_chain_length=5, train_records=1000),
        _use("word_sequence_reversal", EXACT, templates="gym_word_reversal"),
        _use("word_sorting", max_words=6),
    ),
    "arc": (_use("arc_1d", EXACT, max_size=15),),
    "arithmetic": (
        _use("basic_arithmetic", EXACT, max_terms=4, max_digits=2, templates="gym_expression"),
        _use("bitwise_arithmetic", difficulty=1),
        # Its verifier takes any number for right where the answer is negative.
        _use("calendar_arithmetic", EXACT),
        _use("chain_sum", max_terms=4, max_digits=3, key="expression",
             templates="gym_expression"),
        _use("count_bits", EXACT, max_n=65535, templates="gym_count_bits"),
        _use("decimal_arithmetic", min_num_decimal_places=2, max_num_decimal_places=2,
             max_terms=3),
        _use("decimal_chain_sum", max_terms=4, max_digits=2, max_decimal_places=2,
             key="expression"),
        _use("dice", train_records=2000),
        _use("fraction_simplification", max_value=200, max_factor=20),
        _use("gcd", EXACT, templates="gym_gcd"),
        _use("gsm_symbolic", EXACT),
        _use("lcm", EXACT),
        _use("leg_counting", EXACT, max_animals=5),
        _use("number_format", max_n=1_000_000, templates="gym_number_format"),
        _use("power_function", min_exponent=1, max_exponent=4, min_base=-100.0, max_base=100.0),
        _use("prime_factorization", max_value=5000),
        _use("products", max_digits=3, templates="gym_expression"),
        _use("time_intervals"),
    ),
    "code": (_use("bf", EXACT, key=ANSWER_KEY, train_records=2000),),
    "cognition": (
        _use("color_cube_rotation", templates="gym_color_cube"),
        _use("figlet_font", max_word_len=5, max_question_chars=800, key=ANSWER_KEY,
             train_records=2000),
        _use("modulo_grid", EXACT, size_x=8, size_y=8, max_divisor=8, max_target=8, max_holes=3),
        _use("needle_haystack", min_num_statements=3, max_num_statements=20),
        # With more operations a term, numbers of millions of digits: 30 s for one item.
        _use("number_sequence", EXACT, max_complexity=2, max_terms=6,
             templates="gym_number_sequence"),
        _use("rectangle_count", width=24, height=12, max_rectangles=5),
        _use("rubiks_cube", min_scramble_steps=2, max_scramble_steps=4, train_records=1000,
             eval_records=100),
    ),
    "games": (
        _use("countdown", COUNTDOWN, min_numbers=3, max_numbers=4, max_value=25, min_target=10,
             max_target=99, train_records=2000),
        _use("emoji_mystery", EXACT, max_words_in_sentence=8, key=ANSWER_KEY),
        _use("futoshiki", max_board_size=4, max_difficulty=1, train_records=1000,
             eval_records=100),
        _use("kakurasu", pattern=r"[01\s]+", max_rows=4, max_cols=4),
        _use("mahjong_puzzle", EXACT, min_num_rounds=2, max_num_rounds=6),
        _use("maze", EXACT, max_grid_size=8, max_dist=8),
        _use("mini_sudoku"),
        _use("n_queens", EXACT),
        _use("sokoban", pattern=r"[LRUD]+", max_w=7, max_h=7, min_boxes=2, max_boxes=3,
             max_depth=30, train_records=2000),
        _use("sudoku", min_empty=10, max_empty=30, train_records=1000, eval_records=100),
        _use("survo", pattern=r"[\d\s]+", max_board_size=4),
        _use("tsumego", max_board_size=9),
    ),
    "geometry": (
        _use("advanced_geometry", train_records=1000),
        _use("simple_geometry", EXACT, templates="gym_simple_geometry", train_records=1000),
    ),
    "graphs": (
        _use("course_schedule", EXACT, options=TRUE_FALSE, templates="gym_course_schedule",
             train_records=1000),
        _use("family_relationships", templates="gym_family", train_records=1000),
        _use("largest_island", EXACT, max_rows=7, max_cols=7, min_num_islands=1,
             max_num_islands=3, train_records=1000),
        _use("path_star", node_range=1000, train_records=1000),
        _use("quantum_lock", pattern=r"[ABC]( ?→ ?[ABC])*", difficulty=5, train_records=1000),
        _use("shortest_path", max_rows=6, max_cols=6, train_records=1000),
    ),
    "induction": (_use("acre", EXACT), _use("list_functions", EXACT)),
    "logic": (
        _use("aiw", EXACT, train_records=1000),
        _use("circuit_logic", EXACT, max_terms=3, max_inputs=3, train_records=1000),
        _use("knights_knaves", train_records=1000),
        _use("propositional_logic", train_records=1000),
        _use("self_reference", EXACT, train_records=1000),
        _use("syllogism", EXACT, options=YES_NO, templates="gym_syllogism", train_records=1000),
        _use("zebra_puzzles", num_people=3, num_characteristics=3, train_records=500,
             eval_records=100),
    ),
    "probability": (
        # A huge exponent makes its verifier build a number of that many digits.
        _use("coin_flip", pattern=r"\d+(\.\d+)?([eE]-?\d\d?)?|\.\d+|\d+ ?/ ?\d+",
             max_trials=30, train_records=750, eval_records=90),
    ),
}

# The same generators with smaller questions, for a demonstration on a small machine. A question
# that both forms can ask lies in the same split of both.
_EASY_ROWS = (
    _use("simple_equations", EXACT, name="easy_equations", max_value=9),
    _use("count_primes", EXACT, name="easy_primes", max_n=40, distinct_records=(653, 75, 92)),
    _use("letter_counting", EXACT, name="easy_letters", min_words=1, max_words=3),
    _use("isomorphic_strings", EXACT, name="easy_isomorphic", max_string_length=4),
    _use("ransom_note", EXACT, name="easy_ransom", max_note_length=2, max_magazine_length=6),
    _use("spell_backward", EXACT, name="easy_spelling", max_word_len=4),
    _use("word_sequence_reversal", EXACT, name="easy_reversal", min_words=2, max_words=3),
    _use("chain_sum", name="easy_sums", max_terms=2, max_digits=1,
         distinct_records=(161, 20, 19)),
    _use("leg_counting", EXACT, name="easy_legs", min_animals=1, max_animals=1,
         distinct_records=(452, 45, 58)),
    _use("count_bits", EXACT, name="easy_bits", max_n=2000, distinct_records=(1596, 150, 150)),
    _use("gcd", EXACT, name="easy_gcd", max_value=40, distinct_records=(1282, 150, 150)),
    _use("calendar_arithmetic", EXACT, name="easy_leap_year", tasks=["is_leap_year"],
         leap_year_range=2000),
    _use("color_cube_rotation", name="easy_cube", max_rotations=1),
    _use("needle_haystack", name="easy_needle", min_num_statements=2, max_num_statements=4),
    _use("number_sequence", EXACT, name="easy_sequence", max_complexity=1, max_terms=6),
)
# fmt: on

MAIN: dict[str, Generator] = {
    row.name: dataclasses.replace(row, category=category)
    for category, rows in _ROWS.items()
    for row in rows
}
EASY: dict[str, Generator] = {
    row.name: dataclasses.replace(
        row,
        category=MAIN[row.generator].category,
        options=MAIN[row.generator].options,
        templates=MAIN[row.generator].templates,
        key=MAIN[row.generator].key,
        train_records=4000,
        eval_records=150,
    )
    for row in _EASY_ROWS
}
GENERATORS: dict[str, Generator] = MAIN | EASY

EXCLUDED: dict[str, str] = {
    "arc_agi": "fixed public puzzles that serve as a benchmark; prompts of 2,700 characters on "
    "average and up to 16,000",
    "boxnet": "no reference solution; prompts of 3,200 characters",
    "codeio": "runs downloaded programs while it generates; prompts of 3,500 characters",
    "composite": "a mixer of the other generators, not a task",
    "intermediate_integration": "27 ms an item with peaks of 230; some answers are integrals that "
    "sympy left unevaluated; a check needs a computer algebra system",
    "knight_swap": "240 to 1,300 ms an item",
    "puzzle24": "50 ms an item, and 715 different puzzles at most",
    "rearc": "regenerates the public ARC training puzzles; prompts up to 4,300 characters",
    "rush_hour": "no reference solution; a fixed file of 18,000 boards",
    "tower_of_hanoi": "only 54 different prompts up to 5 disks, answers of 4,000 characters above",
}
