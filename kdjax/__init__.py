"""kdjax: knowledge distillation in JAX, taken apart.

Nothing is imported here: `kdjax.losses`, `kdjax.targets`, `kdjax.models`,
`kdjax.data` and `kdjax.train` are loaded when they are asked for.
"""

__version__ = '0.1.0'
