"""The engine takes all jobs of a request or none, and hands out every partial in order."""

import pytest

from instruct.eval.decoding.decode import DecodeConfig
from instruct.serve.engine import Engine, EngineStopped, Job, QueueFull
from tests.serve.echo import EchoDecoder
from tests.waiting import wait_until


def job(text: str, news: list) -> Job:
    return Job([ord(letter) + 3 for letter in text], 0, 128, news.append)


def test_jobs_are_taken_together_or_not_at_all():
    news: list = []
    decoder = EchoDecoder(DecodeConfig(), num_slots=2)
    engine = Engine(decoder, queue_length=1)
    with decoder.held():
        engine.submit([job("a" * 40, news)])
        with pytest.raises(QueueFull):
            engine.submit([job("b", news) for _ in range(3)])
        assert engine.num_open == 1 and engine.capacity == 3
        engine.submit([job("b", news) for _ in range(2)])
    wait_until(lambda: sum(one.ended for one in news) == 3)
    assert engine.num_open == 0
    lengths = [one.tokens.shape[1] for one in news if one.tokens[0, 0] == ord("a") + 3]
    assert lengths == sorted(lengths) and lengths[-1] == 41
    engine.close()
    with pytest.raises(EngineStopped):
        engine.submit([job("c", news)])


def test_cancelled_jobs_are_not_told_of_again():
    news: list = []
    decoder = EchoDecoder(DecodeConfig(), num_slots=1)
    engine = Engine(decoder, queue_length=9)
    jobs = [job("a" * 60, news), job("b" * 60, news), job("c", news)]

    def deliver_and_pause(first):
        news.append(first)
        decoder.may_decode.clear()  # so that "a" does not end before it is cancelled

    jobs[0].deliver = deliver_and_pause
    engine.submit(jobs)
    wait_until(lambda: news and not decoder.may_decode.is_set())
    jobs[0].deliver = news.append
    engine.cancel(jobs[:2])
    decoder.may_decode.set()
    wait_until(lambda: news[-1].ended)
    assert engine.num_open == 0 and news[-1].tokens[0].tolist() == [ord("c") + 3, 1]
    assert sum(one.ended for one in news) == 1
    engine.close()


def test_given_up_jobs_end_with_an_exception():
    news: list = []
    decoder = EchoDecoder(DecodeConfig(), num_slots=1)
    engine = Engine(decoder, queue_length=9)
    with decoder.held():
        engine.submit([job("a" * 60, news)])
        engine.give_up()
        assert [type(one) for one in news] == [EngineStopped] and engine.num_open == 0
    engine.close()
