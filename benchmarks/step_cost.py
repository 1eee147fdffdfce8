"""What distillation costs beside plain training and the teacher's forward.

  python benchmarks/step_cost.py [--config=experiments/NAME.py ...] [--quick]
    [--batch_size=128]

The KD step (the teacher runs in every step) against the CE step of the same
student, both through `kdjax.train.step.run_steps`: a compiled loop, the data
on the device, with shuffling, fetching and normalising. The teacher's forward
runs alone in a compiled loop on eight batches that are fetched and normalised
already, so that nothing is counted twice. The three take turns; the ratio
KD / (CE + teacher) is formed within each round. Where CIFAR is not prepared,
its images are random ones.
"""

import _synthetic
import _timing
import jax
import jax.numpy as jnp

from kdjax import cli, models

# So many take turns: work on a single batch XLA could move out of the loop.
_BATCHES = 8


def forward_loop(job):
  """Returns a function: seconds a forward of the teacher, over so many."""
  size = job.task.batch_size
  count = min(_BATCHES, len(job.examples.inputs) // size)
  inputs = jax.jit(job.task.normalise)(job.examples.inputs[: count * size])
  batches = inputs.reshape(count, size, *inputs.shape[1:])

  @jax.jit
  def run(total, teacher, batches, num_steps):
    def body(index, total):
      x = jax.lax.dynamic_index_in_dim(batches, index % count, keepdims=False)
      outputs, _ = models.apply(job.task.teacher, *teacher, x, train=False)
      return total + outputs.logits  # every logit is used

    return jax.lax.fori_loop(0, num_steps, body, total)

  head = models.merge(job.task.teacher, *job.teacher).class_weights

  def measure(num_steps):
    total = jnp.zeros((size, len(head)))
    args = total, job.teacher, batches, num_steps
    return _timing.seconds(run, *args) / num_steps

  return measure


def row(path, *, rounds, num_steps, quick, batch_size):
  """Measures one experiment's pair."""
  config, dataset, note = _synthetic.load(path, batch_size=batch_size)
  config.teacher.precompute_logits = False
  mentor = _timing.untrained_teacher(config, dataset)
  undistilled = config.copy_and_resolve_references()
  undistilled.method = 'ce'
  plain = _timing.prepare(undistilled, dataset, None)
  distilled = _timing.prepare(config, dataset, mentor)
  found = _timing.alternate(
    {
      'ce': _timing.training_loop(plain),
      'kd': _timing.training_loop(distilled),
      'teacher': forward_loop(distilled),
    },
    rounds=rounds,
    num_steps=num_steps or _synthetic.steps_of(config, quick=quick),
  )
  ratios = [
    kd / (ce + forward) for ce, kd, forward in zip(*found.values(), strict=True)
  ]
  return [
    path.stem + note,
    str(config.batch_size),
    *(_timing.spread(values, scale=1e6) for values in found.values()),
    _timing.spread(ratios, digits=3),
  ]


def main():
  """Prints the table."""
  parser = _timing.parser(__doc__, default=('digits_kd', 'fashion_mnist_kd'))
  add = parser.add_argument
  add('--steps', type=int, help='steps in one measurement')
  add('--batch_size', type=int, help="in place of the experiment's")
  flags = parser.parse_args()
  rows = [
    row(
      path,
      rounds=flags.rounds or (3 if flags.quick else 21),
      num_steps=flags.steps,
      quick=flags.quick,
      batch_size=flags.batch_size,
    )
    for path in flags.config or flags.defaults
  ]
  header = [
    'experiment',
    'batch',
    'CE step, µs',
    'KD step, µs',
    'teacher forward, µs',
    'KD / (CE + teacher)',
  ]
  print(_timing.table(header, rows))
  print(f'\n{_timing.surroundings()}')


if __name__ == '__main__':
  cli.run(main)
