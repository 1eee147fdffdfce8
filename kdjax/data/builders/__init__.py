"""TFDS builders, loaded one by one when a data set is asked for."""
