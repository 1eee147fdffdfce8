import jax
import pytest

from kdjax.train import sharding


def test_all_devices_are_on_the_data_axis_by_default():
  assert dict(sharding.make_mesh().shape) == {'data': 2, 'model': 1}


def test_the_model_axis_takes_its_devices():
  mesh = sharding.make_mesh(model_devices=2)
  assert dict(mesh.shape) == {'data': 1, 'model': 2}


def test_a_model_axis_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match=r'model_devices=3.*2 devices'):
    sharding.make_mesh(model_devices=3)


def test_a_batch_is_split_over_the_data_axis():
  mesh = sharding.make_mesh()
  batch = jax.device_put(jax.numpy.zeros((6, 3)), sharding.by_example(mesh))
  assert {s.data.shape for s in batch.addressable_shards} == {(3, 3)}


def test_a_batch_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match=r'config\.batch_size=5.*2 devices'):
    sharding.check_divides(5, sharding.make_mesh(), 'batch_size')
