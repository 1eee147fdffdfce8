"""What a training begins with, and where it lies on the devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data, models
from kdjax.train import lesson, networks, sharding, step
from kdjax.train.state import (
  NO_CARRIES,
  Carries,
  Network,
  PyTree,
  Snapshot,
  Weights,
  create,
)


def initial(
  config: ConfigDict,
  dataset: data.Dataset,
  outline: lesson.Outline,
  update: optax.GradientTransformation,
  teacher: Network | None,
) -> Snapshot:
  """Returns what is before the first step.

  Args:
    config: what trains.
    dataset: what it trains on.
    outline: of what the loss compares beside logits.
    update: the optimiser.
    teacher: a network or its shapes, or None for a method without one.

  Returns:
    The snapshot.
  """
  own = Network(*models.split(networks.build(config, dataset)))
  carries = NO_CARRIES
  if networks.reads_in_order(dataset):
    blank = functools.partial(_blank, batch_size=config.batch_size)
    carries = Carries(blank(own), blank(teacher) if teacher else ())
  state = create(
    own.params,
    own.rest,
    update,
    ema_decay=config.ema_decay,
    aids=outline.aids(config.seed),
    carries=carries,
  )
  return Snapshot(state, step.zero_sums(outline.lesson.plan))


def _blank(network: Network, *, batch_size: int) -> PyTree:
  """What a network, or its shapes, remembers before the first row."""
  graphdef, *arrays = network
  begin = functools.partial(
    models.initial_carry, graphdef, batch_size=batch_size
  )
  like = jax.eval_shape(begin, *arrays)
  return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)


def like(config: ConfigDict, shapes: Snapshot, mesh: Mesh) -> Snapshot:
  """Returns shapes and types of a snapshot with the places of its arrays."""
  places = _shardings(config, 'student', shapes, mesh)
  aids = places.state.aids._replace(
    rest=sharding.split_rows(mesh, shapes.state.aids.rest)
  )
  carries = sharding.split_rows(mesh, shapes.state.carries)
  places = places._replace(
    state=dataclasses.replace(places.state, aids=aids, carries=carries)
  )
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
    shapes,
    places,
  )


def _shardings(
  config: ConfigDict, network: str, tree: PyTree, mesh: Mesh
) -> PyTree:
  if network in config.split_networks:
    return sharding.split(mesh, tree)
  return jax.tree.map(lambda _: sharding.replicated(mesh), tree)


def place(
  config: ConfigDict, network: str, weights: Weights, mesh: Mesh
) -> Weights:
  """Returns the weights of 'student' or 'teacher' where they are to lie."""
  move = jax.jit(
    lambda w: w, out_shardings=_shardings(config, network, weights, mesh)
  )
  return move(weights)
