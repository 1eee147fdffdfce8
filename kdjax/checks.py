"""Shape and range checks shared by the pure functions.

Shapes are checked when a function is traced (or called eagerly); ranges are
checked for Python numbers, because a traced hyper-parameter has no value yet.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

import beartype
import jax
import jaxtyping
import numpy as np

# What a public function accepts as an array, and as a scalar setting.
Array = jax.Array | np.ndarray
Scalar = float | int | jaxtyping.Num[Array, '']

_F = TypeVar('_F', bound=Callable)


def typed(function: _F) -> _F:
  """Checks argument shapes and types; an error names the argument.

  Args:
    function: a function annotated with `jaxtyping` shapes.

  Returns:
    The same function; a wrong shape raises `jaxtyping.TypeCheckError`, which
    is a `TypeError`.
  """
  return jaxtyping.jaxtyped(function, typechecker=beartype.beartype)


def _is_number(value: Scalar) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_positive(name: str, value: Scalar) -> None:
  """Raises `ValueError` unless `value` is a finite number above 0.

  >>> check_positive('temperature', -1.0)
  Traceback (most recent call last):
  ...
  ValueError: temperature=-1.0 must be positive and finite
  """
  if _is_number(value) and not 0 < value < float('inf'):
    raise ValueError(f'{name}={value} must be positive and finite')


def check_not_negative(name: str, value: Scalar) -> None:
  """Raises `ValueError` unless `value` is a finite number from 0.

  >>> check_not_negative('target_weight', -1.0)
  Traceback (most recent call last):
  ...
  ValueError: target_weight=-1.0 must not be negative, and finite
  """
  if _is_number(value) and not 0 <= value < float('inf'):
    raise ValueError(f'{name}={value} must not be negative, and finite')


def check_fraction(name: str, value: Scalar) -> None:
  """Raises `ValueError` unless `value` lies in [0, 1].

  >>> check_fraction('weight', 1.5)
  Traceback (most recent call last):
  ...
  ValueError: weight=1.5 must lie in [0, 1]
  """
  if _is_number(value) and not 0 <= value <= 1:
    raise ValueError(f'{name}={value} must lie in [0, 1]')


def check_between(name: str, value: Scalar, low: int, high: int) -> None:
  """Raises `ValueError` unless `low <= value <= high`.

  >>> check_between('k', 11, 1, 10)
  Traceback (most recent call last):
  ...
  ValueError: k=11 must lie in 1..10
  """
  if _is_number(value) and not low <= value <= high:
    raise ValueError(f'{name}={value} must lie in {low}..{high}')


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
  """Raises `ValueError` unless `name` is known; it names the nearest one.

  >>> check_known('method', 'kd_top', ['kd', 'kd_topk'])
  Traceback (most recent call last):
  ...
  ValueError: unknown method 'kd_top'; did you mean 'kd_topk'?
  >>> check_known('method', 'crd', ['kd', 'kd_topk'])
  Traceback (most recent call last):
  ...
  ValueError: unknown method 'crd'; known are kd, kd_topk
  """
  known = list(known)
  if name not in known:
    near = difflib.get_close_matches(str(name), known, n=1)
    every = ', '.join(known) or 'none'
    hint = f'did you mean {near[0]!r}?' if near else f'known are {every}'
    raise ValueError(f'unknown {kind} {name!r}; {hint}')
