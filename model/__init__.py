"""Training side: click files, the network, training, evaluation, and reports.

    clicks       histories from click files of every format
    network      the attention encoder                        needs PyTorch
    evaluation   metrics and baselines
    training     recipes, the loop, the run folder            needs PyTorch
    report       a run against the baselines, as a page       needs PyTorch

Each room imports only rooms above it. Importing this package does not import PyTorch.
"""
