"""A task whose class relations are known exactly (Tang et al., section 5)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from kdjax import checks


class SyntheticClasses(NamedTuple):
  """Examples of the synthetic task, and the classes behind them.

  Attributes:
    inputs: vectors [N, D].
    labels: classes [N] of int32.
    class_embeddings: unit vectors [K, D], a row per class.
    groups: super-class [K] of each class, of int32, in ascending order.
  """

  inputs: Float[Array, 'N D']
  labels: Int[Array, ' N']
  class_embeddings: Float[Array, 'K D']
  groups: Int[Array, ' K']


def class_groups(*, num_classes: int, num_groups: int) -> tuple[int, ...]:
  """The super-class of each class: neighbours share one, sizes are even.

  >>> class_groups(num_classes=5, num_groups=2)
  (0, 0, 0, 1, 1)
  """
  return tuple(k * num_groups // num_classes for k in range(num_classes))


def _check_task(num_inputs: int, num_classes: int, num_groups: int) -> None:
  if num_classes < 2:
    raise ValueError(f'num_classes={num_classes} must be at least 2')
  checks.check_between('num_groups', num_groups, 1, num_classes)
  if num_inputs < num_classes + num_groups:
    raise ValueError(
      f'num_inputs={num_inputs} must be at least num_classes + num_groups ='
      f' {num_classes + num_groups}, to hold that many orthogonal directions'
    )


def _check_nonlinearity(nonlinearity: int) -> None:
  if nonlinearity < 0:
    raise ValueError(f'nonlinearity={nonlinearity} must be at least 0')


def class_embeddings(
  key: Key[Array, ''],
  *,
  num_inputs: int,
  num_classes: int,
  num_groups: int,
  correlation: float,
) -> Float[Array, 'K D']:
  """Unit vectors whose cosine is `correlation` in a group and 0 across.

  `w_k = √r · u_group(k) + √(1−r) · v_k` with all `u` and `v` orthonormal.

  Args:
    key: which orthonormal vectors.
    num_inputs: width D, at least `num_classes + num_groups`.
    num_classes: number of classes, K.
    num_groups: number of super-classes, 1..K.
    correlation: the cosine r, in [0, 1].

  Returns:
    Class embeddings [K, D].

  Raises:
    ValueError: an argument is outside its range.

  Reference: Tang et al. 2020, https://arxiv.org/abs/2002.03532, section 5.
  """
  checks.check_fraction('correlation', correlation)
  _check_task(num_inputs, num_classes, num_groups)
  groups = class_groups(num_classes=num_classes, num_groups=num_groups)
  shape = (num_inputs, num_classes + num_groups)
  noise = jax.random.normal(key, shape, jnp.float32)
  basis = jnp.linalg.qr(noise)[0].T
  shared = basis[num_classes:][jnp.asarray(groups)]
  own = basis[:num_classes]
  return jnp.sqrt(correlation) * shared + jnp.sqrt(1.0 - correlation) * own


def synthetic_classes(
  key: Key[Array, ''],
  *,
  num_examples: int,
  num_inputs: int,
  num_classes: int,
  num_groups: int,
  correlation: float,
  nonlinearity: int,
  amplitude: float = 1.0,
) -> SyntheticClasses:
  """Draws examples of a task with a known correlation between its classes.

  Inputs `x ~ N(0, I)`, projections `u = W x`, and
  `label = argmax_k (u_k + a · Σ_{m=1..M} sin(m · u_k + b_m))`.
  The linear term and the frequencies `a_m = m` are this project's
  reconstruction: without the former, nothing is learnable from 20,000
  examples. The phases `b_m`, uniform in [0, 2π), come from the key.

  Args:
    key: what the task and its examples are drawn from.
    num_examples: number of examples, N.
    num_inputs: width D, at least `num_classes + num_groups`.
    num_classes: number of classes, K.
    num_groups: number of super-classes, 1..K.
    correlation: the cosine r of two classes of one group, in [0, 1].
    nonlinearity: number M of sine terms, at least 0; 0 is a linear task, and
      with `amplitude` up to 1 so is 1: `u + a · sin(u + b)` never falls.
    amplitude: a of the sine terms, at least 0; not in the paper.

  Returns:
    Inputs, labels, class embeddings and super-classes. Two calls that differ
    in `num_examples` alone draw from the same task.

  Raises:
    ValueError: an argument is outside its range.

  Reference: Tang et al. 2020, https://arxiv.org/abs/2002.03532, section 5.

  >>> task = synthetic_classes(
  ...   jax.random.key(0),
  ...   num_examples=8,
  ...   num_inputs=6,
  ...   num_classes=4,
  ...   num_groups=2,
  ...   correlation=0.5,
  ...   nonlinearity=1,
  ... )
  >>> task.inputs.shape, task.labels.shape, task.groups.tolist()
  ((8, 6), (8,), [0, 0, 1, 1])
  """
  checks.check_positive('num_examples', num_examples)
  _check_nonlinearity(nonlinearity)
  checks.check_not_negative('amplitude', amplitude)
  task_key, phase_key, input_key = jax.random.split(key, 3)
  embeddings = class_embeddings(
    task_key,
    num_inputs=num_inputs,
    num_classes=num_classes,
    num_groups=num_groups,
    correlation=correlation,
  )
  shape = (num_examples, num_inputs)
  inputs = jax.random.normal(input_key, shape, jnp.float32)
  scores = projections = inputs @ embeddings.T
  phases = jax.random.uniform(phase_key, (nonlinearity,), jnp.float32)
  for m in range(nonlinearity):
    phase = 2 * jnp.pi * phases[m]
    scores += amplitude * jnp.sin((m + 1) * projections + phase)
  groups = class_groups(num_classes=num_classes, num_groups=num_groups)
  return SyntheticClasses(
    inputs=inputs,
    labels=jnp.argmax(scores, axis=-1).astype(jnp.int32),
    class_embeddings=embeddings,
    groups=jnp.asarray(groups, jnp.int32),
  )


@dataclasses.dataclass(frozen=True)
class Options:
  """Which synthetic data set; the defaults are the prototype.

  Attributes:
    num_examples: training examples, dev included.
    num_test_examples: test examples.
    num_inputs: see `synthetic_classes`, as for the next four.
    num_classes: number of classes.
    num_groups: number of super-classes.
    correlation: cosine of two classes of one group.
    nonlinearity: number of sine terms.
    amplitude: of the sine terms.
    seed: of the task and of its examples.
  """

  num_examples: int = 5000
  num_test_examples: int = 5000
  num_inputs: int = 100
  num_classes: int = 50
  num_groups: int = 10
  correlation: float = 0.5
  nonlinearity: int = 1
  amplitude: float = 1.0
  seed: int = 0

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and (
        isinstance(value, bool) or not isinstance(value, int)
      ):
        raise TypeError(f'{field.name}={value!r} must be a whole number')
    for name in ('num_examples', 'num_test_examples'):
      checks.check_between(name, getattr(self, name), 2, 10**9)
    checks.check_between('seed', self.seed, 0, 2**32 - 1)
    checks.check_fraction('correlation', self.correlation)
    _check_task(self.num_inputs, self.num_classes, self.num_groups)
    _check_nonlinearity(self.nonlinearity)
    checks.check_not_negative('amplitude', self.amplitude)

  def folder(self) -> str:
    """A name that differs wherever an option does.

    >>> Options(correlation=0.9).folder()
    'n5000_t5000_d100_k50_c10_r0.9_m1_s0'
    """
    # The name of what was there before there were amplitudes stays.
    is_whole = self.amplitude == 1
    amplitude = '' if is_whole else f'_a{float(self.amplitude)!r}'
    return (
      f'n{self.num_examples}_t{self.num_test_examples}_d{self.num_inputs}'
      f'_k{self.num_classes}_c{self.num_groups}_r{float(self.correlation)!r}'
      f'_m{self.nonlinearity}{amplitude}_s{self.seed}'
    )

  def groups(self) -> tuple[int, ...]:
    """The super-class of each class."""
    return class_groups(
      num_classes=self.num_classes, num_groups=self.num_groups
    )


def draw(options: Options) -> tuple[jax.Array, jax.Array]:
  """Inputs [N, D] and labels [N] of the training, then the test examples."""
  task = synthetic_classes(
    jax.random.key(options.seed, impl='threefry2x32'),
    num_examples=options.num_examples + options.num_test_examples,
    num_inputs=options.num_inputs,
    num_classes=options.num_classes,
    num_groups=options.num_groups,
    correlation=options.correlation,
    nonlinearity=options.nonlinearity,
    amplitude=options.amplitude,
  )
  return task.inputs, task.labels
