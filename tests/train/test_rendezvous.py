import pytest

from kdjax.train import rendezvous


def variables(address, **more):
  return rendezvous.read(
    {
      'JAX_COORDINATOR_ADDRESS': address,
      'JAX_NUM_PROCESSES': '2',
      'JAX_PROCESS_ID': '1',
      **more,
    }
  )


@pytest.mark.parametrize(
  ('address', 'bind'),
  [
    ('localhost:80', '127.0.0.1:80'),
    ('127.0.0.1:80', '127.0.0.1:80'),
    ('10.1.2.3:80', '10.1.2.3:80'),
    ('[::1]:80', '[::1]:80'),
    ('node7:80', '[::]:80'),
  ],
)
def test_host_0_listens_no_wider_than_it_has_to(address, bind):
  assert rendezvous.arguments(variables(address)) == {
    'coordinator_address': address,
    'coordinator_bind_address': bind,
    'num_processes': 2,
    'process_id': 1,
    'cluster_detection_method': 'deactivate',
  }


def test_a_given_bind_address_is_kept():
  found = variables('node7:80', JAX_COORDINATOR_BIND_ADDRESS='10.0.0.1:81')
  assert found.bind == ('10.0.0.1', 81)
  with pytest.raises(ValueError, match='BIND_ADDRESS=10 must be host:port'):
    variables('node7:80', JAX_COORDINATOR_BIND_ADDRESS='10')


@pytest.mark.parametrize(
  ('environ', 'expected'),
  [
    ({}, False),
    ({'SLURM_NTASKS': '8'}, False),  # a batch script, not a task of srun
    ({'SLURM_STEP_NUM_TASKS': '1'}, False),
    ({'SLURM_STEP_NUM_TASKS': '2'}, True),
    ({'OMPI_COMM_WORLD_SIZE': '4'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
  ],
)
def test_a_launcher_is_recognised(environ, expected):
  assert rendezvous.read(environ) is None
  assert rendezvous.launched(environ) is expected
