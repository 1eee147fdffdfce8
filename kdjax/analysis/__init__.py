"""What a teacher transfers, and why it does or does not help.

Gradients, geometry, calibration and fidelity are pure functions; `diagnose`
measures a teacher over a data set and says what it finds.
"""

from kdjax.analysis.calibration import (
  Reliability,
  brier,
  expected_calibration_error,
  fit_temperature,
  negative_log_likelihood,
  reliability,
)
from kdjax.analysis.dark_knowledge import (
  class_confusion,
  incorrect_entropy,
  incorrect_probs,
  joint_table,
  mutual_information,
  relation_information,
  topk_mass,
)
from kdjax.analysis.diagnosis import (
  Answers,
  Diagnosis,
  diagnose,
  diagnose_on,
)
from kdjax.analysis.fidelity import (
  agreement,
  cka_matrix,
  linear_cka,
  teacher_kl,
  topk_agreement,
)
from kdjax.analysis.frequency import (
  ByFrequency,
  by_frequency,
  frequency_groups,
  means_by_frequency,
  medians_by_frequency,
)
from kdjax.analysis.geometry import (
  class_means,
  class_similarity,
  order_classes,
  relation_correlation,
  similarity_spread,
)
from kdjax.analysis.gradients import kd_logit_gradient, teacher_share
from kdjax.analysis.parts import (
  GradientParts,
  class_mean_probs,
  gradient_parts,
)
from kdjax.analysis.rescaling import (
  expected_rescaling_factor,
  rescaling_factor,
  rescaling_factor_of,
)
from kdjax.analysis.rules import Finding

__all__ = [
  'Answers',
  'ByFrequency',
  'Diagnosis',
  'Finding',
  'GradientParts',
  'Reliability',
  'agreement',
  'brier',
  'by_frequency',
  'cka_matrix',
  'class_confusion',
  'class_mean_probs',
  'class_means',
  'class_similarity',
  'diagnose',
  'diagnose_on',
  'expected_calibration_error',
  'expected_rescaling_factor',
  'fit_temperature',
  'frequency_groups',
  'gradient_parts',
  'incorrect_entropy',
  'incorrect_probs',
  'joint_table',
  'kd_logit_gradient',
  'linear_cka',
  'means_by_frequency',
  'medians_by_frequency',
  'mutual_information',
  'negative_log_likelihood',
  'order_classes',
  'relation_correlation',
  'relation_information',
  'reliability',
  'rescaling_factor',
  'rescaling_factor_of',
  'similarity_spread',
  'teacher_kl',
  'teacher_share',
  'topk_agreement',
  'topk_mass',
]
