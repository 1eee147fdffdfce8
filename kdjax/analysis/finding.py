"""Something that was found, and what it is found in."""

import dataclasses

Metrics = dict[str, float]
Settings = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something that was found.

  Attributes:
    code: a name that does not change.
    severity: 'error' (a student without teacher may do better), 'warning'
      (the teacher gives less than it could) or 'info'.
    evidence: what was measured, and what it was held against.
    explanation: what it means.
    remedy: what to do about it.
    settings: configuration keys and the values to try.
  """

  code: str
  severity: str
  evidence: dict[str, float]
  explanation: str
  remedy: str
  settings: dict[str, object] = dataclasses.field(default_factory=dict)
