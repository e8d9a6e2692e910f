"""What a bundle needs besides a network: inputs, inference, transforms, training, metrics, reports, data preparation.

``errors`` and ``files`` import nothing heavy, ``prepare`` neither torch nor MONAI. Nothing here imports a network.
"""
