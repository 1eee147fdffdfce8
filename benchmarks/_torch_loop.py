"""The distillation of an MLP or a CIFAR ResNet as a plain PyTorch loop."""

import time

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

# By the last part of a Flax parameter's path, the same in PyTorch.
_NAMES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
# Of a kernel by its rank: from (inputs, outputs) and from HWIO.
_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}


def state_dict(tree):
  """Returns Flax parameters or statistics by their names in PyTorch."""
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    *scope, last = (part.key for part in path)
    array = np.asarray(leaf)
    array = array.transpose(_AXES[array.ndim]) if array.ndim > 1 else array
    found['.'.join([*scope, _NAMES[last]])] = torch.tensor(array.copy())
  return found


class MLP(nn.Module):
  """The same as `kdjax.models.MLP`, without dropout."""

  def __init__(self, params):
    """Takes its widths from Flax parameters."""
    super().__init__()
    hidden = sorted(params['hidden'].items())
    self.hidden = nn.ModuleDict({name: _linear(p) for name, p in hidden})
    self.head = _linear(params['head'])

  def forward(self, x):
    """Returns the logits."""
    x = x.flatten(1)
    for layer in self.hidden.values():
      x = functional.relu(layer(x))
    return self.head(x)


class Block(nn.Module):
  """The same as `kdjax.models.residual.BasicBlock`."""

  def __init__(self, params, stride):
    """Takes its widths from Flax parameters."""
    super().__init__()
    self.conv1, self.norm1 = _conv_norm(params['conv1'], stride)
    self.conv2, self.norm2 = _conv_norm(params['conv2'], 1)
    self.projects = 'shortcut' in params
    if self.projects:
      pair = _conv_norm(params['shortcut'], stride)
      self.shortcut, self.shortcut_norm = pair

  def forward(self, x):
    """Returns the block's map."""
    y = functional.relu(self.norm1(self.conv1(x)))
    y = self.norm2(self.conv2(y))
    if self.projects:
      x = self.shortcut_norm(self.shortcut(x))
    return functional.relu(x + y)


class ResNet(nn.Module):
  """The same as `kdjax.models.ResNet`."""

  def __init__(self, params):
    """Takes its widths from Flax parameters."""
    super().__init__()
    self.stem, self.stem_norm = _conv_norm(params['stem'], 1)
    for name, stride in [('stage1', 1), ('stage2', 2), ('stage3', 2)]:
      blocks = nn.ModuleDict()
      for i in range(1, len(params[name]) + 1):
        key = f'block{i}'
        blocks[key] = Block(params[name][key], stride if i == 1 else 1)
      setattr(self, name, blocks)
    self.head = _linear(params['head'])

  def forward(self, x):
    """Returns the logits."""
    x = functional.relu(self.stem_norm(self.stem(x)))
    for stage in (self.stage1, self.stage2, self.stage3):
      for block in stage.values():
        x = block(x)
    return self.head(x.mean((2, 3)))


def _linear(params):
  return nn.Linear(*params['kernel'].shape)


def _conv_norm(params, stride):
  size, _, *channels = params['kernel'].shape
  pad = (size - 1) // 2
  conv = nn.Conv2d(*channels, size, stride, pad, bias=False)
  return conv, nn.BatchNorm2d(channels[1])


class TorchLoop:
  """The training of `job.task.student`, in PyTorch."""

  def __init__(self, config, job, layout=torch.contiguous_format):
    """Copies weights and data, images in this layout.

    The teacher answers in every step, unless the examples have its logits.
    """
    self.layout, self._initial = layout, job.initial
    self.teacher = self._network(job.teacher).eval()
    self.restart(config)
    inputs = np.asarray(job.task.normalise(job.examples.inputs))
    if inputs.ndim == 4:
      inputs = inputs.transpose(0, 3, 1, 2)
    self.inputs = self._place(torch.tensor(inputs.copy()))
    self.labels = torch.from_numpy(np.array(job.examples.labels)).long()
    said = job.examples.teacher
    self.logits = None if said is None else torch.tensor(np.array(said.logits))

  def restart(self, config):
    """Begins anew from the same weights, with what `config` says."""
    self.config = config
    self.student = self._network(self._initial)
    weights = [p for p in self.student.parameters() if p.ndim > 1]
    others = [p for p in self.student.parameters() if p.ndim == 1]
    self.optimizer = torch.optim.SGD(
      [
        {'params': weights, 'weight_decay': config.optimizer.weight_decay},
        {'params': others},
      ],
      lr=config.learning_rate,
      momentum=config.optimizer.momentum,
    )

  def _network(self, weights):
    kind = MLP if 'hidden' in weights.params else ResNet
    network = kind(weights.params)
    values = state_dict(weights.params) | state_dict(weights.rest)
    missing, unexpected = network.load_state_dict(values, strict=False)
    if unexpected or any('num_batches' not in name for name in missing):
      raise ValueError(f'other weights: {missing}, {unexpected}')
    return network.to(memory_format=self.layout)

  def _place(self, inputs):
    if inputs.ndim != 4:
      return inputs
    return inputs.contiguous(memory_format=self.layout)

  def _ask(self, inputs, rows):
    return self.teacher(inputs) if self.logits is None else self.logits[rows]

  def step(self, rows):
    """Trains on the examples at `rows`; returns the loss."""
    c = self.config
    inputs, labels = self._place(self.inputs[rows]), self.labels[rows]
    with torch.no_grad():
      answer = self._ask(inputs, rows)
      target = functional.log_softmax(answer / c.temperature, -1)
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

  def in_turn(self, configs):
    """Returns a function: seconds a step, over so many of each in turn."""

    def measure(num_steps):
      seconds = 0.0
      for config in configs:
        self.restart(config)
        self.measure(1)  # makes what is there from the first step on
        seconds += self.measure(num_steps)
      return seconds / len(configs)

    return measure

  def difference(self, params):
    """Returns the largest one to the parameters of the same Flax network."""
    ours = state_dict(params)
    gaps = [
      (ours[name] - parameter.detach()).abs().max().item()
      for name, parameter in self.student.named_parameters()
    ]
    return max(gaps)


def variants(config, job):
  """Returns loops by name: the usual one, and one that is faster.

  Args:
    config: of the training.
    job: what `_timing.prepare` returns.

  Returns:
    The teacher answers in every step of the first. The second has its logits
    where the job has them, else another layout.
  """
  always = job._replace(examples=job.examples._replace(teacher=None))
  usual = 'PyTorch, teacher in every step'
  loops = {usual: TorchLoop(config, always)}
  if job.examples.teacher is not None:
    loops["PyTorch, teacher's logits from before"] = TorchLoop(config, job)
  else:
    loop = TorchLoop(config, always, torch.channels_last)
    loops[f'{usual}, channels last'] = loop
  return loops
