"""Tokenised examples keep the types that a postprocess_fn of SeqIO gets."""

import numpy as np

from instruct.data.token_record import TokenRecord


def test_features_keep_their_types():
    features = {
        "text": b"plain",
        "raw": b"\xff\xfe not UTF-8",
        "texts": np.array([b"a", b"\xff"], dtype=object),
        "none": np.array([], dtype=object),
        "label": np.int64(3),
        "score": np.float32(0.5),
        "flag": np.bool_(True),
        "grid": np.arange(6, dtype=np.int32).reshape(2, 3),
    }
    record = TokenRecord("7", [3, 4, 1], [5, 1], "ask", "say", features)
    again = TokenRecord.from_json(record.to_json())
    assert (again.id, again.input_ids, again.target_ids) == ("7", [3, 4, 1], [5, 1])
    assert (again.inputs, again.targets, again.answer) == ("ask", "say", "say")
    for name, value in features.items():
        found = again.features[name]
        assert type(found) is type(value), name
        np.testing.assert_array_equal(found, value)
        if isinstance(value, np.ndarray):
            assert found.dtype == value.dtype and found.shape == value.shape


def test_equal_records_give_equal_bytes():
    one = TokenRecord("1", [1], [1], "", "", {"a": np.int64(1), "b": b"x"})
    two = TokenRecord("1", [1], [1], "", "", {"b": b"x", "a": np.int64(1)})
    assert one.to_json() == two.to_json()
