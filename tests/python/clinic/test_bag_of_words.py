"""No classifier that only counts words tells a restricted request from an allowed one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.optimize import minimize

from titer.clinic import World, make_records
from titer.clinic.splits import CALIBRATION, TEST

WORD = re.compile(r"[a-z]+|[0-9]+")


def requests(world: World, split: object, question_only: bool) -> tuple[list[list[str]], np.ndarray]:
    texts, labels = [], []
    for record in make_records(world, split, 8 * 1000, seed=2):  # type: ignore[arg-type]
        if record["task"] == "policy" and "directive" not in record["metadata"]:
            content = record["messages"][0]["content"]
            text = content.rsplit("question:", 1)[1] if question_only else content
            texts.append(WORD.findall(text))
            labels.append("restricted" in record["metadata"]["items"][0])
    return texts, np.array(labels)


def counts(texts: list[list[str]], vocabulary: dict[str, int]) -> np.ndarray:
    matrix = np.zeros((len(texts), len(vocabulary) + 1))
    matrix[:, -1] = 1
    for row, words in enumerate(texts):
        for word in words:
            if word in vocabulary:
                matrix[row, vocabulary[word]] += 1
    return matrix


def logistic_regression(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    sign = np.where(y, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ weights)
        gradient = -(x.T @ (sign / (1 + np.exp(np.clip(margin, -50, 50))))) / len(y) + penalty * weights
        return float(np.logaddexp(0, -margin).mean() + penalty / 2 * weights @ weights), gradient

    return np.asarray(minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x)


@pytest.mark.parametrize("lexicon", ["invented", "english"])
@pytest.mark.parametrize("question_only", [True, False])
def test_a_bag_of_words_does_not_decide_the_policy(lexicon: str, question_only: bool) -> None:
    world = World(lexicon)
    texts, labels = requests(world, CALIBRATION, question_only)
    unseen, right = requests(world, TEST, question_only)
    vocabulary = {word: i for i, word in enumerate(sorted({word for words in texts for word in words}))}
    weights = logistic_regression(counts(texts, vocabulary), labels, penalty=1e-3)
    accuracy = float(((counts(unseen, vocabulary) @ weights > 0) == right).mean())
    print(f"{lexicon}, question only {question_only}: {accuracy:.3f} on {len(right)} requests")
    assert len(right) > 800
    assert 0.4 < accuracy < 0.6  # what the issue allows is 0.75


def test_the_regression_finds_what_a_word_decides() -> None:
    """So that the test above can fail: here one word gives the label away."""
    random = np.random.default_rng(0)
    labels = random.random(500) < 0.5
    texts = [["secret" if label else "open", f"w{random.integers(20)}"] for label in labels]
    vocabulary = {word: i for i, word in enumerate(sorted({word for words in texts for word in words}))}
    x = counts(texts, vocabulary)
    assert ((x @ logistic_regression(x, labels, penalty=1e-3) > 0) == labels).mean() > 0.99
