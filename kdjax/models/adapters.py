"""What is trained beside the student, and is no part of it.

Every adapter works on the last axis, so that it takes maps `[B, H, W, C]` and
embeddings `[B, D]` alike. Parameters and results are float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax import numerics
from kdjax.checks import Array
from kdjax.models.layers import Norm

_BLOCK = 256
_Feature = Float[jax.Array, 'B *space C']
_Regressed = Float[jax.Array, 'B *space D']


class Identity(nnx.Module):
  """Leaves a feature as it is; its width has to fit already."""

  def __init__(
    self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs
  ) -> None:
    del rngs
    if num_inputs != num_outputs:
      raise ValueError(
        f'the student has {num_inputs} channels there, the teacher '
        f'{num_outputs}: they need a projector'
      )

  def __call__(self, feature: _Feature) -> _Feature:
    """Returns it."""
    return feature


class Projector(nnx.Module):
  """A 1×1 convolution, batch norm and ReLU: the regressor of FitNets.

  Args:
    num_inputs: channels of the student.
    num_outputs: channels of the teacher.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs
  ) -> None:
    self.linear = _linear(num_inputs, num_outputs, rngs)
    self.norm = Norm(num_outputs, rngs=rngs)

  def __call__(self, feature: _Feature) -> _Regressed:
    """Returns the feature in the teacher's channels; moves the averages."""
    return nnx.relu(self.norm(self.linear(feature), train=True))


class Linear(nnx.Module):
  """A linear map; on maps, a 1×1 convolution."""

  def __init__(
    self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs
  ) -> None:
    self.linear = _linear(num_inputs, num_outputs, rngs)

  def __call__(self, feature: _Feature) -> _Regressed:
    """Returns the feature in the teacher's width."""
    return self.linear(feature)


class MLP(nnx.Module):
  """Two linear maps with a ReLU between them, as wide as the teacher."""

  def __init__(
    self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs
  ) -> None:
    self.first = _linear(num_inputs, num_outputs, rngs)
    self.second = _linear(num_outputs, num_outputs, rngs)

  def __call__(self, feature: _Feature) -> _Regressed:
    """Returns the feature in the teacher's width."""
    return self.second(nnx.relu(self.first(feature)))


PROJECTORS = {
  'identity': Identity,
  'conv': Projector,
  'linear': Linear,
  'mlp': MLP,
}


class Gaussian(nnx.Module):
  """VID's guess of the teacher's feature: a mean, and a variance a channel.

  The mean is three 1×1 convolutions with ReLU between them; the variance is
  `softplus(a) + 1e-5`, with `a` trained and the variance 5 at first.

  Reference: Ahn et al. 2019, Variational Information Distillation.

  Args:
    num_inputs: channels of the student.
    num_outputs: channels of the teacher.
    rngs: where the initial parameters come from.
  """

  _LEAST, _FIRST = 1e-5, 5.0

  def __init__(
    self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs
  ) -> None:
    self.first = _linear(num_inputs, num_outputs, rngs)
    self.second = _linear(num_outputs, num_outputs, rngs)
    self.third = _linear(num_outputs, num_outputs, rngs)
    raw = jnp.log(jnp.expm1(self._FIRST - self._LEAST))
    self.raw_variance = nnx.Param(jnp.full((num_outputs,), raw))

  def __call__(
    self, feature: _Feature
  ) -> tuple[_Regressed, Float[jax.Array, ' D']]:
    """Returns the mean and the variances."""
    hidden = nnx.relu(self.second(nnx.relu(self.first(feature))))
    variance = jax.nn.softplus(self.raw_variance[...]) + self._LEAST
    return self.third(hidden), variance


class Embedding(nnx.Module):
  """Linear maps of both features into one space, `[B, dim]`.

  Args:
    num_inputs: width of the student's feature, flattened.
    num_outputs: width of the teacher's.
    dim: of the common space.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self, num_inputs: int, num_outputs: int, *, dim: int, rngs: nnx.Rngs
  ) -> None:
    self.student = _linear(num_inputs, dim, rngs)
    self.teacher = _linear(num_outputs, dim, rngs)

  def __call__(
    self, student: Float[jax.Array, 'B C'], teacher: Float[jax.Array, 'B D']
  ) -> tuple[Float[jax.Array, 'B E'], Float[jax.Array, 'B E']]:
    """Returns both in the common space."""
    return self.student(student), self.teacher(teacher)


class Memory(nnx.Variable):
  """What a loss remembers of the data set: no parameter."""


class Bank(nnx.Module):
  """CRD's memory: an embedding of every training example, for each network.

  Attributes:
    student: `[N', dim]`, unit vectors once they have been seen; N' is N rounded
      up to whole blocks.
    teacher: `[N', dim]`, likewise.
    log_partition: `[2]`, log Z of the student's side and of the teacher's.
    has_partition: scalar, 0 until the first batch has set it, then 1.
    order: `[N]`, examples sorted by their class.
    starts: `[K + 1]`, where each class begins in `order`.

  Args:
    order: `[N]`, as above.
    starts: `[K + 1]`, as above.
    dim: of the common space.
    rngs: where the first embeddings come from, uniform in ±√(3 / dim).
  """

  def __init__(
    self, order: Array, starts: Array, *, dim: int, rngs: nnx.Rngs
  ) -> None:
    # Whole blocks of rows are shared evenly by any usual number of devices.
    shape = -(-len(order) // _BLOCK) * _BLOCK, dim
    bound = (3 / dim) ** 0.5

    def rows() -> Memory:
      return Memory(
        jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
      )

    self.student, self.teacher = rows(), rows()
    self.log_partition = Memory(jnp.zeros((2,)))
    self.has_partition = Memory(jnp.zeros((), jnp.int32))
    self.order = Memory(jnp.asarray(order, jnp.int32))
    self.starts = Memory(jnp.asarray(starts, jnp.int32))


class Contrast(nnx.Module):
  """CRD's linear maps to unit vectors, and its memory."""

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    *,
    dim: int,
    order: Array,
    starts: Array,
    rngs: nnx.Rngs,
  ) -> None:
    self.maps = Embedding(num_inputs, num_outputs, dim=dim, rngs=rngs)
    self.bank = Bank(order, starts, dim=dim, rngs=rngs)

  def __call__(
    self, student: Float[jax.Array, 'B C'], teacher: Float[jax.Array, 'B D']
  ) -> tuple[Float[jax.Array, 'B E'], Float[jax.Array, 'B E']]:
    """Returns both as unit vectors in the common space."""
    student, teacher = self.maps(student, teacher)
    return numerics.unit_rows(student), numerics.unit_rows(teacher)


def _linear(num_inputs: int, num_outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
  """In float32, whatever the features are in."""
  return nnx.Linear(num_inputs, num_outputs, dtype=jnp.float32, rngs=rngs)
