"""Few-shot meta-learning theory, taught in notebooks. This package is the thin helper behind them.

From the ground up; a folder imports only what stands below it:

    support/                 files, argument checks, memory, intervals, provenance
    datasets/   networks/    images by class; perceptrons and Conv-4, as init and apply
    tasks/      kernels/     batches of few-shot tasks; NTK and NNGP, of finite and of infinite networks
    inner_loop/              one task: losses, the gradient step, trajectories, the minimum
    metantk/    learners/    the MetaNTK and what it predicts; MAML, ANIL, their outer loop and curvature
    nas/                     MetaNTK-NAS: space, engine, scores, searching, training, evaluation
    course/                  what notebooks use: presets, claims, exercises, plots, widgets, demos
    runner/                  executes notebooks, makes pages and the table of claims
    commands/                the command line
"""

__version__ = "0.1.0"
