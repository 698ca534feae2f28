"""What docs/experiments.md says beside its tables."""

from tests.benchmarks.page import Page

EXPERIMENTS = Page(
    "experiments",
    introduction="""# Experiments

What was tried to make training better, and what became of it: a failed try that is written down is not made again.
Tables are made by a script from [experiments.json](experiments.json); to measure again, and write this page anew:
```sh
make bench ARGS="recipes --epochs 2 --seeds 42 43 --json var/recipes-found.json"
make bench ARGS="robustness --seeds 0 1 2 --json var/robustness.json"
.venv/bin/python -m tests.benchmarks.pages recipes=var/recipes-found.json robustness=var/robustness.json
```
Choices are made on validation pictures. The test split is read once for each claim.
""",
    parts={
        "recipes": """## The default recipe, one change at a time

Each row is a training with the overrides in its second column, beside the default recipe with the same seed. A change
that costs more time must also beat the default recipe with more epochs: `make bench ARGS="time_to_accuracy"`.
""",
        "robustness": """## Pictures in bad light, blurred, noisy or turned

`augmentation.distort_share=0.1` is what the table recommends; [the how-to](how-to/augmentation.md) tells how to use it.
""",
    },
    closing="""## Tried once, and not kept in the code

Two seeds each, 2 epochs (about 30 CPU-seconds) on all but 10,000 training pictures, which judged. The default recipe
had 92.78 and 92.84 %. No command repeats these: what did not pay was not kept.

| tried | accuracy of the two seeds, % | CPU |
|---|---|---|
| low resolution first, 20 pixels | 92.66, 92.83 | equal |
| low resolution first, 16 pixels | 92.62, 92.60 | equal |
| lookahead on the optimizer | 92.81, 92.45 | equal |
| pooling before the first convolution of a block | 92.64, 92.58 and 92.67, 92.91 | 30 % more |
| GELU for the activation | 92.87, 92.70 | equal |
| the harder half of each batch | 92.85, 92.71 | 20 % more |
| whitening of 2x2 pixels for the first layer | 92.81, 92.70 | equal |

None is better than the recipe by more than noise: at this budget a gain has to come from fewer operations, or from a
longer schedule.
""",
)
