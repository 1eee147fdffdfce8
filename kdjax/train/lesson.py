"""What a loss compares beside logits, and with what help."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from kdjax import methods, models, plans, terms
from kdjax.exchange import Exchange
from kdjax.train.state import NO_AIDS, Network, Weights

# Folded into the seed, so that no aid starts from a key of the student.
_AIDS = 0x414944


@dataclasses.dataclass(frozen=True)
class Lesson:
  """What a loss compares beside logits. Nothing here is an array.

  Attributes:
    plan: its terms.
    aids: graph definition of what is trained beside the student for them.
    student_taps: paths of modules whose outputs are features.
    teacher_taps: likewise.
    teacher_features: names of the teacher's features that are looked at.
    shares: of several teachers in the mean of their losses; () where they
      answer as one.
  """

  plan: plans.Plan = ()
  aids: nnx.GraphDef | None = None
  student_taps: tuple[str, ...] = ()
  teacher_taps: tuple[str, ...] = ()
  teacher_features: tuple[str, ...] = ()
  shares: tuple[float, ...] = ()


NO_LESSON = Lesson()


class Outline:
  """A lesson before the first step."""

  def __init__(
    self,
    config: ConfigDict,
    student: Network,
    teacher: Network | None,
    *,
    input_shape: Sequence[int],
    dtype: jax.typing.DTypeLike = jnp.float32,
    data: terms.DataSet,
  ) -> None:
    """Finds out what is compared.

    Args:
      config: a configuration.
      student: the network, or its shapes.
      teacher: likewise, or None for a method without one.
      input_shape: of one example.
      dtype: of its numbers.
      data: the training set.

    Raises:
      ValueError: features that there are not, or that a term cannot compare.
    """
    self._config, self._data = config, data
    self.lesson, self._features = NO_LESSON, ()
    if teacher is None:
      return
    asked = methods.terms_of(config)
    networks = {'student': student, 'teacher': teacher}
    inputs = jax.ShapeDtypeStruct((2, *input_shape), dtype)
    plain = [_features(n, inputs) for n in networks.values()]
    plan = plans.plan(asked, config, *plain)
    wanted = plans.features(plan)
    taps = [
      tuple(name for name in names if name not in known)
      for names, known in zip(wanted, plain, strict=True)
    ]
    self._features = tuple(
      _features(network, inputs, paths, f'the {name}: ')
      for (name, network), paths in zip(networks.items(), taps, strict=True)
    )
    shares = _shares(teacher, config)
    self.lesson = Lesson(
      plan=plan,
      student_taps=taps[0],
      teacher_taps=taps[1],
      teacher_features=(*wanted[1], *(('members',) if shares else ())),
      shares=shares,
    )
    aids = nnx.eval_shape(functools.partial(self._build, config.seed))
    if any(terms.TERMS[term.name].aid for term in plan):
      graphdef, _, _ = models.split(aids)
      self.lesson = dataclasses.replace(self.lesson, aids=graphdef)
    for term in plan:
      if term.pairs:
        self._try(term, aids)

  def aids(self, seed: int) -> Weights:
    """Returns what is trained beside the student, before the first step."""
    if self.lesson.aids is None:
      return NO_AIDS
    _, params, rest = models.split(self._build(seed))
    return Weights(params, rest)

  def _try(self, term: plans.Planned, aids: nnx.Module) -> None:
    """Raises `ValueError` unless a batch of these features can be compared."""
    config = self._config
    size = config.batch_size // config.accumulate_steps
    graphdef, *arrays = models.split(aids)
    features = tuple(
      {
        name: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype)
        for name, a in known.items()
      }
      for known in self._features
    )

    def value(
      params: models.Tree, rest: models.Tree, student: dict, teacher: dict
    ) -> jax.Array:
      rows = jnp.zeros((size,), jnp.int32)
      exchange = Exchange(
        models.Outputs(rows, student),
        models.Outputs(rows, teacher),
        None,
        labels=rows,
        epoch=jnp.ones(()),
        positions=rows,
        key=jax.random.key(0),
      )
      module = models.merge(graphdef, params, rest)
      return plans.value(term, exchange, config, module)

    try:
      jax.eval_shape(value, *arrays, *features)
    except (TypeError, ValueError) as error:
      shapes = [
        f'{s!r} of the student, {features[0][s].shape}, with {t!r} of the '
        f'teacher, {features[1][t].shape}'
        for s, t in term.pairs
      ]
      reason = str(error).splitlines()[0]
      raise ValueError(
        f'{term.name} cannot compare {"; ".join(shapes)}: {reason}'
      ) from error

  def _build(self, seed: int) -> nnx.Module:
    key = jax.random.fold_in(jax.random.key(seed), _AIDS)
    return plans.build_aids(
      self.lesson.plan,
      self._config,
      *self._features,
      self._data,
      rngs=nnx.Rngs(key),
    )


def _features(
  network: Network,
  inputs: jax.ShapeDtypeStruct,
  taps: tuple[str, ...] = (),
  prefix: str = '',
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a network's features, for a batch of two."""

  def ask(params: models.Tree, rest: models.Tree, inputs: jax.Array) -> dict:
    outputs, _ = models.apply(
      network.graphdef, params, rest, inputs, train=False, taps=taps
    )
    return outputs.features

  try:
    return jax.eval_shape(ask, network.params, network.rest, inputs)
  except ValueError as error:
    raise ValueError(f'{prefix}{error}') from error


def _shares(teacher: Network, config: ConfigDict) -> tuple[float, ...]:
  """Of each of several teachers whose losses are averaged."""
  if config.teacher.average != 'losses':
    return ()
  model = nnx.merge(teacher.graphdef, teacher.params, teacher.rest)
  return model.shares if isinstance(model, models.Ensemble) else ()
