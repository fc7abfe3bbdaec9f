"""RegMix's regressor (arXiv 2407.01492, section 3.2): gradient boosted trees, one model per eval domain.

Learning rate .01, 1000 trees, all else LightGBM's defaults. With at least 20 rows per leaf (a default) it splits
nothing below 40 runs and then predicts the mean. The published notebook stops early on the runs that it is judged
by; here all 1000 trees are kept.
"""

from typing import Any, Self

import numpy as np

N_TREES = 1000


class LightGBM:
    """Trees on the shares; the scale is not read."""

    def fit(self, mix_BK: Any, scale_B2: Any, loss_BM: Any, run_B: Any = None, own_M: Any = None) -> Self:
        """One model per eval domain."""
        import lightgbm

        settings = {"objective": "regression", "learning_rate": 0.01, "seed": 42, "verbosity": -1, "num_threads": 1}
        self.models_ = [
            lightgbm.train(settings, lightgbm.Dataset(np.asarray(mix_BK), loss_B), num_boost_round=N_TREES)
            for loss_B in np.asarray(loss_BM).T
        ]
        return self

    def predict(self, mix_BK: Any, scale_B2: Any) -> Any:
        """Losses (B, M)."""
        return np.stack([model.predict(mix_BK) for model in self.models_], axis=1)
