"""The synthetic task, drawn once and kept as records."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import tensorflow_datasets as tfds

from kdjax.data import synthetic


@dataclasses.dataclass
class SyntheticConfig(tfds.core.BuilderConfig):
  """Which task: TFDS keeps the records of each in a folder of its own."""

  options: synthetic.Options | None = None


def config(options: synthetic.Options) -> SyntheticConfig:
  """The configuration whose name encodes the options."""
  return SyntheticConfig(name=options.folder(), options=options)


class SyntheticClasses(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Vectors whose classes have a known correlation."""

  config = staticmethod(config)
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    options = self.builder_config.options
    vector = tfds.features.Tensor(shape=(options.num_inputs,), dtype=np.float32)
    label = tfds.features.ClassLabel(num_classes=options.num_classes)
    return tfds.core.DatasetInfo(
      builder=self,
      description='A task whose class correlation is set, not measured.',
      features=tfds.features.FeaturesDict({'input': vector, 'label': label}),
      supervised_keys=('input', 'label'),
      homepage='https://arxiv.org/abs/2002.03532',
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    del dl_manager  # Nothing to download.
    options = self.builder_config.options
    # On the CPU everywhere, so that an accelerator's rounding moves no label.
    with jax.default_device(jax.devices('cpu')[0]):
      inputs, labels = map(np.asarray, synthetic.draw(options))
    cut = options.num_examples
    return {
      'train': self._generate_examples(inputs[:cut], labels[:cut]),
      'test': self._generate_examples(inputs[cut:], labels[cut:]),
    }

  def _generate_examples(
    self, inputs: np.ndarray, labels: np.ndarray
  ) -> Iterator[tuple[int, dict]]:
    for position, vector in enumerate(inputs):
      yield position, {'input': vector, 'label': int(labels[position])}
