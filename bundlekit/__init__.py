"""Everything that a bundle needs in addition to a network.

The subpackages are ``inputs``, ``inference``, ``transforms``, ``training``, ``metrics``, ``reports``, ``phantoms`` and
``prepare``, which imports neither torch nor MONAI. ``errors`` and ``files`` import nothing heavy; ``processes``
connects the processes of one run. No module imports a network.
"""
