"""Optimisers and learning-rate schedules, all from optax."""

import jax
import optax
from ml_collections import ConfigDict


def schedule(config: ConfigDict, *, steps_per_epoch: int) -> optax.Schedule:
  """Returns the learning rate as a function of the step.

  `warm-up(step) · base(step)`, with base constant, piecewise constant (its
  boundaries in epochs), or a cosine to zero at the last step.

  Args:
    config: with `learning_rate`, `num_epochs` and `schedule`.
    steps_per_epoch: steps in a pass over the training set.

  Returns:
    A schedule.

  Raises:
    ValueError: the warm-up is longer than the run.
  """
  c = config.schedule
  num_steps = config.num_epochs * steps_per_epoch
  if c.warmup_steps > num_steps:
    raise ValueError(
      f'config.schedule.warmup_steps={c.warmup_steps}: the run has only '
      f'{num_steps} steps'
    )
  base = {
    'constant': lambda: optax.constant_schedule(config.learning_rate),
    'step': lambda: optax.piecewise_constant_schedule(
      config.learning_rate,
      {
        int(epoch * steps_per_epoch): c.decay_factor for epoch in c.decay_epochs
      },
    ),
    'cosine': lambda: optax.cosine_decay_schedule(
      config.learning_rate, num_steps
    ),
  }[c.name]()
  if not c.warmup_steps:
    return base
  warmup = optax.linear_schedule(0.0, 1.0, c.warmup_steps)
  return lambda step: warmup(step) * base(step)


def make(
  config: ConfigDict, *, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Returns the optimiser: clip, decay, then SGD with momentum or AdamW.

  Weight decay is L2 added to the gradient for SGD, decoupled for AdamW, and
  spares vectors: biases and the scales of norms.

  Args:
    config: with `optimizer` and what `schedule` needs.
    steps_per_epoch: steps in a pass over the training set.

  Returns:
    An optax transformation.
  """
  c = config.optimizer
  rate = schedule(config, steps_per_epoch=steps_per_epoch)
  parts = []
  if c.clip_norm:
    parts.append(optax.clip_by_global_norm(c.clip_norm))
  if c.name == 'sgd':
    parts.append(optax.add_decayed_weights(c.weight_decay, _is_kernel))
    momentum = c.momentum or None
    parts.append(optax.sgd(rate, momentum=momentum, nesterov=c.nesterov))
  else:
    parts.append(
      optax.adamw(rate, weight_decay=c.weight_decay, mask=_is_kernel)
    )
  return optax.chain(*parts)


def _is_kernel(params: optax.Params) -> optax.Params:
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
