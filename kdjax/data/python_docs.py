"""The topics of Python's own documentation, as `help()` shows them."""

import dataclasses
import functools
import hashlib
import re
import sys

from kdjax.data.corpus import Document

# Words, or one or several of the same other character.
_TOKEN = re.compile(r'\w+|([^\w\s])\1*')
_PARAGRAPHS = re.compile(r'\n\s*\n')
# What headings are underlined with.
_RULE = re.compile(r'^\s*([^\w\s])\1{2,}\s*$', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Edition:
  """The topics of the Python that runs; there is nothing to choose."""

  @functools.cached_property
  def _digest(self) -> str:
    text = repr([document[::2] for document in self.documents()])
    return hashlib.sha256(text.encode()).hexdigest()

  def folder(self) -> str:
    """A name that differs wherever the topics do."""
    version = '.'.join(map(str, sys.version_info[:2]))
    return f'python{version}_{self._digest[:16]}'

  def documents(self) -> list[Document]:
    """A document a topic, a line a paragraph, with blanks between tokens.

    A paragraph that is in several topics stays in the first by name: what is
    tested on is not what was trained on.
    """
    from pydoc_data import topics

    seen: set[str] = set()
    found = []
    for name, text in sorted(topics.topics.items()):
      lines = dict.fromkeys(sentences(text))
      new = [line for line in lines if line not in seen]
      seen.update(new)
      if new:
        found.append(
          Document(name, 'train', ''.join(f'{line}\n' for line in new))
        )
    return found


def sentences(text: str) -> list[str]:
  r"""The paragraphs of a text, as lower-cased words and punctuation.

  >>> sentences('Calls\n=====\n\nA *call* is made\nby "f()".')
  ['calls', 'a * call * is made by " f ( ) " .']
  """
  paragraphs = _PARAGRAPHS.split(_RULE.sub('', text.lower()))
  found = [
    ' '.join(match[0] for match in _TOKEN.finditer(paragraph))
    for paragraph in paragraphs
  ]
  return [sentence for sentence in found if sentence]
