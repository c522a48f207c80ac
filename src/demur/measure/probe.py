"""Linear probes: what can be read from a model's hidden states, whatever it says.

A logistic regression on the states of one layer, fitted to some items and asked about others. The
layer is chosen within the training items, by the same cross-validation, so nothing is tuned on
what is scored (Alain and Bengio 2016; for statements that a model does not believe, Azaria and
Mitchell 2023).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from demur.measure.interval import FloatArray, IntArray

BoolArray = NDArray[np.bool_]

FOLDS = 5
INNER = 3
STRENGTH = 0.1  # inverse regularisation: as many weights as a layer is wide, and few items


def probe_scores(states: ArrayLike, labels: ArrayLike, items: ArrayLike) -> FloatArray:
    """P(label) of each row, (n,), from probes that never saw an item of it.

    ``states`` is (n, layers, width), ``labels`` (n,) are booleans, ``items`` names what each row is
    about. ``nan`` throughout where the labels are all alike or there are fewer items than folds.
    """
    x, y = np.asarray(states, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    groups = np.unique(np.asarray(items, dtype=object), return_inverse=True)[1]
    if x.ndim != 3 or len(x) != y.size or y.size != groups.size:
        raise ValueError(f"states {x.shape}, {y.size} labels and {groups.size} items do not pair")
    found = np.full(y.size, np.nan)
    if _alike(y) or groups.max() + 1 < FOLDS:
        return found
    for train, test in GroupKFold(FOLDS).split(x, y, groups):
        if _alike(y[train]):
            continue
        layer = _best_layer(x[train], y[train], groups[train])
        fitted = _probe().fit(x[train, layer], y[train])
        found[test] = fitted.predict_proba(x[test, layer])[:, 1]
    return found


def _probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000))


def _alike(labels: BoolArray) -> bool:
    return bool(labels.all() or not labels.any())


def _best_layer(x: FloatArray, labels: BoolArray, groups: IntArray) -> int:
    """The layer whose probes rank other items best."""
    scores = np.zeros(x.shape[1])
    for train, test in GroupKFold(INNER).split(x, labels, groups):
        if _alike(labels[train]) or _alike(labels[test]):
            continue
        for layer in range(x.shape[1]):
            said = _probe().fit(x[train, layer], labels[train]).decision_function(x[test, layer])
            scores[layer] += float(roc_auc_score(labels[test], said))
    return int(np.argmax(scores))
