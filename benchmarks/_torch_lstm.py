"""The distillation of an LSTM language model as a plain PyTorch loop."""

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class LSTM(nn.Module):
  """The same as `kdjax.models.LSTM` without dropout, from its weights."""

  def __init__(self, network):
    """Takes `embedding`, `layers` of (inputs, recurrent, bias), and `head`."""
    super().__init__()
    self.embedding = nn.Embedding(*network.embedding.shape)
    sizes = [kernel.shape[1] // 4 for _, kernel, _ in network.layers]
    self.lstm = nn.LSTM(sizes[0], sizes[0], len(sizes), batch_first=True)
    self.head = nn.Linear(*network.head[0].shape)
    with torch.no_grad():
      _copy(self.embedding.weight, network.embedding)
      _copy(self.head.weight, network.head[0].T)
      _copy(self.head.bias, network.head[1])
      for i, (inputs, recurrent, bias) in enumerate(network.layers):
        _copy(getattr(self.lstm, f'weight_ih_l{i}'), inputs.T)
        _copy(getattr(self.lstm, f'weight_hh_l{i}'), recurrent.T)
        _copy(getattr(self.lstm, f'bias_ih_l{i}'), bias)
        # PyTorch has a second bias, which adds nothing.
        zeros = getattr(self.lstm, f'bias_hh_l{i}')
        zeros.zero_()
        zeros.requires_grad_(False)

  def forward(self, tokens, carry):
    """Returns the logits, and what is remembered."""
    hidden, carry = self.lstm(self.embedding(tokens), carry)
    return self.head(hidden), carry


def _copy(parameter, array):
  parameter.copy_(torch.tensor(np.array(array)))


class TorchLoop:
  """Trains on contiguous text; the teacher answers in every step."""

  def __init__(self, config, student, teacher, inputs, labels):
    """Takes networks, and batches `[steps, B, T]` of tokens and labels."""
    self.config = config
    self.student, self.teacher = LSTM(student), LSTM(teacher).eval()
    self.inputs = torch.tensor(inputs).long()
    self.labels = torch.tensor(labels).long()
    self.parameters = [p for p in self.student.parameters() if p.requires_grad]
    self.optimizer = torch.optim.SGD(self.parameters, lr=config.learning_rate)

  def step(self, index, carries):
    """Trains on a batch; returns its loss, and what is remembered."""
    c, tokens = self.config, self.inputs[index]
    with torch.no_grad():
      answer, mentor = self.teacher(tokens, carries[1])
      target = functional.log_softmax(answer / c.temperature, -1).flatten(0, 1)
    before = carries[0] and tuple(a.detach() for a in carries[0])
    logits, own = self.student(tokens, before)
    logits = logits.flatten(0, 1)
    divergence = functional.kl_div(
      functional.log_softmax(logits / c.temperature, -1),
      target,
      reduction='batchmean',
      log_target=True,
    )
    nats = functional.cross_entropy(logits, self.labels[index].flatten())
    loss = (1 - c.weight) * nats + c.weight * c.temperature**2 * divergence
    self.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = c.optimizer.clip_norm
    nn.utils.clip_grad_norm_(self.parameters, norm)
    self.optimizer.step()
    return loss.detach(), (own, mentor)

  def measure(self, num_steps):
    """Returns seconds a step over so many of them."""
    carries, total = (None, None), 0.0
    begin = time.perf_counter()
    for index in range(num_steps):
      if index % len(self.inputs) == 0:
        carries = (None, None)
      loss, carries = self.step(index % len(self.inputs), carries)
      total += loss
    float(total)
    return (time.perf_counter() - begin) / num_steps
