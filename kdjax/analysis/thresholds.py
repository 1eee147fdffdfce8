"""From where on a measure is a finding, and why from there.

Figures of students on Fashion-MNIST are those of `benchmarks/failures.py`.
"""

# Mean 1 − max p̃. Below a tenth the teacher's term repeats the label: students
# on Fashion-MNIST lost half a point and more, and nothing above.
LEAST_DARK_MASS = 0.1
# At T = 1 a teacher with 94 % of its training examples right doubts by 0.08,
# one trained until 99.7 % are right by 0.02.
NEAR_ONE_HOT = 0.03
# Mean KL(p̃ ‖ uniform), nats. Below, a label-smoothed or too hot teacher tells
# little more than that there are K classes; usual ones have 0.3 to 2.
LEAST_DIVERGENCE = 0.1
# Median over examples of log(K−1) − H(wrong classes) at T = 1, nats; for normal
# logits half their variance. Usual teachers have 1.5, weak ones 0.4; label
# smoothing by 0.1 leaves 0.08.
LEAST_RELATION_SPREAD = 0.2
# The share of that spread that the class explains, and repeats in either half
# of the examples: 0.2 to 0.9, even with label smoothing; 0.01 in a teacher that
# has learned random labels by heart.
LEAST_RELATION_SHARE = 0.1
# λ · Tⁿ⁻², the teacher's weight at high T: below a tenth plain cross-entropy
# has at least the teacher's pull, though not the weight.
LEAST_EFFECTIVE_WEIGHT = 0.1
# A tail counts as noise if the class explains less than a tenth of it (usual:
# 0.4 to 0.7; random: 0), and matters if it has more than a tenth of the mass.
LEAST_TAIL_SHARE = 0.1
MOST_TAIL_MASS = 0.1
# Confidence less accuracy. Guo et al. (2017) find up to 0.16 in usual networks.
MOST_OVERCONFIDENCE = 0.17
# McNemar's z, two standard deviations, and a difference that one would mind: of
# accuracy, or of a text's perplexity as a fraction.
MOST_DEVIATIONS = 2.0
MOST_LEAD = 0.01
# Students follow the teacher about as often as it is right (0.94 to 1); one of
# a teacher with random labels in 0.8 of those cases.
LEAST_FIDELITY = 0.8
