"""What the configs of every bundle share besides networks.

Checks of inputs and weights, the history of a training run, pictures and tables of its results, and phantom data sets
with known answers for trying a bundle without real data. Nothing here knows a network or a single task.
"""
