"""What a model costs, from its shapes alone."""

import math
from unittest import mock

import jax
import jax.numpy as jnp

from kdjax import models


def sizes(name, *, input_shape, num_classes, **options):
  """Returns parameters, multiply-accumulates of an example, and outputs."""

  def build_and_run(inputs):
    model = models.build(
      name,
      input_shape=input_shape,
      num_classes=num_classes,
      seed=0,
      **options,
    )
    graphdef, params, rest = models.split(model)
    outputs, _ = models.apply(graphdef, params, rest, inputs, train=False)
    return params, outputs

  dtype = jnp.int32 if models.reads_tokens(name) else jnp.float32
  inputs = jax.ShapeDtypeStruct((1, *input_shape), dtype)
  trace = jax.make_jaxpr(build_and_run, return_shape=True)
  # For a CPU some convolutions are written with more than their own products.
  with mock.patch.object(jax, 'default_backend', return_value='gpu'):
    jaxpr, (params, outputs) = trace(inputs)
  return models.num_params(params), _macs(jaxpr.jaxpr), outputs


def _macs(jaxpr):
  """Multiply-accumulates of a jaxpr's convolutions and matrix products."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'conv_general_dilated':
      kernel = equation.invars[1].aval.shape
      total += equation.outvars[0].aval.size * math.prod(kernel[:-1])
    elif equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      total += equation.outvars[0].aval.size * math.prod(
        shape[axis] for axis in contracted
      )
    for value in equation.params.values():
      if hasattr(value, 'jaxpr'):
        # A scan does as often what it holds; nothing else has a length.
        total += equation.params.get('length', 1) * _macs(value.jaxpr)
  return total
