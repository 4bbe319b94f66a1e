import torch

from saesweep.cohort.firing import FiringStatistics


def test_a_latent_is_dead_only_after_more_silent_steps_than_the_window() -> None:
    stats = FiringStatistics(2, sampling_window_steps=100, device="cpu")
    for _ in range(3):
        stats.update(torch.tensor([5, 0]), 10)
    assert stats.silent_F(3).tolist() == [False, False]
    stats.update(torch.tensor([5, 0]), 10)
    assert stats.silent_F(3).tolist() == [False, True]
    stats.update(torch.tensor([0, 1]), 10)
    assert stats.silent_F(3).tolist() == [False, False]


def test_frequency_covers_the_current_window_and_the_one_before() -> None:
    stats = FiringStatistics(1, sampling_window_steps=2, device="cpu")
    for firing in (10, 10, 0, 0, 5):
        stats.update(torch.tensor([firing]), 10)
    # Steps 3 and 4 are the window before, step 5 the current one.
    assert stats.frequency_F().tolist() == [5 / 30]


def test_state_survives_a_round_trip() -> None:
    a = FiringStatistics(3, sampling_window_steps=2, device="cpu")
    for step in range(5):
        a.update(torch.tensor([step, 0, 1]), 4)
    b = FiringStatistics(3, sampling_window_steps=2, device="cpu")
    b.load({k: v.clone() for k, v in a.tensors().items()}, tokens=a.tokens, steps_in_window=a.steps_in_window)
    for stats in (a, b):
        stats.update(torch.tensor([0, 0, 2]), 4)
    assert torch.equal(a.frequency_F(), b.frequency_F())
    assert torch.equal(a.silent_F(1), b.silent_F(1))


def test_the_longest_silence() -> None:
    stats = FiringStatistics(2, sampling_window_steps=100, device="cpu")
    for firing in ([1, 1], [0, 1], [0, 1], [1, 0]):
        stats.update(torch.tensor(firing), 10)
    assert stats.longest_silence() == 1
    stats.update(torch.tensor([1, 0]), 10)
    assert stats.longest_silence() == 2
