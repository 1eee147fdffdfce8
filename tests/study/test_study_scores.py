"""What says how good a student is."""

import math

import numpy as np
import pytest

from kdjax.study import scores
from kdjax.study.scores import ACCURACY, PERPLEXITY


def test_a_split_of_classes_and_one_of_a_text():
  assert ACCURACY.found('dev', 3, 8.0, 4) == {
    'dev_accuracy': 0.75,
    'dev_cross_entropy': 2.0,
  }
  assert PERPLEXITY.found('test', 3, 8.0, 4) == {
    'test_perplexity': math.exp(2.0),
    'test_cross_entropy': 2.0,
  }


@pytest.mark.parametrize('nats', [math.nan, math.inf, 1e6])
def test_a_perplexity_beyond_all_numbers_is_infinite(nats):
  assert PERPLEXITY.of(0, nats, 1) == math.inf


def test_what_is_compared_is_higher_for_the_better():
  good = {'dev_perplexity': 2.0, 'dev_cross_entropy': math.log(2)}
  bad = {'dev_perplexity': 3.0, 'dev_cross_entropy': math.log(3)}
  assert scores.of_metrics(good) is PERPLEXITY
  assert PERPLEXITY.merit(good, 'dev') > PERPLEXITY.merit(bad, 'dev')
  assert scores.of_metrics({'dev_accuracy': 0.5}) is ACCURACY
  assert ACCURACY.merit({'dev_accuracy': 0.5}, 'dev') == 0.5


def test_a_gain_of_a_text_is_what_is_missing_of_the_perplexity():
  gain = math.log(80) - math.log(60)
  assert PERPLEXITY.gain(gain) == pytest.approx(25)
  assert PERPLEXITY.gain(-gain) == pytest.approx(-100 / 3)
  np.testing.assert_allclose(PERPLEXITY.gain(np.array([0.0, gain])), [0, 25])
  assert ACCURACY.gain(0.25) == 25
