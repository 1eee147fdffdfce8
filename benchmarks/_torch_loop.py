"""The distillation of an MLP as a plain PyTorch loop."""

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def linears(params):
  """Returns (kernel, bias) of each layer, the first first."""
  hidden = params['hidden']
  layers = [hidden[name] for name in sorted(hidden)] + [params['head']]
  return [(np.asarray(x['kernel']), np.asarray(x['bias'])) for x in layers]


class TorchLoop:
  """The training of `job.task.student`, in PyTorch."""

  def __init__(self, config, job):
    """Copies weights and data."""
    self.config = config
    self.student = self._network(job.initial.params)
    self.teacher = self._network(job.teacher.params).eval()
    weights = [p for p in self.student.parameters() if p.ndim > 1]
    biases = [p for p in self.student.parameters() if p.ndim == 1]
    self.optimizer = torch.optim.SGD(
      [
        {'params': weights, 'weight_decay': config.optimizer.weight_decay},
        {'params': biases},
      ],
      lr=config.learning_rate,
      momentum=config.optimizer.momentum,
    )
    inputs = np.asarray(job.task.normalise(job.examples.inputs))
    self.inputs = torch.from_numpy(inputs.reshape(len(inputs), -1).copy())
    self.labels = torch.from_numpy(np.array(job.examples.labels)).long()

  def _network(self, params):
    layers = []
    for kernel, bias in linears(params):
      layer = nn.Linear(*kernel.shape)
      with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.T))
        layer.bias.copy_(torch.tensor(bias))
      layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])

  def step(self, rows):
    """Trains on the examples at `rows`; returns the loss."""
    c = self.config
    inputs, labels = self.inputs[rows], self.labels[rows]
    with torch.no_grad():
      target = functional.log_softmax(self.teacher(inputs) / c.temperature, -1)
    logits = self.student(inputs)
    divergence = functional.kl_div(
      functional.log_softmax(logits / c.temperature, -1),
      target,
      reduction='batchmean',
      log_target=True,
    )
    label_term = functional.cross_entropy(logits, labels)
    power = c.temperature**c.temperature_power
    loss = (1 - c.weight) * label_term + c.weight * power * divergence
    self.optimizer.zero_grad()
    loss.backward()
    self.optimizer.step()
    return loss.detach()

  def measure(self, num_steps):
    """Returns seconds a step over so many."""
    size, total = self.config.batch_size, torch.zeros(())
    begin, done = time.perf_counter(), 0
    while done < num_steps:
      batches = torch.randperm(len(self.labels)).split(size)
      whole = len(self.labels) // size  # the last, partial one is left out
      for rows in batches[: min(whole, num_steps - done)]:
        total += self.step(rows)
        done += 1
    total.item()
    return (time.perf_counter() - begin) / num_steps

  def difference(self, params):
    """Returns the largest one to the parameters of the same Flax network."""
    ours = [x for kernel, bias in linears(params) for x in (kernel.T, bias)]
    theirs = [p.detach().numpy() for p in self.student.parameters()]
    return max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
