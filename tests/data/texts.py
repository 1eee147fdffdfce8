"""Tiny texts in the published files, and what they hold."""

from kdjax import data
from kdjax.data import table

TEXTS = {
  'train': ' the cat sat on the <unk> \n the dog sat \n the end \n' * 3,
  'dev': ' the cat sat \n a dog <unk> \n',
  'test': ' on the sad \n the end \n',
}
SENTENCES = {
  name: [[*line.split(), '<eos>'] for line in text.splitlines()]
  for name, text in TEXTS.items()
}


def write(folder, name='penn_treebank', **texts):
  """Writes the files of a data set, some with another text."""
  folder.mkdir(exist_ok=True)
  files = table.DATASETS[name].reading.files
  for part, file in files.items():
    (folder / file).write_text(texts.get(part, TEXTS[part]), encoding='utf-8')
  return folder


def prepare(folder, root, name='penn_treebank'):
  return data.prepare(name, data_dir=str(root), manual_dir=str(folder))


def spelled(dataset, tokens):
  """The tokens by their names."""
  return [dataset.class_names[token] for token in tokens]


def labels_of(dataset, split):
  """All that is to be predicted of a split, row by row, by its name."""
  labels = getattr(dataset, split).labels
  return spelled(dataset, labels[labels != data.PADDING])
