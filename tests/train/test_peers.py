"""Three hosts in one process, which collect what they would say and exit."""

import queue
import socket
import time

import pytest

from kdjax.train import peers

SOON = 10  # seconds; nothing takes so long unless it is broken


@pytest.fixture
def hosts(monkeypatch):
  """`hosts(silence)` gives three joined ones and what each was told."""
  monkeypatch.setattr(peers, '_GRACE_SECONDS', 0.0)
  monkeypatch.setattr(peers, '_LINGER_SECONDS', 0.2)
  made = []

  def join(silence=SOON):
    heard = [queue.Queue() for _ in range(3)]
    for index, told in enumerate(heard):
      made.append(
        peers.Peers(index=index, count=3, silence_seconds=silence, end=told.put)
      )
    port, secret = made[0].listen('127.0.0.1')
    for worker in made[1:]:
      worker.join('127.0.0.1', port, secret, made[0].name)
    while len(made[0]._links) < 2:
      time.sleep(0.01)
    return made, heard

  yield join
  for host in made:
    host.close()


def cut(host):
  """What the system does to a dead process's connections."""
  for link in host._links:
    link.hang_up()


def nothing_heard(heard):
  time.sleep(0.3)
  return all(told.empty() for told in heard)


def test_a_dead_host_is_named_to_all_others(hosts):
  (_, one, _), heard = hosts()
  one._leaving.set()
  one._closed.set()
  cut(one)
  for told in (heard[0], heard[2]):
    assert told.get(timeout=SOON) == (
      f'{one.name} does not answer: it closed the connection without a word'
    )


def test_a_dead_host_0_is_named(hosts):
  (zero, *_), heard = hosts()
  zero._closed.set()
  cut(zero)
  for told in heard[1:]:
    assert told.get(timeout=SOON).startswith('host 0 of 3 (')


def test_a_silent_host_is_named(hosts):
  (_, one, _), heard = hosts(silence=0.6)
  one._closed.set()  # no beats, the connection stays
  assert heard[0].get(timeout=SOON) == (
    f'{one.name} does not answer: it says nothing for 0.6 seconds'
  )
  assert heard[2].get(timeout=SOON).startswith(one.name)


def test_beats_keep_a_connection(hosts):
  _, heard = hosts(silence=0.4)
  time.sleep(1)
  assert nothing_heard(heard)


def test_a_farewell_reaches_all_in_one_line(hosts):
  (_, _, two), heard = hosts()
  two.announce('disk\nfull')
  for told in heard[:2]:
    assert told.get(timeout=SOON) == f'{two.name} ended: disk full'
  assert heard[2].empty()


def test_a_goodbye_ends_nobody(hosts):
  made, heard = hosts()
  for host in made:
    host.close()
  assert nothing_heard(heard)


def test_a_stranger_is_sent_away(hosts):
  (zero, *_), heard = hosts()
  address = zero._listener.getsockname()
  for greeting in (b'', b'wrong host 1 of 3\n', b'\xff\xfe\n'):
    with socket.create_connection(address, SOON) as stranger:
      stranger.sendall(greeting)
      stranger.shutdown(socket.SHUT_WR)
      assert stranger.recv(1) == b''
  assert len(zero._links) == 2
  assert nothing_heard(heard)


def test_host_0_out_of_reach_is_named():
  worker = peers.Peers(index=1, count=2, silence_seconds=SOON)
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  with pytest.raises(OSError, match=f'host 0 is not .* port {port}: '):
    worker.join('127.0.0.1', port, 'secret', 'host 0')
