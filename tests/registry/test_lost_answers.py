"""Changes of a bucket whose answers are lost: the client repeats them, and each takes effect once."""

from dataclasses import replace
from itertools import cycle

import pytest
from buckets import bucket_url, faulty_proxy
from line import CARD
from models_folder import line, slope

from app.errors import StoreUnavailable
from app.registry.bucket.publisher import BucketPublisher
from app.storage.opening import open_store


def test_a_version_whose_every_answer_is_lost_is_published_and_promoted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    url = bucket_url()
    direct = BucketPublisher(open_store(url))
    direct.publish(replace(CARD, upload="a"), line(1), promote=True)
    with faulty_proxy() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        registry = BucketPublisher(open_store(url))
        faults = cycle(["lose the answer", "ok"])
        with monkeypatch.context() as patched:
            patched.setattr(proxy, "next_fault", lambda: next(faults))
            published = registry.publish(replace(CARD, upload="b"), line(2), promote=True, expected=1)
        assert direct.current("line").card == published.card
        writes = [request for request in proxy.requests if request.startswith("PUT")]
        assert len(writes) == 2 * len(set(writes))
        proxy.set("throttle")
        with pytest.raises(StoreUnavailable, match=f"{url}"):
            registry.publish(replace(CARD, upload="c"), line(3), promote=True)
        with pytest.raises(StoreUnavailable):
            registry.promote("line", 1)
    assert direct.versions("line") == [1, 2]
    assert slope(direct.current("line")) == 2
