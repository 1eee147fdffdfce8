"""Outputs of modules inside a network, taken without changing the network."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import nnx


@contextlib.contextmanager
def tapped(
  model: nnx.Module, paths: Sequence[str]
) -> Iterator[dict[str, jax.Array]]:
  """Notes what modules inside a model return while it is called.

  Args:
    model: any module.
    paths: names of attributes from the model down, as in
      `'stage2/block1/norm1'`.

  Yields:
    The last output of each, by path, once the model has been called.

  Raises:
    ValueError: there is no such module, it was not called, or it did not
      return an array.

  >>> model = nnx.Sequential(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.relu)
  >>> with tapped(model, ['layers/0']) as seen:
  ...   _ = model(jax.numpy.ones((2, 3)))
  >>> seen['layers/0'].shape
  (2, 5)
  """
  seen: dict[str, jax.Array] = {}
  with contextlib.ExitStack() as stack:
    for path in paths:
      stack.enter_context(_tap(model, path, seen))
    yield seen
  for path in paths:
    if path not in seen:
      raise ValueError(f'{path!r} gives no feature: it was not called')
    if not isinstance(seen[path], jax.Array):
      raise ValueError(
        f'{path!r} gives no feature: the module returned '
        f'{type(seen[path]).__name__}, an array is needed'
      )


class _Tap:
  """Stands in for a module, and notes what it returns."""

  def __init__(
    self, module: nnx.Module, path: str, seen: dict[str, jax.Array]
  ) -> None:
    self._module, self._path, self._seen = module, path, seen

  def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    output = self._module(*args, **kwargs)
    self._seen[self._path] = output
    return output

  def __getattr__(self, name: str) -> Any:  # noqa: ANN401
    return getattr(self._module, name)


@contextlib.contextmanager
def _tap(
  model: nnx.Module, path: str, seen: dict[str, jax.Array]
) -> Iterator[None]:
  *parents, name = path.split('/')
  parent = model
  for part in parents:
    child = _child(parent, part, path)
    parent = vars(child)['_module'] if isinstance(child, _Tap) else child
  module = _child(parent, name, path)
  if not callable(module):
    inside = ', '.join(f'{path}/{k}' for k in _modules(module)) or 'nothing'
    raise ValueError(
      f'{path!r} gives no feature: it is not called itself; inside are {inside}'
    )
  # Past nnx's bookkeeping: the network is as it was before anyone looks.
  vars(parent)[name] = _Tap(module, path, seen)
  try:
    yield
  finally:
    vars(parent)[name] = module


def _child(parent: nnx.Module, name: str, path: str) -> nnx.Module | _Tap:
  modules = _modules(parent)
  if name not in modules:
    near = difflib.get_close_matches(name, modules, n=1)
    known = ', '.join(modules) or 'none'
    hint = f'did you mean {near[0]!r}?' if near else f'there are {known}'
    raise ValueError(f'{path!r}: no feature or module {name!r}; {hint}')
  return modules[name]


def _modules(parent: nnx.Module) -> dict[str, nnx.Module | _Tap]:
  """By name, those directly inside one."""
  return {
    k: v for k, v in vars(parent).items() if isinstance(v, (nnx.Module, _Tap))
  }
