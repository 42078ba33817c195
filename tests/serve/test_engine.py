"""The engine takes all jobs of a request or none, and hands out every partial in order."""

import pytest

from instruct.eval.decoding.decode import DecodeConfig
from instruct.serve.engine import Engine, EngineStopped, Job, QueueFull
from tests.serve.echo import EchoDecoder, wait_until


def job(text: str, news: list) -> Job:
    return Job([ord(letter) + 3 for letter in text], 0, 128, news.append)


def test_jobs_are_taken_together_or_not_at_all():
    news: list = []
    engine = Engine(EchoDecoder(DecodeConfig(), num_slots=2, chunk_secs=0.01), queue_length=1)
    engine.submit([job("a" * 40, news)])
    with pytest.raises(QueueFull):
        engine.submit([job("b", news) for _ in range(3)])
    assert engine.num_open == 1 and engine.capacity == 3
    engine.submit([job("b", news) for _ in range(2)])
    wait_until(lambda: engine.num_open == 0)
    assert sum(one.ended for one in news) == 3
    lengths = [one.tokens.shape[1] for one in news if one.tokens[0, 0] == ord("a") + 3]
    assert lengths == sorted(lengths) and lengths[-1] == 41
    engine.close()
    with pytest.raises(EngineStopped):
        engine.submit([job("c", news)])


def test_cancelled_jobs_are_not_told_of_again():
    news: list = []
    engine = Engine(EchoDecoder(DecodeConfig(), num_slots=1, chunk_secs=0.01), queue_length=9)
    jobs = [job("a" * 60, news), job("b" * 60, news), job("c", news)]
    engine.submit(jobs)
    wait_until(lambda: news)
    engine.cancel(jobs[:2])
    wait_until(lambda: engine.num_open == 0)
    assert [one.ended for one in news][-1] and news[-1].tokens[0].tolist() == [ord("c") + 3, 1]
    assert sum(one.ended for one in news) == 1
    engine.close()


def test_given_up_jobs_end_with_an_exception():
    news: list = []
    engine = Engine(EchoDecoder(DecodeConfig(), num_slots=1, chunk_secs=0.01), queue_length=9)
    engine.submit([job("a" * 60, news)])
    engine.give_up()
    wait_until(lambda: isinstance(news[-1] if news else None, EngineStopped))
    assert engine.num_open == 0
    engine.close()
