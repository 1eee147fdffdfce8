"""How a population is carried out, and what is told of it."""

import dataclasses

import jax
import numpy as np
import pytest
from students import SEEDS, assert_same, changed, states

from kdjax import analysis
from kdjax.study.config import override
from kdjax.train import experiment, loop, progress, sharding
from kdjax.train.interrupts import Interrupts
from kdjax.train.session import Session
from kdjax.train.watchdog import Watchdog


@pytest.mark.parametrize('most', [0, 2])
def test_chunks_do_not_matter_nor_what_fills_the_last(
  most, trainer, where, family_trials, family
):
  """Of seven settings: a place of eight, or of the last two, is left."""
  asked = changed(where, {'study.max_settings': most})
  found = trainer.students(asked, family_trials[1:], SEEDS)
  assert len(found) == 14
  kept = {key: student for key, student in family.items() if key in found}
  assert_same(states(found), states(kept))
  for key, student in found.items():
    assert student.outcome.trial.overrides['method'] == key[0]
    assert student.accuracies == pytest.approx(kept[key].accuracies)


def test_the_order_of_settings_and_seeds_does_not_matter(
  trainer, where, family_trials, family
):
  found = trainer.students(where, family_trials[::-1], SEEDS[::-1])
  assert_same(states(found), {key: family[key].state for key in found})


def test_outcomes_come_trial_by_trial_and_the_progress_is_whole(
  trainer, where, family_trials, monkeypatch
):
  monkeypatch.setattr(trainer, 'reports', True)  # it would, if it were asked
  told = []
  (outcomes,) = trainer.train(
    where, family_trials[1:], SEEDS, report=False, progress=told.append
  )
  assert [(o.trial, o.seed) for o in outcomes] == [
    (trial, seed) for trial in family_trials[1:] for seed in SEEDS
  ]
  assert sum(told) == pytest.approx(14)
  for outcome in outcomes:
    assert outcome.metrics.keys() == {'dev_accuracy', 'dev_cross_entropy'}
    assert outcome.num_params == 6 * 7 + 7 + 7 * 5 + 5
    assert outcome.wall_seconds >= 0
    assert outcome.diverged_at is None


def test_what_is_reported(
  trainer, where, family_trials, vectors, config, monkeypatch
):
  monkeypatch.setattr(trainer, 'reports', True)
  students = trainer.students(where, family_trials, SEEDS)
  dev = vectors.dataset.dev
  for (name, index, _), student in students.items():
    metrics = student.outcome.metrics
    assert metrics['test_accuracy'] == student.accuracies[1]
    curve, best = metrics['curve'], metrics['best']
    assert curve['step'] == [10, 20, 30]
    assert curve['dev_accuracy'][-1] == metrics['dev_accuracy']
    assert best['dev_accuracy'] == max(curve['dev_accuracy'])
    latest = max(
      at
      for at, accuracy in zip(*curve.values(), strict=True)
      if accuracy == best['dev_accuracy']
    )
    assert best['step'] == latest
    if latest == 30:
      assert best['test_accuracy'] == metrics['test_accuracy']
    factors = metrics['rescaling_factor']
    assert list(factors) == ['5', '25', '50', '75', '95']
    if name == 'ce':
      assert list(factors.values()) == pytest.approx([1] * 5, rel=1e-4)
    if name == 'kd':
      own = override(config, family_trials[index].overrides)
      wanted = analysis.rescaling_factor(
        vectors.logits(config, student.state.evaluated, dev),
        where.dev_logits,
        dev.labels,
        weight=own.weight,
        temperature=own.temperature,
      )
      assert list(factors.values()) == pytest.approx(
        np.percentile(wanted, [5, 25, 50, 75, 95]), rel=1e-3
      )
  # Else the last weights were always the best, and nothing was shown.
  assert len({s.outcome.metrics['best']['step'] for s in students.values()}) > 1


def test_the_best_is_that_of_a_whole_run(
  trainer, where, family_trials, vectors, config, mesh, tmp_path, monkeypatch
):
  monkeypatch.setattr(trainer, 'reports', True)
  students = trainer.students(where, family_trials, SEEDS)
  key, student = next(
    (key, student)
    for key, student in students.items()
    if student.outcome.metrics['best']['step'] < 30
  )
  (trial,) = (t for t in family_trials if t.arm.name == key[0])
  own = override(config, {**trial.overrides, 'seed': key[-1]})
  own.analysis = False
  fitted = loop.fit(
    own,
    dataclasses.replace(
      vectors.dataset, train=experiment.transfer_set(own, vectors.dataset)
    ),
    teacher=vectors.teacher,
    name='student',
    directory=tmp_path,
    session=Session(
      sharding.make_mesh(devices=jax.devices()[:1]),
      progress.Reporter(quiet=True),
      Interrupts(),
      Watchdog(0),
    ),
  )
  dev, test = vectors.accuracies(own, fitted.best[1:])
  wanted = {
    'step': fitted.best_step,
    'dev_accuracy': dev,
    'test_accuracy': test,
  }
  assert student.outcome.metrics['best'] == pytest.approx(wanted)


def test_data_that_do_not_fit_are_refused(trainer, where, family_trials):
  asked = changed(where, {'dataset.num_labels': 101})
  with pytest.raises(ValueError, match='num_labels=101'):
    list(
      trainer.train(
        asked, family_trials, SEEDS, report=False, progress=lambda done: None
      )
    )
