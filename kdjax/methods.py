"""The methods: a literal table from a name to how its loss is built.

A loss takes what the two networks said about one batch and the configuration,
and returns a value per example; `kdjax.train.step` reduces it. Methods that
compare features or relations add terms of `kdjax.terms` to it, with the
published weights in `config.terms`. Adding a method is a function in
`kdjax.losses` or `kdjax.targets` and a row here or there.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax import losses, numerics, targets, targets_sparse
from kdjax.checks import check_known
from kdjax.exchange import Exchange, Settings
from kdjax.terms import TERMS

Loss = Callable[[Exchange, Settings], jax.Array]
Weight = Callable[[Settings], float]
Target = Callable[[Exchange, Settings], jax.Array]
Sparsely = Callable[[jax.Array, jax.Array, Settings], targets_sparse.Sparse]


class Method(NamedTuple):
  """A row of the table.

  Attributes:
    loss: of the logits; maps an exchange and settings to `[B]`, in nats.
    needs_teacher: whether it looks at the teacher.
    label_weight: maps settings to what plain cross-entropy weighs in the loss;
      the rest of it is the teacher's.
    reads: the configuration keys that its loss reads.
    terms: rows of `kdjax.terms.TERMS` that are added to the loss.
    sparse: makes from a key and the teacher's logits `[..., K]` the few numbers
      of them that the loss looks at, or None where it looks at all.
  """

  loss: Loss
  needs_teacher: bool = True
  label_weight: Weight = lambda c: 1.0
  reads: tuple[str, ...] = ()
  terms: tuple[str, ...] = ()
  sparse: Sparsely | None = None


def _left_of_weight(c: Settings) -> float:
  """1-λ, what the teacher's weight leaves to the label."""
  return 1 - c.weight


_KD = ('weight', 'temperature', 'temperature_power')
_SIM = ('similarity_power', 'similarity_temperature')


def _toward(target: Target, *reads: str) -> Method:
  """(1-λ)·CE + λ·Tⁿ·KL(ρ ‖ q̃) for the teacher distribution `target`."""

  def loss(x: Exchange, c: Settings) -> jax.Array:
    return losses.distillation(
      x.student.logits,
      target(x, c),
      x.labels,
      weight=c.weight,
      temperature=c.temperature,
      temperature_power=c.temperature_power,
    )

  return Method(loss, label_weight=_left_of_weight, reads=_KD + reads)


def _toward_few(
  make: Sparsely, divergence: Callable[..., jax.Array], *reads: str
) -> Method:
  """(1-λ)·CE + λ·Tⁿ·KL for a few classes of the teacher."""

  def loss(x: Exchange, c: Settings) -> jax.Array:
    few = x.teacher.features.get('sparse')
    if few is None:
      few = make(x.key, x.teacher.logits, c)
    term = divergence(
      x.student.logits,
      *few,
      temperature=c.temperature,
      temperature_power=c.temperature_power,
    )
    return numerics.times(1 - c.weight, _ce(x, c)) + numerics.times(
      c.weight, term
    )

  return Method(
    loss, label_weight=_left_of_weight, reads=_KD + reads, sparse=make
  )


def _ce(x: Exchange, c: Settings) -> jax.Array:
  return losses.cross_entropy(x.student.logits, x.labels)


def _ls(x: Exchange, c: Settings) -> jax.Array:
  """Label smoothing is T = 1, ρ uniform, λ = ε (up to a constant)."""
  num_classes = x.student.logits.shape[-1]
  smoothed = targets.label_smoothing(
    x.labels, num_classes=num_classes, smoothing=c.smoothing
  )
  return losses.distillation(
    x.student.logits, smoothed, x.labels, weight=1.0, temperature=1.0
  )


def _full(x: Exchange, c: Settings) -> jax.Array:
  return targets.full(x.teacher.logits, temperature=c.temperature)


def _pt(x: Exchange, c: Settings) -> jax.Array:
  return targets.pt(_full(x, c), x.labels)


def _sim(x: Exchange, c: Settings) -> jax.Array:
  return targets.sim(
    x.class_weights,
    x.labels,
    power=c.similarity_power,
    temperature=c.similarity_temperature,
  )


def _pt_sim(x: Exchange, c: Settings) -> jax.Array:
  return targets.pt_sim_mixture(_full(x, c), _sim(x, c), x.labels, mix=c.mix)


def _pt_sim_conditional(x: Exchange, c: Settings) -> jax.Array:
  return targets.pt_sim_conditional(_full(x, c), _sim(x, c), x.labels)


def _topk(x: Exchange, c: Settings) -> jax.Array:
  return targets.topk(_full(x, c), k=c.topk)


def _likeliest(
  key: jax.Array, logits: jax.Array, c: Settings
) -> targets_sparse.Sparse:
  return targets_sparse.sparse_topk(logits, k=c.topk, temperature=c.temperature)


def _drawn(
  key: jax.Array, logits: jax.Array, c: Settings
) -> targets_sparse.Sparse:
  return targets_sparse.sparse_sample(
    key, logits, num_samples=c.num_samples, temperature=c.temperature
  )


def _kd_topk() -> Method:
  """From all classes of the teacher, or from what was kept of them."""
  whole = _toward(_topk, 'topk')
  few = _toward_few(_likeliest, losses.kl_uniform_tail)

  def loss(x: Exchange, c: Settings) -> jax.Array:
    return (few if 'sparse' in x.teacher.features else whole).loss(x, c)

  return whole._replace(loss=loss, sparse=_likeliest)


def _kd_standardised(x: Exchange, c: Settings) -> jax.Array:
  """(1-λ)·CE + λ·KD of z-scored logits."""
  term = losses.kd(
    losses.standardise(x.student.logits),
    losses.standardise(x.teacher.logits),
    temperature=c.temperature,
  )
  return numerics.times(1 - c.weight, _ce(x, c)) + numerics.times(
    c.weight, term
  )


def _dkd(x: Exchange, c: Settings) -> jax.Array:
  """CE + min(epoch / warm-up, 1)·DKD."""
  term = losses.dkd(
    x.student.logits,
    x.teacher.logits,
    x.labels,
    target_weight=c.target_weight,
    nontarget_weight=c.nontarget_weight,
    temperature=c.temperature,
  )
  warmup = c.loss_warmup_epochs
  ramp = jnp.minimum(x.epoch / warmup, 1.0) if warmup else 1.0
  return _ce(x, c) + ramp * term


def _dist(x: Exchange, c: Settings) -> jax.Array:
  """CE + DIST, a relation of the whole batch."""
  return _ce(x, c) + TERMS['dist'].value(x, c, None, [])


def _with(*terms: str) -> Method:
  """CE + the terms, each with its own weight."""
  return Method(_ce, terms=terms)


METHODS = {
  'ce': Method(_ce, needs_teacher=False),
  'ls': Method(
    _ls,
    needs_teacher=False,
    label_weight=lambda c: 1 - c.smoothing,
    reads=('smoothing',),
  ),
  'kd': _toward(_full),
  'kd_pt': _toward(_pt),
  'kd_sim': _toward(_sim, *_SIM),
  'kd_pt_sim': _toward(_pt_sim, *_SIM, 'mix'),
  'kd_pt_sim_conditional': _toward(_pt_sim_conditional, *_SIM),
  'kd_topk': _kd_topk(),  # the rest is spread evenly
  'kd_topk_bucket': _toward_few(_likeliest, losses.kl_bucket_tail, 'topk'),
  'kd_topk_renormalised': _toward_few(
    _likeliest, losses.kl_renormalised, 'topk'
  ),
  'kd_sampled': _toward_few(_drawn, losses.kl_samples, 'num_samples'),
  'kd_standardised': Method(
    _kd_standardised,
    label_weight=_left_of_weight,
    reads=('weight', 'temperature'),
  ),
  'dkd': Method(
    _dkd,
    reads=(
      'target_weight',
      'nontarget_weight',
      'temperature',
      'loss_warmup_epochs',
    ),
  ),
  'dist': Method(_dist, reads=('inter_weight', 'intra_weight', 'temperature')),
  # Features. In brackets the published weight and the pairs it compares.
  'hint': _with('hint'),  # FitNets (100; second stage)
  'at': _with('at'),  # attention transfer (1000; every stage)
  'nst': _with('nst'),  # neuron selectivity transfer (50; every stage)
  'vid': _with('vid'),  # variational information (1; every stage)
  'cosine': _with('cosine'),  # (ours: 1; pooled)
  'l2': _with('l2'),  # (ours: 1; pooled)
  # Relations.
  'rkd': _with('rkd_distance', 'rkd_angle'),  # (25 and 50; pooled)
  'sp': _with('sp'),  # similarity-preserving (3000; last stage)
  'pkt': _with('pkt'),  # probabilistic knowledge transfer (30000; pooled)
  'cc': _with('cc'),  # correlation congruence (0.02; pooled)
  'crd': _with('crd'),  # contrastive representation (0.8; pooled)
  'irg': _with('irg'),  # instance-relationship graph (ours: 1; every stage)
  'attention_relation': _with('attention_relation'),  # (ours: 1; pooled)
}


def get(name: str) -> Method:
  """Returns the row `name` of `METHODS`.

  Args:
    name: a method's name.

  Returns:
    How its loss is built.

  Raises:
    ValueError: no such method; the message names the nearest one.

  >>> get('kd_topk').needs_teacher
  True
  >>> get('kd_top')
  Traceback (most recent call last):
  ...
  ValueError: unknown method 'kd_top'; did you mean 'kd_topk'?
  """
  check_known('method', name, METHODS)
  return METHODS[name]


def terms_of(c: Settings) -> tuple[str, ...]:
  """Returns the rows of `kdjax.terms.TERMS` that a configuration adds up.

  Args:
    c: with `method` and `also`.

  Returns:
    The method's own, then those of `also`.

  Raises:
    ValueError: there is no such method or term, or one is given twice.
  """
  names = (*get(c.method).terms, *c.also)
  for name in names:
    check_known('term in config.also', name, TERMS)
  if len(set(names)) < len(names):
    raise ValueError(
      f'config.also={tuple(c.also)!r} beside the method {c.method!r}: each '
      f'term once, its weight is config.terms.NAME.weight'
    )
  return names


def needs_teacher(c: Settings) -> bool:
  """Returns whether a configuration's loss looks at the teacher."""
  return get(c.method).needs_teacher or bool(terms_of(c))
