"""Judges of the gym family: is this text a right answer?

A prediction is text from a model: it is never run. Some of `reasoning_gym`'s own verifiers
evaluate their argument (`eval`, sympy's parser); those are not called. The others get only short
texts of the right form, and any exception counts as a wrong answer.
"""

import ast
import collections
import json
import re
from collections.abc import Mapping, Sequence
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
    """Whether `prediction` is a right answer, judged as the generator's row says.

    Args:
        name: a row of the table.
        prediction: what a model wrote.
        answer: the record's answer.
        references: the record's references.
        metadata: the record's metadata.
    """
    text = prediction.strip()
    if text == answer.strip() or text in references:
        return True
    if not text or len(text) > _MAX_CHARS or GENERATORS[name].metric == gym_table.EXACT:
        return False
    return convinces(name, text, answer, metadata or {})


def convinces(name: str, text: str, answer: str, metadata: Mapping[str, Any]) -> bool:
    """The judge's verdict, without comparing the text with the answer first; never raises."""
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
    # A copy, for some verifiers write into what they get.
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
    """The exact value of an arithmetic expression. ValueError for anything else."""
    try:
        return _value(_parse(expression), {})
    except SyntaxError as error:
        raise ValueError(f"not an expression: {expression[:60]!r}") from error


def _value(node: ast.expr, names: Mapping[str, Fraction]) -> Fraction:
    """Value of + - * / ** over whole numbers and `names`. ValueError for anything else."""
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return Fraction(value)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, names)
        case ast.BinOp(left=left, op=operator, right=right):
            return _combine(_value(left, names), operator, _value(right, names))
    raise ValueError(f"not arithmetic: {ast.dump(node)[:60]}")


def _combine(left: Fraction, operator: ast.operator, right: Fraction) -> Fraction:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div() if right:
            return left / right
        case ast.Pow() if right.denominator == 1 and 0 <= right <= _MAX_EXPONENT:
            if left.numerator.bit_length() + left.denominator.bit_length() > 2000:
                raise ValueError("number too large")
            return left ** int(right)
    raise ValueError("operation not allowed")
