"""Every configuration key once, with its unit.

What the values may be stands in `kdjax.bounds`. The defaults are the published
CIFAR-100 recipe (ResNet-56 to ResNet-20, SGD, 240 epochs); an experiment file
is a delta on them. They differ from the recipe in four things: a tenth of train
is held out as dev, weight decay spares norms and biases, an epoch drops its
last partial batch, and the running variance of batch norm is the biased one.
"""

from typing import Any

from ml_collections import ConfigDict

from kdjax.bounds import lookup, validate

__all__ = ['default', 'keys', 'lookup', 'of_run', 'validate']


def default() -> ConfigDict:
  """Returns a fresh configuration with every key that kdjax knows.

  >>> default().temperature
  4.0
  """
  config = ConfigDict(
    {
      'seed': 0,  # student's initialisation, batch order, augmentation
      'num_epochs': 240,  # passes over the student's training examples
      'batch_size': 64,  # examples a step, over all devices
      # A batch that does not fit is worked on in so many parts; the teacher's
      # is, too. Batch norm then sees a part at a time.
      'accumulate_steps': 1,
      # Of activations: 'float32' or 'bfloat16'. Parameters, batch statistics
      # and losses are float32 always.
      'compute_dtype': 'float32',
      # --- method: a row of kdjax.methods.METHODS and its hyper-parameters
      'method': 'kd',
      # λ, the teacher's share of the loss, in [0, 1]; dkd and dist have none.
      'weight': 0.9,
      'temperature': 4.0,  # T
      # n of Tⁿ: 2 (Hinton et al.) or 0 (Tang et al.); dkd, dist and
      # kd_standardised have 2 built in.
      'temperature_power': 2,
      'smoothing': 0.1,  # ε of label smoothing, in [0, 1]
      'topk': 10,  # classes that kd_topk and its kin keep, 1..K
      'num_samples': 64,  # classes that kd_sampled draws for each prediction
      'similarity_power': 0.3,  # α of kd_sim
      'similarity_temperature': 0.3,  # β of kd_sim
      'mix': 0.5,  # η of kd_pt_sim, the share of sim, in [0, 1]
      'target_weight': 1.0,  # dkd: α of the target-class term
      'nontarget_weight': 8.0,  # dkd: β of the other classes' term
      'inter_weight': 2.0,  # dist: of the relation between classes
      'intra_weight': 2.0,  # dist: of the relation within a class
      'loss_warmup_epochs': 20,  # dkd: its terms ramp up over these
      # Of a text, the loss is computed in blocks of so many tokens, without
      # ever holding all logits; 0: at once.
      'loss_block_tokens': 0,
      # --- terms of kdjax.terms.TERMS, which are added to a method's loss
      # Further ones beside the method's own, such as ('kd', 'crd').
      'also': (),
      # Of each: its weight (the published one); the epochs over which it ramps
      # up; the pairs (student's feature, teacher's) that it compares, by name
      # or by a module's path such as 'stage2/block1', () being the published
      # ones; and a 'projector' of the student's feature, 'identity', 'conv',
      # 'linear' or 'mlp', that is trained beside it.
      'terms': {
        'kd': {'weight': 0.9, 'warmup_epochs': 0},
        'dkd': {'weight': 1.0, 'warmup_epochs': 20},
        'dist': {'weight': 1.0, 'warmup_epochs': 0},
        'hint': {**_term(100.0), 'projector': 'conv'},
        'at': _term(1000.0),
        'nst': _term(50.0),
        'vid': _term(1.0),
        'cosine': {**_term(1.0), 'projector': 'linear'},
        'l2': {**_term(1.0), 'projector': 'linear'},
        'rkd_distance': _term(25.0),
        'rkd_angle': _term(50.0),
        'sp': _term(3000.0),
        'pkt': _term(30000.0),
        'cc': {**_term(0.02), 'dim': 128},  # dim: of the common space
        'crd': {
          **_term(0.8),
          'dim': 128,
          'temperature': 0.07,
          'num_negatives': 16384,  # of another class, for each example
          'momentum': 0.5,  # of the memory
        },
        'irg': _term(1.0),
        'attention_relation': {
          **_term(1.0),
          'temperature': 0.1,
          'num_heads': 1,
        },
      },
      # --- optimisation; all but the rate holds for the teacher, too
      'learning_rate': 0.05,  # peak
      'optimizer': {
        'name': 'sgd',  # 'sgd' or 'adamw'
        'momentum': 0.9,  # sgd
        'nesterov': False,  # sgd
        'weight_decay': 5e-4,  # of kernels; norms and biases are spared
        'clip_norm': 0.0,  # global gradient norm; 0: no clipping
      },
      'schedule': {
        'name': 'step',  # 'constant', 'step' or 'cosine'
        'warmup_steps': 0,  # linear, from 0 to the peak
        'decay_epochs': (150, 180, 210),  # step: multiply after each
        'decay_factor': 0.1,  # step: by this
      },
      # Evaluated are moving averages of weights and batch statistics, with
      # this decay, shorter in the first steps; 0: off.
      'ema_decay': 0.0,
      # --- data
      'dataset': {
        'name': 'cifar100',
        # Prepared data, '': TFDS's own default; for 'npz' your own folder.
        'data_dir': '',
        'dev_fraction': 0.1,  # of train, held out for model selection
        'num_labels': 0,  # student's training examples; 0: all
        'exclude_classes': (),  # classes that the student never sees
        # 'none', 'crop' or 'crop_flip' for images in arrays; 'none' or
        # 'resized_crop_flip' for encoded ones.
        'augment': 'crop_flip',
        'image_size': 0,  # that encoded images are cropped to; 0: 224
        'mixup': 0.0,  # α of Beta(α, α); 0: none. The teacher sees the mix.
        'num_threads': 0,  # that decode images; 0: one a core
        'num_workers': 0,  # processes that decode images; 0: this one
        'text': {
          # 'contiguous': rows go on from each other, and networks remember;
          # 'padded': a sentence a row; 'packed': several sentences a row.
          'batching': 'contiguous',
          'sequence_length': 35,  # tokens of a row
          # text_file: 'word', 'char', or a file of the library tokenizers.
          'tokens': 'word',
          'vocabulary_size': 0,  # most frequent tokens that are kept; 0: all
        },
        'options': {  # synthetic_classes only
          'num_examples': 5000,
          'num_test_examples': 5000,
          'num_inputs': 100,
          'num_classes': 50,
          'num_groups': 10,
          'correlation': 0.5,
          'nonlinearity': 1,
          'amplitude': 1.0,  # of the sine terms
          'seed': 0,
        },
      },
      # --- networks: a row of kdjax.models.MODELS and its options
      'student': {
        'name': 'resnet20',
        # mlp and lstm: widths of hidden layers; (): the model's own
        'widths': (),
        'dropout': 0.0,  # mlp, lstm and transformer: rate
        'tied': False,  # lstm and transformer: one matrix embeds and predicts
      },
      'teacher': {
        # A trained teacher's folder; '': train one first, into the workdir.
        'checkpoint': '',
        'name': 'resnet56',
        'widths': (),
        'dropout': 0.0,
        'tied': False,
        'method': 'ce',  # 'ce' or 'ls'
        'smoothing': 0.1,
        'num_epochs': 240,
        'batch_size': 64,
        'learning_rate': 0.05,
        'seed': 0,  # apart from the student's: seeds share a teacher
        # Finished teachers, by a hash of what determines them, for every
        # later run; '': the user's cache folder, 'off': none.
        'cache_dir': '',
        # Without augmentation its logits are computed once, not every step;
        # the features that terms compare, too, up to so many megabytes. Of a
        # text its logits, or the few classes that a method looks at, are kept
        # up to that size.
        'precompute_logits': True,
        'precompute_megabytes': 1024,
        # Several teachers: so many of this network, with seeds from `seed` on,
        # and the folders of others, of any network, trained on the same data.
        'num_seeds': 1,
        'others': (),
        # What of several is averaged: 'logits', 'probs' (at T) or 'losses'.
        'average': 'probs',
        'shares': (),  # of each in the average; (): equal
        'features_from': 0,  # whose features and last layer are compared
      },
      'baseline': False,  # also train the student by plain cross-entropy
      # --- running
      'eval_every_epochs': 10,  # evaluate on dev, save a checkpoint
      'eval_batch_size': 500,  # of a text in order: places read at once
      # At each evaluation also log ECE, and with a teacher fidelity and what it
      # does to the gradient.
      'analysis': True,
      'log_every_steps': 500,  # a row of metrics is a mean over so many
      'keep_checkpoints': 2,  # the last so many; the best on dev is kept too
      'nonfinite': 'stop',  # an update that is not finite: 'stop' or 'skip'
      # Devices on the mesh's 'model' axis: they share the parameters, and what
      # the optimiser keeps of them, of the networks named below; the others
      # are copied. Examples are split over all devices.
      'model_devices': 1,
      'split_networks': ('student', 'teacher'),
      # A run in which nothing moves for so long is ended; 0: never. Compiling
      # does not count.
      'watchdog_seconds': 600,
      # A host that says nothing for so long is taken for dead.
      'heartbeat_seconds': 30,
    }
  )
  return config.lock()  # a mistyped key is an error


def _term(weight: float) -> dict[str, Any]:
  return {'weight': weight, 'warmup_epochs': 0, 'pairs': ()}


def of_run(config: ConfigDict) -> ConfigDict:
  """Returns a copy with the keys of a run alone, without those of a study."""
  found = config.copy_and_resolve_references()
  with found.unlocked():
    for key in set(config) - set(default()):
      del found[key]
  return found


def keys(config: ConfigDict, prefix: str = 'config.') -> list[str]:
  """Returns every key, dotted.

  >>> 'config.optimizer.name' in keys(default())
  True
  """
  found = []
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      found += keys(value, f'{prefix}{key}.')
    else:
      found.append(prefix + key)
  return found
