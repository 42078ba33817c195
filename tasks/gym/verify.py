"""Judges of the gym family: is this text a right answer?

A prediction is text from a model and is never run: verifiers of `reasoning_gym` that evaluate their
argument (`eval`, sympy's parser) are not called. The others get only short texts of the right form,
and any exception counts as a wrong answer.
"""

import ast
import collections
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from tasks.gym import table as gym_table
from tasks.gym.library import load_generator
from tasks.gym.table import GENERATORS

_MAX_CHARS = 2000  # longer than any answer of the collection
_MAX_EXPRESSION_CHARS = 400
_MAX_EXPONENT = 20
_POINTS = tuple(Fraction(numerator, 7) for numerator in (-24, -11, 3, 19, 31, 53))


def is_right(
    name: str,
    prediction: str,
    answer: str,
    references: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> bool:
    """Whether a model's `prediction` is a right answer by the metric of row `name`.

    `answer`, `references` and `metadata` are the record's.
    """
    text = prediction.strip()
    if text == answer.strip() or text in references:
        return True
    if not text or len(text) > _MAX_CHARS or GENERATORS[name].metric == gym_table.EXACT:
        return False
    return convinces(name, text, answer, metadata or {})


def convinces(name: str, text: str, answer: str, metadata: Mapping[str, Any]) -> bool:
    """The judge's verdict on a text that differs from the answer; never raises."""
    row = GENERATORS[name]
    if row.metric == gym_table.EXACT:
        return text == answer
    if row.pattern and not re.fullmatch(row.pattern, text):
        return False
    try:
        return _JUDGES[row.metric](name, text, answer, metadata)
    except (Exception, RecursionError):
        return False


def metadata_of(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The judge's input from a generator's item, as JSON values; {} for exact match."""
    metric, metadata = GENERATORS[name].metric, entry["metadata"]
    if metric == gym_table.EXACT:
        return {}
    if metric == gym_table.COUNTDOWN:
        return {"numbers": list(metadata["numbers"]), "target": metadata["target"]}
    if metric == gym_table.POLYNOMIAL:
        return {"variables": list(metadata["variables"])}
    if metric == gym_table.ANTIDERIVATIVE:
        return {"variables": [metadata["variable"]]}
    return json.loads(json.dumps(metadata))


def _by_verifier(name: str, text: str, answer: str, metadata: Mapping[str, Any]) -> bool:
    # A copy, since some verifiers modify their argument.
    entry = {"answer": answer, "metadata": json.loads(json.dumps(metadata))}
    return load_generator(name, 1, 0).score_answer(text, entry) >= 1.0


def _by_countdown(name: str, text: str, answer: str, metadata: Mapping[str, Any]) -> bool:
    tree = _parse(text)
    used = collections.Counter(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return (
        used == collections.Counter(metadata["numbers"]) and _value(tree, {}) == metadata["target"]
    )


def _by_values(name: str, text: str, answer: str, metadata: Mapping[str, Any]) -> bool:
    predicted, gold = _parse(text), _parse(answer)
    return all(_value(predicted, at) == _value(gold, at) for at in _samples(metadata["variables"]))


def _by_values_and_constant(name: str, text: str, answer: str, metadata: Mapping[str, Any]) -> bool:
    predicted, gold = _parse(text), _parse(answer)
    constant = {"C": Fraction(5, 3)}
    samples = [at | constant for at in _samples(metadata["variables"])]
    return len({_value(predicted, at) - _value(gold, at) for at in samples}) == 1


_JUDGES = {
    gym_table.VERIFIER: _by_verifier,
    gym_table.COUNTDOWN: _by_countdown,
    gym_table.POLYNOMIAL: _by_values,
    gym_table.ANTIDERIVATIVE: _by_values_and_constant,
}


def _samples(variables: Sequence[str]) -> list[dict[str, Fraction]]:
    """Points that tell apart polynomials of the degrees that occur (at most 6)."""
    shifted = [_POINTS[i:] + _POINTS[:i] for i in range(len(_POINTS))]
    return [
        {name: row[(2 * i) % len(row)] * (i + 1) for i, name in enumerate(variables)}
        for row in shifted
    ]


def _parse(text: str) -> ast.expr:
    if len(text) > _MAX_EXPRESSION_CHARS:
        raise ValueError("expression too long")
    return ast.parse(text, mode="eval").body


def value_of(expression: str) -> Fraction:
    """The exact value of an arithmetic expression. ValueError or ZeroDivisionError without one."""
    try:
        return _value(_parse(expression), {})
    except SyntaxError as error:
        raise ValueError(f"not an expression: {expression[:60]!r}") from error


def _value(node: ast.expr, names: Mapping[str, Fraction]) -> Fraction:
    """Value of + - * / ** over whole numbers and `names`; ValueError for other syntax."""
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return Fraction(value)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _value(operand, names)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            return _OPERATIONS[type(operation)](_value(left, names), _value(right, names))
    raise ValueError(f"not arithmetic: {ast.dump(node)[:60]}")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or not 0 <= exponent <= _MAX_EXPONENT:
        raise ValueError("exponent not allowed")
    if base.numerator.bit_length() + base.denominator.bit_length() > 2000:
        raise ValueError("number too large")
    return base ** int(exponent)


_OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: _power,
}
