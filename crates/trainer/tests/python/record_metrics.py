"""Records what scikit-learn measures on made-up outputs: tests/fixtures/metrics.json, for tests/it/metrics.rs.

Outputs are eighths, so that many are equal and ties are told apart from rounding.
"""

import json
import pathlib

import numpy as np
import sklearn
from sklearn import metrics

SAMPLES, CLASSES = 60, 4


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def eighths(generator, shape):
    return np.round(generator.normal(size=shape) * 8) / 8


def single(generator):
    labels = generator.integers(0, CLASSES, SAMPLES)
    logits = eighths(generator, (SAMPLES, CLASSES)) + np.eye(CLASSES)[labels]
    # Rows with the same logits: their probabilities are equal.
    logits[1::3] = logits[0::3]
    shares, chosen = softmax(logits), logits.argmax(axis=1)
    return {
        "logits": logits.ravel().tolist(),
        "labels": labels.tolist(),
        "accuracy": metrics.accuracy_score(labels, chosen),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, chosen),
        "macro_f1": metrics.f1_score(labels, chosen, average="macro"),
        "roc_auc": metrics.roc_auc_score(labels, shares, multi_class="ovr", average="macro"),
        "log_loss": metrics.log_loss(labels, shares),
        "confusion": metrics.confusion_matrix(labels, chosen).tolist(),
    }


def multi(generator):
    labels = (generator.random((SAMPLES, CLASSES)) < [0.5, 0.3, 0.2, 0.7]).astype(int)
    logits = eighths(generator, (SAMPLES, CLASSES)) + labels
    shares = 1 / (1 + np.exp(-logits))
    chosen = (shares >= 0.5).astype(int)
    return {
        "logits": logits.ravel().tolist(),
        "labels": [np.flatnonzero(row).tolist() for row in labels],
        "micro_f1": metrics.f1_score(labels, chosen, average="micro"),
        "macro_f1": metrics.f1_score(labels, chosen, average="macro"),
        "subset_accuracy": metrics.accuracy_score(labels, chosen),
        "precision": metrics.precision_score(labels, chosen, average=None).tolist(),
        "recall": metrics.recall_score(labels, chosen, average=None).tolist(),
        "roc_auc": metrics.roc_auc_score(labels, logits, average=None).tolist(),
        "average_precision": metrics.average_precision_score(labels, logits, average=None).tolist(),
        "log_loss": float(np.mean([metrics.log_loss(labels[:, c], shares[:, c]) for c in range(CLASSES)])),
    }


def regression(generator):
    values = eighths(generator, SAMPLES) * 10 + 100
    predictions = values + eighths(generator, SAMPLES) * 5
    return {
        "values": values.tolist(),
        "predictions": predictions.tolist(),
        "r2": metrics.r2_score(values, predictions),
        "mae": metrics.mean_absolute_error(values, predictions),
        "rmse": metrics.root_mean_squared_error(values, predictions),
    }


def main():
    generator = np.random.default_rng(7)
    recorded = {
        "scikit_learn": sklearn.__version__,
        "single_label": single(generator),
        "multi_label": multi(generator),
        "regression": regression(generator),
    }
    path = pathlib.Path(__file__).parent.parent / "fixtures" / "metrics.json"
    path.write_text(json.dumps(recorded) + "\n")


main()
