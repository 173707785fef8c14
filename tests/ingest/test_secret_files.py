"""Cookies and a proxy reach yt-dlp from a file or Secret Manager, and nothing else shows them."""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import youtube_server

from ingest.config import DownloadConfig
from ingest.download import secret_files
from ingest.download.youtube import Downloader
from ingest.raw import RawVideo
from shards.outcomes import Outcome
from shards.storage.errors import UsageError
from shards.storage.filesystem import StorageError

SECRET = "projects/p/secrets/cookies/versions/latest"
QUICK = "--retries 0 --retry-sleep 0 --extractor-retries 0 --socket-timeout 2"
COOKIES = "# Netscape HTTP Cookie File\n\n127.0.0.1\tFALSE\t/\tFALSE\t0\tSID\tabc-{number}\n"


def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def secret_manager(monkeypatch):
    """A Secret Manager with the secrets of the returned dictionary, by their full names."""
    secrets = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.split("?")[0].removeprefix("/v1/").removesuffix(":access")
            status = 200 if name in secrets else 404
            data = base64.b64encode(secrets.get(name, "").encode()).decode()
            answer = {"name": name, "payload": {"data": data}} if status == 200 else {"error": {"message": "not found"}}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *said):
            pass

    server = serve(Handler)
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", f"http://127.0.0.1:{server.server_port}/")
    yield secrets
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(golden, monkeypatch):
    videos = golden / "videos"
    built = youtube_server.Site(
        media=(videos / "gOldVidA_01.mp4").read_bytes(),
        captions=(videos / "gOldVidA_01.en.vtt").read_text(),
        info=json.loads((videos / "gOldVidA_01.info.json").read_text()),
    )
    with youtube_server.serve(built) as served:
        monkeypatch.setenv("RESERVOIR_TEST_YOUTUBE", served.address)
        if str(youtube_server.PLUGIN) not in sys.path:
            sys.path.insert(0, str(youtube_server.PLUGIN))
        yield served


def test_cookies_are_sent_and_what_servers_set_is_kept(site, secret_manager, tmp_path):
    secret_manager[SECRET] = COOKIES.format(number=1)
    site.set_cookie = "SID=abc-2; Path=/"
    download = Downloader(str(tmp_path / "raw"), DownloadConfig(yt_dlp=QUICK, cookies=SECRET), "en")
    assert isinstance(download("aaaaaaaaaaa"), RawVideo)
    assert "SID=abc-1" in site.cookies
    site.cookies.clear()
    # The secret is read once.
    secret_manager.clear()
    assert isinstance(download("bbbbbbbbbbb"), RawVideo)
    assert set(site.cookies) == {"SID=abc-2"}
    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(stored) == 4
    assert not [path for path in stored if b"abc-" in path.read_bytes()]


def test_cookies_come_from_a_file_that_stays_as_it_is(site, tmp_path):
    path = tmp_path / "cookies.txt"
    path.write_text(COOKIES.format(number=1))
    site.set_cookie = "SID=abc-2; Path=/"
    download = Downloader(str(tmp_path / "raw"), DownloadConfig(yt_dlp=QUICK, cookies=str(path)), "en")
    assert isinstance(download("aaaaaaaaaaa"), RawVideo)
    assert "SID=abc-1" in site.cookies
    assert path.read_text() == COOKIES.format(number=1)


def test_downloads_go_through_the_proxy_that_no_outcome_shows(site, tmp_path):
    path = tmp_path / "proxy"

    def download(address):
        path.write_text(f"{address}\n")
        config = DownloadConfig(yt_dlp=QUICK, proxy_from=str(path))
        return Downloader(str(tmp_path / "raw"), config, "en")("aaaaaaaaaaa")

    ended = download("http://someone:hunter2@127.0.0.1:9")
    assert ended.outcome is Outcome.NETWORK, ended
    assert not site.hits, "the download went around the proxy"
    address = site.address.replace("//", "//someone:hunter2@")
    site.faults = {"aaaaaaaaaaa": f"text:The proxy {address} does not accept hunter2 of someone"}
    ended = download(address)
    assert ended.outcome is Outcome.DOWNLOAD
    assert "The proxy *** does not accept *** of someone" in ended.detail
    site.faults = {}
    assert isinstance(download(address), RawVideo)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[{"name": "SID", "value": "hunter2"}]', "must start with '# Netscape HTTP Cookie File'"),
        ("# Netscape HTTP Cookie File\n.x.com\tTRUE\t/\tTRUE\tsoon\tSID\thunter2\n", "line 2 of the cookies"),
        ("# Netscape HTTP Cookie File\n\n.x.com TRUE / TRUE 0 SID hunter2\n", "line 3 of the cookies"),
        ("# Netscape HTTP Cookie File\n#HttpOnly_.x.com\thunter2\n", "line 2 of the cookies"),
    ],
)
def test_unusable_cookies_are_refused_and_not_printed(tmp_path, text, complaint, capfd):
    path = tmp_path / "cookies.txt"
    path.write_text(text)
    with pytest.raises(StorageError, match=complaint) as raised:
        Downloader(str(tmp_path / "raw"), DownloadConfig(cookies=str(path)), "en")("aaaaaaaaaaa")
    assert "hunter2" not in str(raised.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "text",
    ["", "hunter2", "http://a:hunter2@x:1 http://b", "http://", "http://a:hunter2@x:99999", "http://a:hunter2@[::1:8"],
)
def test_a_proxy_without_an_address_is_refused_and_not_shown(tmp_path, text):
    path = tmp_path / "proxy"
    path.write_text(text)
    with pytest.raises(StorageError, match="scheme://user:password@host:port") as raised:
        secret_files.read_proxy(str(path))
    assert "hunter2" not in str(raised.value)


def test_a_secret_that_is_not_there_is_named(secret_manager):
    with pytest.raises(StorageError, match=f"cannot read the secret '{SECRET}': 404"):
        secret_files.read_cookies(SECRET)


def test_workers_elsewhere_read_no_file_of_this_machine(tmp_path):
    path = tmp_path / "cookies.txt"
    path.touch()
    DownloadConfig(cookies=str(path)).check(workers_elsewhere=False)
    with pytest.raises(UsageError, match="there is no file"):
        DownloadConfig(cookies=str(tmp_path / "none")).check(workers_elsewhere=False)
    for config in (DownloadConfig(cookies=str(path)), DownloadConfig(proxy_from=str(path))):
        with pytest.raises(UsageError, match="workers cannot read; put it into a bucket"):
            config.check(workers_elsewhere=True)
    DownloadConfig(cookies=SECRET, proxy_from="gs://b/proxy").check(workers_elsewhere=True)
    with pytest.raises(UsageError, match="give the proxy once"):
        DownloadConfig(yt_dlp="--proxy http://x:1", proxy_from=SECRET).check(workers_elsewhere=True)
