"""Records of studies that nobody ran: every number is known or made by lot."""

import itertools

import numpy as np

ARMS = (
  ('ce', {}),
  ('ls', {}),
  ('kd', {}),
  ('kd_pt', {}),
  ('kd_sim', {}),
  ('kd_pt_sim', {}),
  ('kd_pt_sim_conditional', {}),
  ('kd_topk', {'topk': 10}),
)
CORRELATION = 'dataset.options.correlation'
NONLINEARITY = 'dataset.options.nonlinearity'
TEACHER = {'dev_accuracy': 0.625, 'test_accuracy': 0.6125, 'num_params': 54321}


def name(method, fixed):
  return ' '.join([method, *(f'{key}={x}' for key, x in fixed.items())])


def record(method='ce', *, test=0.5, seed=0, fixed=None, **other):
  """A final student; `other` replaces what is not about its accuracy."""
  fixed = {} if fixed is None else fixed
  return {
    'phase': 'final',
    'scenario': {},
    'arm': name(method, fixed),
    'method': method,
    'fixed': fixed,
    'trial': 3,
    'seed': 1000 + seed,
    'settings': {'learning_rate': 0.1},
    'config': {'method': method},
    'teacher': None if method in ('ce', 'ls') else TEACHER,
    'num_params': 9714,
    'metrics': {
      'dev_accuracy': test + 0.01,
      'dev_cross_entropy': 2.1,
      'test_accuracy': test,
      'test_cross_entropy': 2.2,
      'best': {
        'step': 200,
        'dev_accuracy': test + 0.03,
        'test_accuracy': test + 0.02,
      },
      'curve': {'step': [100, 200], 'dev_accuracy': [test / 2, test]},
      'rescaling_factor': None,
    },
    'diverged_at': None,
    'wall_seconds': 0.8,
  } | other


def of_text(student):
  """The same student, of a text: its accuracies become perplexities.

  What had p of the answers right has a perplexity of 10/p.
  """

  def perplexities(metrics):
    found = {}
    for key, value in sorted(metrics.items(), reverse=True):
      split, _, name = key.partition('_')
      if name != 'accuracy':
        found[key] = value
        continue
      values = 10 / np.asarray(value)
      found[f'{split}_perplexity'] = values.tolist()
      found[f'{split}_cross_entropy'] = np.log(values).tolist()
    return found

  metrics = perplexities(student['metrics'])
  for key in ('best', 'curve'):
    metrics[key] = perplexities(metrics[key])
  teacher = student['teacher'] and perplexities(student['teacher'])
  return student | {'metrics': metrics, 'teacher': teacher}


def records(tests, **other):
  """Students of arms without anything fixed, given `{method: accuracies}`."""
  return [
    record(method, test=test, seed=seed, **other)
    for method, accuracies in tests.items()
    for seed, test in enumerate(accuracies)
  ]


def grid(values):
  """All combinations of `{key: values}`, as scenarios."""
  return [
    dict(zip(values, x, strict=True))
    for x in itertools.product(*values.values())
  ]


def study(scenarios, *, arms=ARMS, num_seeds=5, num_evals=2, gain=None):
  """A study that looks like a real one.

  Args:
    scenarios: as of `grid`.
    arms: pairs of a method and what is fixed.
    num_seeds: students of an arm in a scenario.
    num_evals: points of a learning curve.
    gain: gain over CE of an arm in a scenario, given the scenario and its
      place among the arms.
  """
  rng = np.random.default_rng(0)
  students = []
  for task, scenario in enumerate(scenarios):
    luck = 0.005 * rng.normal(size=num_seeds)  # of a seed, shared by arms
    for place, (method, fixed) in enumerate(arms):
      chosen = _settings(method, rng)
      for seed in range(num_seeds):
        true = 0.4 - 0.01 * (task % 5)
        if method != 'ce':
          true += gain(scenario, place) if gain else 0.004 * place
        test = true + luck[seed] + 0.004 * rng.normal()
        student = record(
          method,
          test=round(test, 4),
          seed=seed,
          fixed=fixed,
          scenario=scenario,
          settings=chosen,
        )
        student['metrics'] |= {
          'curve': _curve(test, num_evals, 1 + 0.2 * place, rng),
          'rescaling_factor': _factors(method, place, rng),
        }
        students.append(student)
  return students


def _settings(method, rng):
  settings = {'learning_rate': float(10 ** rng.uniform(-2, -0.5))}
  if method.startswith('kd'):
    settings |= {
      'weight': float(rng.uniform()),
      'temperature': float(2 ** rng.uniform(0, 4)),
    }
  return settings


def _curve(final, num_evals, pace, rng):
  """Rises towards `final`, with noise that falls."""
  done = np.arange(1, num_evals + 1) / num_evals
  accuracy = final * (1 - np.exp(-5 * pace * done))
  accuracy += 0.01 * (1 - done) * rng.normal(size=num_evals)
  return {
    'step': [int(step) for step in np.round(3000 * done)],
    'dev_accuracy': [float(x) for x in np.maximum(accuracy, 0)],
  }


def _factors(method, place, rng):
  """Percentiles, of what has a teacher."""
  if not method.startswith('kd'):
    return None
  median = 1 - 0.05 * place
  at = zip((5, 25, 50, 75, 95), (-0.8, -0.3, 0, 0.25, 0.9), strict=True)
  return {str(q): float(median + x * (1 + 0.1 * rng.normal())) for q, x in at}
