"""A configuration some of whose values are traced numbers."""

import copy
import types
from typing import Any

from kdjax.train.state import PyTree


def namespace(values: dict[str, Any]) -> types.SimpleNamespace:
  """Returns nested dictionaries as objects with their keys as attributes."""
  return types.SimpleNamespace(
    **{
      key: namespace(value) if isinstance(value, dict) else value
      for key, value in values.items()
    }
  )


def overlaid(
  settings: types.SimpleNamespace, varied: PyTree
) -> types.SimpleNamespace:
  """Returns settings with other values.

  Args:
    settings: what `namespace` returns.
    varied: by dotted key, of which the last part need not be there yet.

  Returns:
    A copy.

  >>> settings = namespace({'optimizer': {'name': 'sgd'}})
  >>> overlaid(settings, {'optimizer.weight_decay': 0.1}).optimizer.weight_decay
  0.1
  """
  found = copy.deepcopy(settings)
  for key, value in varied.items():
    *parents, name = key.split('.')
    inner = found
    for parent in parents:
      inner = getattr(inner, parent)
    setattr(inner, name, value)
  return found
