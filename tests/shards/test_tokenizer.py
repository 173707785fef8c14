import json

import pytest

from shards.storage.fetch import FetchError, RemoteFile, fetch
from shards.tokenizer import TokenizerError, encode_words, load_tokenizer, train_tokenizer
from shards.tokens import SPECIAL_TOKENS


def test_published_settings_and_encodings(golden, published_tokenizer, parity):
    measured = json.loads((golden / "k_tokenizer.json").read_text())
    tokenizer = load_tokenizer(published_tokenizer)
    assert tokenizer.get_vocab_size() == measured["vocab_size"]
    assert [tokenizer.id_to_token(i) for i in range(20)] == measured["first_20_tokens"]
    stated = json.loads(tokenizer.to_str())
    for name, value in measured["json_top"].items():
        if isinstance(value, dict):
            assert value.items() <= stated[name].items(), name
        elif name != "added_tokens":
            assert stated[name] == value, name
    wrong = 0
    for case in measured["encode"]:
        encoded = tokenizer.encode(case["text"], add_special_tokens=False)
        wrong += encoded.ids != case["ids"]
        assert encoded.tokens == case["tokens"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=False) == case["decode_keep_special"]
    words = measured["encode_batch_words"]
    wrong += encode_words(tokenizer, words["words"]) != words["ids"]
    parity.record("k_tokenizer.json", "texts encoded differently", wrong)
    assert wrong == 0


def test_trained_vocabulary_shares_the_special_ids(tmp_path):
    tokenizer = train_tokenizer(["hello there hello", "Ünïcode too"], 300)
    path = tmp_path / "t.json"
    path.write_text(tokenizer.to_str())
    loaded = load_tokenizer(path)
    assert [loaded.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(10))
    ids = loaded.encode("Hello there, \U0001f355 résumé").ids
    assert min(ids) > 9
    assert loaded.decode(ids).strip() == "hello there, \U0001f355 resume"
    assert train_tokenizer(["hello there hello", "Ünïcode too"], 300).to_str() == tokenizer.to_str()


def test_files_that_are_no_vocabulary(tmp_path):
    wrong = tmp_path / "wrong.json"
    for content in ("", "{}", "not json", '{"model": {"type": "BPE"}}'):
        wrong.write_text(content)
        with pytest.raises(TokenizerError, match=r"wrong\.json is not a"):
            load_tokenizer(wrong)
    from tokenizers import Tokenizer, models

    other = Tokenizer(models.BPE())
    wrong.write_text(other.to_str())
    with pytest.raises(TokenizerError, match="is not a vocabulary of Reservoir"):
        load_tokenizer(wrong)
    with pytest.raises(TokenizerError, match="there is no tokenizer file"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(TokenizerError, match="too small"):
        train_tokenizer(["x"], 100)


def test_a_download_that_cannot_be_had_names_the_way_out(tmp_path):
    remote = RemoteFile("thing.json", "http://127.0.0.1:9/thing.json", "00" * 32)
    with pytest.raises(
        FetchError,
        match=r"cannot download thing\.json: .*download it by hand from http://127\.0\.0\.1:9/thing\.json to .* or pass it with --thing",
    ):
        fetch(remote, tmp_path, flag="--thing")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "thing.json").write_text("something else")
    with pytest.raises(FetchError, match=r"is not the published thing\.json"):
        fetch(remote, tmp_path)
